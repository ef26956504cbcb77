"""A web server on 127.0.0.1 that answers as a test says, and keeps what it was asked.

`with Site() as site: site.answer("/feed", BODY); http.get(site.url("/feed"))`. Requests are served each on a thread of
its own; leaving the block ends them all, so a reply that waits must wait on `site.closing`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from model import FetchLimits, Post, Profile, Remember, Target, Window
from sources.http import Http


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request."""

    path: str
    #: Names in lower case.
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One response. With `raw` the body is all that is sent: no status line, no headers."""

    body: bytes | Iterable[bytes] = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bool = False


class Site:
    """Starts when the block is entered; paths nobody spoke of get 404."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        #: Set when the block is left.
        self.closing = threading.Event()
        self._replies: dict[str, Callable[[Asked], Reply]] = {}
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Site:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def url(self, path: str = "/feed") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def answer(self, path: str, body: bytes | Iterable[bytes] = b"", *, status: int = 200, **headers: str) -> None:
        """Give this response from now on; `Content_Type="x"` names the header Content-Type."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answer_with(path, lambda _: Reply(body=body, status=status, headers=named))

    def answer_with(self, path: str, reply: Callable[[Asked], Reply]) -> None:
        """Decide at each request."""
        self._replies[path] = reply

    def send(self, path: str, *pieces: bytes) -> None:
        """Send these bytes instead of an HTTP response, then hang up."""
        self.answer_with(path, lambda _: Reply(body=pieces, raw=True))

    def reply_to(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        return self._replies.get(asked.path, lambda _: Reply(status=404))(asked)


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client hung up: many tests want that."""


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_GET(self) -> None:
            reply = site.reply_to(
                Asked(path=self.path, headers={name.lower(): value for name, value in self.headers.items()})
            )
            self.close_connection = True
            body = [reply.body] if isinstance(reply.body, bytes) else reply.body
            if not reply.raw:
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if isinstance(reply.body, bytes) and "Content-Length" not in reply.headers:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
            for piece in body:
                self.wfile.write(piece)

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    return Handler


class Progress(list[str]):
    """Collects what on_progress was told."""

    def __call__(self, text: str) -> None:
        self.append(text)


@contextmanager
def open_http(
    *,
    remember: Mapping[str, str] | None = None,
    budget_s: float = 30.0,
    progress: Progress | None = None,
    **limits: Any,
) -> Iterator[Http]:
    """A session that may reach loopback; `limits` are fields of FetchLimits."""
    allowed = FetchLimits(**({"allow_private_networks": True, "read_timeout_s": 5.0} | limits))
    http = Http(
        allowed,
        deadline=time.monotonic() + budget_s,
        on_progress=Progress() if progress is None else progress,
        remember=remember or {},
    )
    try:
        yield http
    finally:
        http.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """What a source gave, sorted."""

    posts: list[Post]
    profile: Profile | None
    remember: Mapping[str, str] | None
    #: Everything, in order.
    found: list[Post | Profile | Remember | Window]


def scrape_feed(url: str, **options: Any) -> Scraped:
    """Run the feed source on an address; `options` go to open_http."""
    from sources.feed import scrape

    target = Target(id=1, source="feed", handle=url, url=url, remember=options.get("remember") or {})
    with open_http(**options) as http:
        found = list(scrape(target, http))
    return Scraped(
        posts=[one for one in found if isinstance(one, Post)],
        profile=next((one for one in found if isinstance(one, Profile)), None),
        remember=next((one.values for one in found if isinstance(one, Remember)), None),
        found=found,
    )
