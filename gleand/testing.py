"""A kit to prove a scraper against recorded answers, without a network.

    from gleand.testing import Recorded, a_target, replay

    found = replay(my_site.scrape, a_target("ann"), {"https://example.org/api/ann": Recorded(body=[...])})
    assert [post.native_id for post in found.posts] == ["2", "1"]

The scraper is given the same `http` as in a worker, with answers from the table in place of the network. What it gives
is checked as the daemon would check it. A scraper that opens connections of its own is not held back from that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any

from gleand import tree

with tree.first("errors", "jobs", "model", "sources"):
    from requests import PreparedRequest, Response
    from requests.adapters import BaseAdapter
    from urllib3 import HTTPResponse

    from errors import ScrapeFailed
    from jobs.protocol import MEDIA, MEDIA_CHARS, TEXT_FIELDS, ProtocolError, encode, post_from_wire, post_to_wire
    from jobs.worker import MAX_REMEMBER
    from model import FetchLimits, Order, Post, Profile, Remember, Target, Window
    from sources.http import BadStatus, Http
    from sources.load import as_iterator, load
    from sources.urls import normalise_url

__all__ = [
    "Asked",
    "BadStatus",
    "FetchLimits",
    "NotRecorded",
    "NotStorable",
    "Post",
    "Profile",
    "Recorded",
    "Remember",
    "ScrapeFailed",
    "Scraped",
    "Target",
    "Window",
    "a_target",
    "replay",
]

#: How long a replayed run may take by its own clock (seconds).
_BUDGET_S = 300.0
_YEARS = range(1900, 2200)


class NotRecorded(AssertionError):
    """The scraper asked for an address, or for one more answer of an address, that is not in the table."""


class NotStorable(AssertionError):
    """The scraper gave what the daemon would refuse, cut or change; the message says what and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One answer of a server."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    #: Bytes, text (sent as UTF-8), or a list or dict (sent as JSON). As it is after decompression.
    body: bytes | str | list[Any] | dict[str, Any] = b""  # Any: JSON values

    def content(self) -> bytes:
        """What is sent."""
        if isinstance(self.body, bytes):
            return self.body
        return (self.body if isinstance(self.body, str) else json.dumps(self.body)).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of the scraper's."""

    url: str
    #: Names in lower case.
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scraped:
    """What a scraper gave, sorted, and what it did for it."""

    posts: list[Post]
    profile: Profile | None
    #: What it wants to be handed next time; None where it said nothing of it.
    remember: Mapping[str, str] | None
    #: It said that its posts are all there are in their time.
    is_window: bool
    #: What it told as progress.
    notes: list[str]
    asked: list[Asked]
    #: How long it said there will be nothing new (seconds).
    fresh_s: float


def a_target(
    handle: str, *, url: str = "", range: int | None = None, remember: Mapping[str, str] | None = None
) -> Target:
    """A target to scrape; `remember` is what an earlier run gave (`Scraped.remember`)."""
    return Target(id=1, source="replay", handle=handle, url=url, range=range, remember=dict(remember or {}))


def replay(
    scrape: Callable[[Target, Http], object] | Mapping[str, Any],  # Any: TOML values
    target: Target | str,
    recordings: Mapping[str, Recorded | Sequence[Recorded]],
    *,
    limits: FetchLimits | None = None,
) -> Scraped:
    """Run a scraper against recorded answers.

    Args:
        scrape: The function, or a table as the settings have it under `[pages.NAME]`.
        target: What to scrape, or a handle.
        recordings: Answers by address. A list is given one after the other; a single answer as often as it is asked
            for.
        limits: In place of the usual ones.

    Raises:
        NotRecorded: It asked for something else.
        NotStorable: What it gave cannot be kept as it is.
        ScrapeFailed: As the scraper raised it, or `http` on its behalf.
    """
    limits = limits or FetchLimits()
    if isinstance(target, str):
        target = a_target(target)
    tape, notes = _Tape(recordings), list[str]()
    deadline = time.monotonic() + _BUDGET_S
    http = Http(limits, deadline=deadline, on_progress=notes.append, remember=target.remember, adapter=tape)
    try:
        found = list(_bound(scrape, target, limits)(target, http))
    finally:
        http.close()
        if tape.refused:  # also where the scraper caught it
            raise NotRecorded(tape.refused[0])
    return _checked(found, notes=notes, asked=tape.asked, fresh_s=http.fresh_s)


def _bound(
    scrape: Callable[[Target, Http], object] | Mapping[str, Any], target: Target, limits: FetchLimits
) -> Callable[[Target, Http], Iterable[object]]:
    if not isinstance(scrape, Mapping):
        return as_iterator(scrape, getattr(scrape, "__name__", "scrape"))
    options = {"kind": "page", **scrape}
    return load(Order(run_id=1, token=1, target=target, timeout_s=1, stall_timeout_s=1, limits=limits, options=options))


