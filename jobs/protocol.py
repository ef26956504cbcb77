"""Length-prefixed JSON between the daemon and a worker: never pickles, never more than MAX_FRAME_BYTES."""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime
from typing import Any

from model import MAX_WAIT_S, FetchLimits, Order, Outcome, Post, Profile, Target, json_ready

#: Largest message (bytes).
MAX_FRAME_BYTES = 1024 * 1024
#: Fields of a post that hold text, and how much of it is kept (characters).
TEXT_FIELDS = {
    "native_id": 2048,
    "url": 8192,
    "title": 10_000,
    "text": 1_000_000,
    "html": 1_000_000,
    "author": 1000,
    "kind": 16,
}
#: Most media of a post (count), and the longest address of one (characters).
MEDIA, MEDIA_CHARS = 100, 8192
Message = dict[str, Any]  # Any: JSON values


class ProtocolError(Exception):
    """The peer sent what no worker of ours sends."""


def encode(message: Message) -> bytes:
    """One frame. Raises ProtocolError when it is too large."""
    body = json.dumps(message, ensure_ascii=True, allow_nan=False).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes is too large")
    return struct.pack(">I", len(body)) + body


def _no_number(name: str) -> None:
    raise ProtocolError(f"a message holds {name}, which is no number")


class Decoder:
    """Takes bytes as they come, gives whole messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """Raises ProtocolError on anything that is not a frame of ours."""
        self._buffer += data
        messages: list[Message] = []
        while len(self._buffer) >= 4:
            (size,) = struct.unpack_from(">I", self._buffer)
            if size > MAX_FRAME_BYTES:
                raise ProtocolError(f"a message of {size} bytes was announced")
            if len(self._buffer) < 4 + size:
                break
            try:
                message = json.loads(self._buffer[4 : 4 + size], parse_constant=_no_number)
            except (ValueError, RecursionError) as exc:
                raise ProtocolError("a message is not JSON") from exc
            if not isinstance(message, dict):
                raise ProtocolError("a message is not an object")
            del self._buffer[: 4 + size]
            messages.append(message)
        return messages


def order_to_dict(order: Order) -> Message:
    """For the wire."""
    message: Message = json_ready(order)
    return message


def order_from_dict(data: Message) -> Order:
    """From the wire."""
    rest = {k: v for k, v in data.items() if k not in ("t", "target", "limits")}
    return Order(target=Target(**data["target"]), limits=FetchLimits(**data["limits"]), **rest)


def _seconds(value: Any) -> float:  # Any: whatever a worker sent
    """A number of seconds, at most MAX_WAIT_S; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    return float(min(max(value, 0.0), MAX_WAIT_S))


def told(data: Message) -> tuple[str, float, str]:
    """What a run was told by a host: the host, for how long (seconds), and why. Raises ProtocolError."""
    return _host(data), _seconds(data.get("wait_s")), storable(data.get("why"))[:200]


def asked(data: Message) -> tuple[str, list[str]]:
    """Which host a run wants to ask, and which ones it is done with. Raises ProtocolError."""
    done = data.get("done")
    if not isinstance(done, list):
        raise ProtocolError("what a run is done with is not a list")
    return _host(data), [storable(name) for name in done[:10]]


def robots(data: Message) -> tuple[str, int, str, float]:
    """A robots.txt: host, status, text, crawl-delay (seconds). Raises ProtocolError."""
    status = data.get("status")
    if isinstance(status, bool) or not isinstance(status, int):
        raise ProtocolError("the status of a robots.txt is not a number")
    return _host(data), status, storable(data.get("text"))[: 64 * 1024], _seconds(data.get("delay_s"))


def _host(data: Message) -> str:
    host = storable(data.get("host"))
    if not 0 < len(host) <= 300:
        raise ProtocolError("the name of a host is empty or too long")
    return host


def storable(value: object) -> str:
    """Text that every database and every JSON reader takes: no lone surrogates, no NUL. Raises ProtocolError."""
    if not isinstance(value, str):
        raise ProtocolError("a text has the wrong type")
    if not value.isascii():
        value = value.encode("utf-8", "replace").decode()
    return value.replace("\0", "\N{REPLACEMENT CHARACTER}")


def post_to_dict(post: Post) -> Message:
    """For the wire."""
    message: Message = json_ready(post)
    return message


def post_from_dict(data: Message) -> Post:
    """From the wire; types are checked, since a worker runs other people's code. Raises ProtocolError."""
    try:
        texts = {n: storable(data[n])[:most] for n, most in TEXT_FIELDS.items()}
        media = tuple(storable(m)[:MEDIA_CHARS] for m in data["media"][:MEDIA])
        return Post(published_at=_time(data["published_at"]), media=media, **texts)
    except (KeyError, TypeError, ValueError) as exc:
        raise ProtocolError("a post is malformed") from exc


def _time(text: str | None) -> datetime | None:
    """In UTC; one that no calendar of ours can show is left out. Raises ProtocolError, ValueError."""
    at = None if text is None else datetime.fromisoformat(text)
    if at is None or at.tzinfo is None:
        if at is not None:
            raise ProtocolError("a post has a time without an offset")
        return None
    return at.astimezone(UTC) if 1900 <= at.year < 2200 else None


def profile_from_dict(data: Any) -> Profile | None:  # Any: whatever a worker sent
    """From the wire."""
    if not isinstance(data, dict):
        return None
    return Profile(display_name=storable(data.get("display_name") or ""), url=storable(data.get("url") or ""))


def outcome_from_dict(data: Message, *, posts: tuple[Post, ...], truncated: bool) -> Outcome:
    """A result message as a value. Raises ProtocolError."""
    ok, error, remember, wait = data.get("ok"), data.get("error"), data.get("remember"), data.get("retry_after_s")
    if not isinstance(ok, bool) or not isinstance(error, (str, type(None))):
        raise ProtocolError("a result has a field of the wrong type")
    if remember is not None and not isinstance(remember, dict):
        raise ProtocolError("what to remember is not an object")
    if wait is not None and (isinstance(wait, bool) or not isinstance(wait, (int, float))):
        raise ProtocolError("retry_after_s is not a number")
    status, moved_to = data.get("status"), data.get("moved_to")
    return Outcome(
        ok=ok,
        error=None if ok else storable(error or "the scraper gave no reason")[:500],
        error_is_ours=data.get("ours") is True,
        posts=posts,
        remember=None if remember is None else {storable(k): storable(v) for k, v in remember.items()},
        profile=profile_from_dict(data.get("profile")),
        truncated=truncated or bool(data.get("truncated")),
        contiguous=data.get("contiguous") is True,
        retry_after_s=None if wait is None else float(min(max(wait, 0), MAX_WAIT_S)),
        fresh_s=_seconds(data.get("fresh_s", 0.0)),
        reached=data.get("reached") is True,
        unreachable=data.get("unreachable") is True,
        status=status if isinstance(status, int) else None,
        moved_to=storable(moved_to)[:2048] if isinstance(moved_to, str) else "",
    )
