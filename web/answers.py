"""An answer, and the one table and the one shape of errors. HTTP status codes live here and in api.py only."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from errors import BadRequest, Busy, Draining, GleandError, NotFound, Refused, StoreUnavailable, TooMany, Unusable
from web.protocols import View

log = logging.getLogger(__name__)
Headers = tuple[tuple[str, str], ...]

#: What a client is told to wait after a 429 or 503 (seconds).
RETRY_AFTER_S = 5
#: Status code of each family of errors; whatever is not here is our mistake.
STATUS_CODES: dict[type[GleandError], int] = {
    BadRequest: 400,
    NotFound: 404,
    Refused: 409,
    Unusable: 422,
    TooMany: 429,
    Busy: 503,
    Draining: 503,
    StoreUnavailable: 503,
}
#: On every answer: ask again before showing an old one, and never guess what it is.
COMMON_HEADERS: Headers = (("Cache-Control", "no-cache"), ("X-Content-Type-Options", "nosniff"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What goes back to a client."""

    status: int
    body: bytes
    headers: Headers = ()
    content_type: str = "application/json"


class TurnedAway(GleandError):
    """A request that HTTP itself refuses, before any service call; it carries its own status."""

    def __init__(self, status: int, code: str, message: str, *, hint: str | None = None, headers: Headers = ()) -> None:
        super().__init__(message, hint=hint)
        self.status, self.code, self.headers = status, code, headers


def dump(view: View) -> bytes:
    """Write JSON in UTF-8; half of a surrogate pair stays an escape, since UTF-8 has no form for it."""
    text = json.dumps(view, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_as_text)
    return text.encode("utf-8", "backslashreplace")


def _as_text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def answer(view: View, status: int = 200, headers: Headers = ()) -> Answer:
    """Render a view."""
    return Answer(status=status, body=dump(view), headers=headers)


def error_answer(exc: BaseException, where: str = "") -> Answer:
    """Render an error in the one shape all of them have.

    One that is not in the table is our own mistake: it is logged with its traceback and `where`, and the client is
    told nothing of it.
    """
    status: int = 0
    headers: Headers = ()
    if isinstance(exc, TurnedAway):
        status, headers = exc.status, exc.headers
    elif isinstance(exc, GleandError):
        status = next((STATUS_CODES[c] for c in type(exc).__mro__ if c in STATUS_CODES), 0)
        headers = (("Retry-After", str(RETRY_AFTER_S)),) if status in (429, 503) else ()
    if not status or not isinstance(exc, GleandError):
        log.error("request_failed where=%s error=%r", ascii(where[:200]), exc, exc_info=exc)
        return answer({"error": "something went wrong inside; the log says what", "code": "internal"}, 500)
    told = {"error": exc.message, "code": exc.code} | ({"hint": exc.hint} if exc.hint else {})
    return answer(told | {name: value for name, value in exc.details.items() if name not in told}, status, headers)


def raw_headers(answer: Answer, more: Headers = ()) -> list[tuple[bytes, bytes]]:
    """Headers as ASGI wants them."""
    pairs = [(n.lower().encode("latin-1"), v.encode("latin-1")) for n, v in (*answer.headers, *more)]
    pairs += _COMMON
    if answer.status not in (204, 304):
        pairs.append((b"content-type", answer.content_type.encode("latin-1")))
        pairs.append((b"content-length", b"%d" % len(answer.body)))
    return pairs


def as_bytes(answer: Answer, headers: list[tuple[bytes, bytes]], *, head: bool = False) -> bytes:
    """Write a whole answer; `head`: without its body, as HEAD wants it."""
    lines = [_STATUS_LINES[answer.status], *(b"%b: %b\r\n" % pair for pair in headers), b"\r\n"]
    return b"".join(lines if head else [*lines, answer.body])


_COMMON = [(name.lower().encode(), value.encode()) for name, value in COMMON_HEADERS]
_STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in HTTPStatus}