class _Tape(BaseAdapter):
    """Answers from the table; refuses everything else."""

    def __init__(self, recordings: Mapping[str, Recorded | Sequence[Recorded]]) -> None:
        super().__init__()
        self._recordings = {normalise_url(url): answers for url, answers in recordings.items()}
        self._given = dict.fromkeys(self._recordings, 0)
        self.asked: list[Asked] = []
        self.refused: list[str] = []

    def send(self, request: PreparedRequest, *_: Any, **__: Any) -> Response:  # Any: what requests hands through
        """Called by requests. Raises NotRecorded."""
        url = normalise_url(request.url or "")
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append(Asked(url=url, headers=headers))
        recorded = self._recorded(url)
        body = recorded.content()
        is_json = isinstance(recorded.body, (list, dict))
        sent = {"Content-Type": "application/json"} if is_json else {}
        response = Response()
        response.status_code, response.url, response.request = recorded.status, url, request
        response.headers.update({**sent, **recorded.headers})
        response.raw = HTTPResponse(
            body=BytesIO(body), headers=response.headers, status=recorded.status, preload_content=False
        )
        return response

    def close(self) -> None:
        """There is nothing to close."""

    def _recorded(self, url: str) -> Recorded:
        answers = self._recordings.get(url)
        if isinstance(answers, Recorded):
            return answers
        count = self._given.get(url, 0)
        if answers is not None and count < len(answers):
            self._given[url] = count + 1
            return answers[count]
        if answers is not None:
            why = f"the scraper asked for {url} more often than the {len(answers)} times that are recorded"
        else:
            why = f"the scraper asked for {url}, which is not recorded; recorded are {', '.join(self._recordings)}"
        self.refused.append(why)
        raise NotRecorded(why)


def _checked(found: list[object], *, notes: list[str], asked: list[Asked], fresh_s: float) -> Scraped:
    posts = [one for one in found if isinstance(one, Post)]
    seen: set[str] = set()
    for one in found:
        if isinstance(one, Post):
            _check_post(one, seen)
        elif isinstance(one, Profile):
            _check_texts(f"the profile {one!r}", {"display_name": one.display_name, "url": one.url})
        elif isinstance(one, Remember):
            _check_remember(one)
        elif not isinstance(one, Window):
            raise NotStorable(f"the scraper gave a {type(one).__name__}, not a Post: {one!r:.80}")
    return Scraped(
        posts=posts,
        profile=next((one for one in reversed(found) if isinstance(one, Profile)), None),
        remember=next((one.values for one in reversed(found) if isinstance(one, Remember)), None),
        is_window=any(isinstance(one, Window) for one in found),
        notes=notes,
        asked=asked,
        fresh_s=fresh_s,
    )


def _check_post(post: Post, seen: set[str]) -> None:
    what = f"the post {post.native_id!r:.80}"
    _check_texts(what, {name: getattr(post, name) for name in TEXT_FIELDS})
    if not post.native_id:
        raise NotStorable(f"a post has no native_id: {post!r:.200}")
    if post.native_id in seen:
        raise NotStorable(f"two posts have the native_id {post.native_id!r:.80}")
    seen.add(post.native_id)
    for name, most in TEXT_FIELDS.items():
        if len(getattr(post, name)) > most:
            raise NotStorable(f"{what} has a {name} of more than {most} characters, which would be cut")
    _check_time(what, post.published_at)
    _check_media(what, post.media)
    try:
        kept = post_from_wire(json.loads(encode(post_to_wire(post))[4:]))
    except (ProtocolError, TypeError, ValueError) as exc:
        raise NotStorable(f"{what} cannot be sent to the daemon: {exc}") from exc
    changed = [name for name in (*TEXT_FIELDS, "media") if getattr(kept, name) != _plain(getattr(post, name))]
    if changed:
        raise NotStorable(f"{what} has characters in its {changed[0]} that cannot be stored")


def _check_texts(what: str, texts: Mapping[str, object]) -> None:
    for name, value in texts.items():
        if not isinstance(value, str):
            raise NotStorable(f"{what} has a {name} that is a {type(value).__name__}, not a text")


def _check_time(what: str, at: object) -> None:
    if at is None:
        return
    if not isinstance(at, datetime):
        raise NotStorable(f"{what} has a published_at that is a {type(at).__name__}, not a datetime")
    if at.utcoffset() is None:
        raise NotStorable(f"{what} has a published_at without a time zone")
    if at.year not in _YEARS:
        raise NotStorable(f"{what} has a published_at in the year {at.year}, which would be left out")


def _check_media(what: str, media: object) -> None:
    if not isinstance(media, (tuple, list)) or not all(isinstance(one, str) for one in media):
        raise NotStorable(f"{what} has media that are not a tuple of addresses")
    if len(media) > MEDIA or any(len(one) > MEDIA_CHARS for one in media):
        raise NotStorable(f"{what} has more than {MEDIA} media, or one of more than {MEDIA_CHARS} characters")


def _check_remember(remember: Remember) -> None:
    values = remember.values
    if not isinstance(values, Mapping):
        raise NotStorable(f"what is to be remembered is a {type(values).__name__}, not a dict")
    for name, value in values.items():
        _check_texts("what is to be remembered", {"name": name, f"value of {name!r}": value})
    if sum(len(name) + len(value) for name, value in values.items()) > MAX_REMEMBER:
        raise NotStorable(f"what is to be remembered has more than {MAX_REMEMBER} characters")


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
