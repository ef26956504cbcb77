"""Length-prefixed JSON between the daemon and a worker: never pickles, never more than MAX_FRAME_BYTES.

msgspec reads and writes what there is much of, and its types and limits stand for ours there; whatever it does not take
goes through the slow functions below, which say what is cut, left out or refused.
"""

from __future__ import annotations

import json
import struct
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from model import MAX_ROBOTS_CHARS, MAX_WAIT_S, FetchLimits, Order, Outcome, Post, Profile, Target, json_ready

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
Message = dict[str, Any]  # Any: JSON values; posts and an order may be values of the model
_TO_JSON = msgspec.json.Encoder()
_FROM_JSON = msgspec.json.Decoder()


class ProtocolError(Exception):
    """The peer sent what no worker of ours sends."""


def encode(message: Message | Post) -> bytes:
    """One frame. Raises ProtocolError when it is too large; TypeError, ValueError for what is no JSON."""
    try:
        body = _TO_JSON.encode(message)
    except (TypeError, ValueError):  # text of a class of its own, or with lone surrogates
        body = json.dumps(json_ready(message), ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
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
            messages.append(_read(bytes(self._buffer[4 : 4 + size])))
            del self._buffer[: 4 + size]
        return messages


class _Posts(msgspec.Struct):
    """A message of posts as our own workers send it."""

    t: Literal["posts"]
    token: int
    posts: list[Post]


_POSTS = msgspec.json.Decoder(_Posts)
_POSTS_BEGIN = b'{"t":"posts",'


def _read(body: bytes) -> Message:
    if body.startswith(_POSTS_BEGIN) and b"\\u" not in body:  # nothing escaped: neither surrogates nor NUL
        try:
            found = _POSTS.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
        else:
            if all(map(_is_storable, found.posts)):
                return {"t": "posts", "token": found.token, "posts": found.posts}
    try:
        message = _FROM_JSON.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = _read_slowly(body)
    if not isinstance(message, dict):
        raise ProtocolError("a message is not an object")
    return message


def _read_slowly(body: bytes) -> object:
    """What msgspec does not take: lone surrogates, numbers of any size."""
    try:
        return json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError("a message is not JSON") from exc


def order_message(order: Order) -> Message:
    """An order, for the wire."""
    return {"t": "order", "order": order}


def order_of(message: Message) -> Order:
    """From the wire."""
    data = message["order"]
    bounds = data.pop("limits")
    limits = FetchLimits(**bounds | {"allowed_networks": tuple(bounds["allowed_networks"])})
    target = Target(**data.pop("target"))
    return Order(target=target, limits=limits, **data)


def _seconds(value: Any) -> float:  # Any: whatever a worker sent
    """A number of seconds, at most MAX_WAIT_S; 0 for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return 0.0
    return float(min(max(value, 0.0), MAX_WAIT_S))


def _count(value: Any) -> int:  # Any: whatever a worker sent
    """How many; 0 for anything else."""
    return max(0, value) if isinstance(value, int) else 0


def told(data: Message) -> tuple[str, float, str]:
    """What a run was told by a host: the host, for how long (seconds), and why. Raises ProtocolError."""
    return _host(data), _seconds(data.get("wait_s")), storable(data.get("why"))[:200]


def asked(data: Message) -> tuple[str, list[str]]:
    """Which host a run wants to ask, and which ones it is done with. Raises ProtocolError."""
    done = data.get("done")
    if not isinstance(done, list):
        raise ProtocolError("what a run is done with is not a list")
    return _host(data), [storable(name) for name in done[:10]]


def robots(data: Message) -> tuple[str, int, str, float, float]:
    """A robots.txt: host, status, text, its age and its crawl-delay (seconds). Raises ProtocolError."""
    status = data.get("status")
    if isinstance(status, bool) or not isinstance(status, int):
        raise ProtocolError("the status of a robots.txt is not a number")
    text, age_s, delay_s = storable(data.get("text"))[:MAX_ROBOTS_CHARS], data.get("age_s"), data.get("delay_s")
    return _host(data), status, text, _seconds(age_s), _seconds(delay_s)


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


def post_to_wire(post: Post) -> Post | Message:
    """For the wire: itself, when every field has just the type that is said, and the time is in UTC.

    Raises TypeError, ValueError for what is no JSON.
    """
    at, media = post.published_at, post.media
    if (
        type(post.native_id) is type(post.url) is type(post.title) is type(post.text) is str
        and type(post.html) is type(post.author) is type(post.kind) is str
        and (at is None or (type(at) is datetime and at.tzinfo is UTC))
        and type(media) is tuple
        and all(type(address) is str for address in media)
    ):
        return post
    message: Message = json_ready(post)
    json.dumps(message, allow_nan=False)  # msgspec would take more, such as bytes, and make texts of it
    return message


def _is_storable(post: Post) -> bool:
    """Whether nothing of a post is to be cut or left out; its types are right already, and it holds no NUL."""
    at, media = post.published_at, post.media
    return (
        (at is None or (at.tzinfo is UTC and 1900 <= at.year < 2200))
        and all(len(getattr(post, name)) <= most for name, most in TEXT_FIELDS.items())
        and (not media or (len(media) <= MEDIA and max(map(len, media)) <= MEDIA_CHARS))
    )


def post_from_wire(data: Post | Message) -> Post:
    """From the wire; types are checked, since a worker runs other people's code. Raises ProtocolError."""
    if isinstance(data, Post):
        return data
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
        cut=_count(data.get("cut")),
        contiguous=data.get("contiguous") is True,
        retry_after_s=None if wait is None else float(min(max(wait, 0), MAX_WAIT_S)),
        fresh_s=_seconds(data.get("fresh_s", 0.0)),
        reached=data.get("reached") is True,
        unreachable=data.get("unreachable") is True,
        no_turn=data.get("no_turn") is True,
        untold=data.get("untold") is True,
        status=status if isinstance(status, int) else None,
        moved_to=storable(moved_to)[:2048] if isinstance(moved_to, str) else "",
    )
