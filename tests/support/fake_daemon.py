"""A small server that answers as the daemon does, for tests of the command line: long polls, lists, canned answers."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from jobs.views import empty_status

View = dict[str, Any]


def sweep(**more: Any) -> View:
    """STATUS."""
    counts = dict.fromkeys(("IDLE", "RUNNING", "COMPLETED", "FAILED", "TIMEOUT"), 0)
    return empty_status() | {"counts": counts} | more


def target(target_id: int, state: str = "IDLE", **more: Any) -> View:
    """Status of a target."""
    view: View = {"id": target_id, "username": f"t{target_id}", "source": "git", "state": state, "phase": None}
    view |= {"run_id": None, "started_at": None, "deadline_at": None, "stalled": False, "progress": None}
    view |= {"error": None, "reason": None, "requested_at": None, "last_run": None, "triggers": {}}
    return view | more


def run(run_id: int, state: str, **more: Any) -> View:
    """A run that has ended."""
    return {"id": run_id, "state": state, "error": None, "reason": None, "posts_seen": 3, "posts_new": 1} | more


class FakeDaemon:
    """Use as a context manager; it may be stopped and started again on its port."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._status: dict[str, View] = {"/api/scrape-status": sweep()}
        self.canned: dict[tuple[str, str], tuple[int, Any] | Callable[[Any], tuple[int, Any]]] = {}
        self.asked: list[tuple[str, str, Any]] = []
        #: Whether it holds a client that waits; a daemon whose places are taken does not.
        self.holds = True
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeDaemon:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; on the same port as before, if there was one."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, view, etag = fake._answer(self.command, self.path, json.loads(body or "null"), self.headers)
                data = b"" if status == 304 else json.dumps(view).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(data)), "ETag": etag}.items():
                    if value is not None:
                        self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = _serve

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:  # a client that went away
                pass

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}).start()

    def stop(self) -> None:
        """Answer nobody any more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            with self._changed:
                self._changed.notify_all()
            server.server_close()

    def set(self, view: View) -> None:
        """Publish a status: a target's, or the daemon's."""
        path = f"/api/targets/{view['id']}/status" if "username" in view else "/api/scrape-status"
        with self._changed:
            self._status[path] = view
            self._changed.notify_all()

    def count(self, path: str) -> int:
        """How often it was asked for."""
        return sum(asked == path for _, asked, _ in list(self.asked))

    def _answer(self, method: str, address: str, body: Any, headers: Any) -> tuple[int, Any, str | None]:
        parts = urlsplit(address)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self.asked.append((method, parts.path, body if method != "GET" else query))
        canned = self.canned.get((method, parts.path))
        if canned is not None:
            return (*(canned(body) if callable(canned) else canned), None)
        if parts.path in self._status:
            return self._wait(parts.path, headers.get("If-None-Match"), float(query.get("wait", 0)))
        found = re.fullmatch(r"/api/targets(?:/(\d+))?", parts.path)
        if method == "GET" and found:
            views = [v for v in self._status.values() if "username" in v]
            rows = [v | {"handle": v["username"], "url": ""} for v in views]
            if found[1]:
                rows = [row for row in rows if row["id"] == int(found[1])]
                return (200, rows[0], None) if rows else (404, {"error": "there is no such target"}, None)
            rows = [row for row in rows if query.get("state", row["state"]) == row["state"]]
            rows = [row for row in rows if query.get("q", "") in row["handle"]]
            return 200, {"targets": rows[: int(query["limit"])], "next_cursor": None}, None
        return 404, {"error": "there is no such thing"}, None

    def _wait(self, path: str, known: str | None, wait_s: float) -> tuple[int, Any, str]:
        end = time.monotonic() + (wait_s if self.holds else 0.0)
        with self._changed:
            while True:
                view = self._status[path]
                beats = ("last_heartbeat", "last_progress_at")
                etag = f'W/"{hash(json.dumps({k: v for k, v in view.items() if k not in beats}))}"'
                left = end - time.monotonic()
                if etag != known or left <= 0 or self._server is None:
                    return (304 if etag == known else 200), view, etag
                self._changed.wait(left)
