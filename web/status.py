"""The status and health calls: the same answers from the door, which is given them on its loop, and from Flask."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from jobs.snapshot import make_page
from web.answers import Answer, answer
from web.contract import Args, Operation, path_id
from web.protocols import Page, ServiceLike, View

PATH = "/api/scrape-status"
_TAG = re.compile(r'"[^"]*"')


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusCall:
    """Which status is asked for: a target's, a certain sweep's, or (neither) the daemon's."""

    target_id: int | None = None
    sweep_id: int | None = None
    #: How long a change may be waited for (seconds); 0: not at all.
    wait_s: float = 0.0


def status_call(args: Args) -> StatusCall:
    """Read what the query of a status call asks for."""
    return StatusCall(target_id=args.get("id"), sweep_id=args.get("sweep_id"), wait_s=args.get("wait") or 0.0)


class StatusCalls:
    """Knows a status call when it sees one."""

    def __init__(self) -> None:
        self._daemon, self._target = (Operation("GET", path) for path in (PATH, "/api/targets/{id}/status"))
        self._read_before = functools.lru_cache(maxsize=256)(self._read)

    def __call__(self, path: str, query: bytes) -> StatusCall | None:
        """Read a path and its query; None: it is another call. Raises BadRequest."""
        return (self._read if len(path) + len(query) > 200 else self._read_before)(path, query)

    def _read(self, path: str, query: bytes) -> StatusCall | None:
        if path == PATH:
            return status_call(self._daemon.read_query(query))
        if path.startswith("/api/targets/") and path.endswith("/status"):
            target_id = path_id(path[len("/api/targets/") : -len("/status")])
            if target_id is not None:
                return status_call(self._target.read_query(query) | {"id": target_id})
        return None


def held_page(service: ServiceLike, call: StatusCall) -> Page | None:
    """Look on the board: memory only. None: it does not hold this one."""
    board = service.board
    return board.target(call.target_id) if call.target_id is not None else board.status(call.sweep_id)


def asked_page(service: ServiceLike, call: StatusCall) -> Page:
    """Ask for what the board does not hold; blocks for an indexed read. Raises NotFound, StoreUnavailable."""
    if call.target_id is not None:
        return make_page(service.target_status(call.target_id))
    return make_page(service.scrape_status(call.sweep_id))


def known_tags(header: str | None) -> frozenset[str] | None:
    """Entity tags of If-None-Match in their quotes, without what makes them weak; None without the header."""
    if header is None:
        return None
    return frozenset({"*"}) if header.strip() == "*" else frozenset(_TAG.findall(header))


def is_known(page: Page, tags: frozenset[str]) -> bool:
    """Whether one of the tags is the page's; weak comparison."""
    return page.etag.removeprefix("W/") in tags or "*" in tags


def status_answer(page: Page, tags: frozenset[str] | None) -> Answer:
    """Render a status, or 304 for a client that has it."""
    headers = (("ETag", page.etag),)
    if tags is not None and is_known(page, tags):
        return Answer(status=304, body=b"", headers=headers)
    return Answer(status=200, body=page.body, headers=headers)


def health_answer(view: View, ok: bool, *, code: str, error: str) -> Answer:
    """Render a health check: 200, or 503 in the shape of an error."""
    return answer(view) if ok else answer({"error": error, "code": code} | view, 503)


def healthz(service: ServiceLike) -> Answer:
    """Alive."""
    return health_answer(*service.health(), code="stuck", error="a part of the daemon does not answer")


def readyz(service: ServiceLike) -> Answer:
    """Takes writes and can store them."""
    return health_answer(*service.ready(), code="not_ready", error="the daemon takes no writes now")
