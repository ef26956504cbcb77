"""A web server on 127.0.0.1 that answers as a test says, and keeps what it was asked.

`with Site() as site: site.answer("/feed", BODY); http.get(site.url("/feed"))`. Requests are served each on a thread of
its own; leaving the block ends them all, so a reply that waits must wait on `site.closing`.
"""

from __future__ import annotations

import math
import select
import socket
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
    #: So long after the request (seconds), unless the client hangs up.
    after_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request as the site saw it; instants are monotonic, which all processes of a machine share."""

    path: str
    began: float
    #: Before the last of the answer was sent, or when the client had hung up.
    ended: float = math.inf
    reply: Reply | None = None


class Site:
    """Starts when the block is entered; paths nobody spoke of get 404."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.address = address
        self.asked: list[Asked] = []
        self.visits: list[Visit] = []
        #: Set when the block is left.
        self.closing = threading.Event()
        self._replies: dict[str, Callable[[Asked], Reply]] = {}
        self._server = _Server((address, 0), _handler(self))
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
        return f"http://{self.address}:{self.port}{path}"

    @property
    def host(self) -> str:
        """What the daemon calls it."""
        return f"{self.address}:{self.port}"

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
            visit = Visit(path=self.path, began=time.monotonic())
            site.visits.append(visit)
            try:
                self._answer(visit)
            finally:
                visit.ended = min(visit.ended, time.monotonic())

        def _answer(self, visit: Visit) -> None:
            reply = visit.reply = site.reply_to(
                Asked(path=self.path, headers={name.lower(): value for name, value in self.headers.items()})
            )
            self.close_connection = True
            if reply.after_s and _hangs_up(self.connection, reply.after_s, site.closing):
                return
            body = [reply.body] if isinstance(reply.body, bytes) else reply.body
            if isinstance(reply.body, bytes):
                visit.ended = time.monotonic()
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


def _hangs_up(connection: socket.socket, within_s: float, closing: threading.Event) -> bool:
    """Whether the client goes before that time is over, or the site does."""
    until = time.monotonic() + within_s
    while (left := until - time.monotonic()) > 0:
        if closing.is_set() or select.select([connection], [], [], min(left, 0.05))[0]:
            return True
    return False


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
