"""What a preview shows: the posts as they would be listed, and sentences on what would not be kept. Reads only."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from errors import Unusable
from fsm.states import State
from jobs import views
from jobs.core import Core
from jobs.endings import MOVED_TIMES
from jobs.views import View
from model import Outcome, Post
from sources.registry import Identity
from sources.urls import is_http, normalise_url
from store import schema as s

#: Posts that are shown (count).
SHOWN = 50
#: Posts that are asked for in one statement (count).
_CHUNK = 500
_T, _P = s.targets.c, s.posts.c


class Resolve(Protocol):
    """Reads what names a target. Raises Unusable."""

    def __call__(self, name: str, *, source: str | None = None) -> Identity: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a preview ended."""

    state: State
    error: str | None
    #: Monotonic seconds.
    at: float
    #: What the worker told; nothing where it told nothing.
    found: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tracked:
    """The target that it would be."""

    target_id: int
    #: Posts of the preview that are kept already (count).
    known: int


class Shown:
    """See the module."""

    def __init__(self, core: Core, resolve: Resolve) -> None:
        self._core, self._resolve = core, resolve

    def view(self, identity: Identity, ended: Ended, *, range_: int | None, duration_s: float) -> View:
        """Put the answer together."""
        found, good = ended.found, ended.state is State.COMPLETED
        posts = unique(found.posts) if good else []
        profile = found.profile
        name = profile.display_name[:300] if profile is not None else ""
        notes = [*kept_notes(found, posts), *_moved_notes(found, identity)] if good else failed_notes(found)
        try:
            tracked = self._tracked(identity, [post.native_id for post in posts])
        except SQLAlchemyError:
            tracked = None
            notes.append("whether it is tracked already could not be read")
        if tracked is not None:
            more = f": {tracked.known} of these are kept" if good else ""
            notes.append(f"it is tracked already, as target {tracked.target_id}{more}")
        shown = {"source": identity.source, "handle": identity.handle, "name": name or identity.handle}
        return {
            "source": identity.source,
            "handle": identity.handle,
            "url": identity.url,
            "outcome": ended.state.value,
            "error": ended.error,
            "duration_s": duration_s,
            "display_name": name or None,
            "moved_to": _leads_to(found) if good else None,
            "posts": [views.found(post, **shown) for post in posts[:SHOWN]],
            "posts_found": len(posts),
            "truncated": found.truncated,
            "notes": notes,
            "next": self._next(identity, tracked, good=good, range_=range_),
        }

    def _tracked(self, identity: Identity, native_ids: Sequence[str]) -> _Tracked | None:
        """The target with this identity, if there is one. Raises SQLAlchemyError."""
        with self._core.engine.connect() as conn:
            own = select(_T.id).where(_T.source == identity.source, _T.handle == identity.handle)
            target_id = conn.execute(own).scalar()
            if target_id is None:
                return None
            known = 0
            for start in range(0, len(native_ids), _CHUNK):
                part = _P.native_id.in_(native_ids[start : start + _CHUNK])
                count = select(func.count()).select_from(s.posts).where(_P.target_id == target_id, part)
                known += int(conn.execute(count).scalar() or 0)
            return _Tracked(target_id=target_id, known=known)

    def _next(self, identity: Identity, tracked: _Tracked | None, *, good: bool, range_: int | None) -> str:
        if tracked is not None:
            return f"to scrape it now: gleand refresh {tracked.target_id}"
        more = f" --range {range_}" if range_ is not None else ""
        return f"to track it{'' if good else ' all the same'}: gleand add {shlex.quote(self._name(identity))}{more}"

    def _name(self, identity: Identity) -> str:
        """What means this target, and no other, when it is typed."""
        try:
            if is_http(identity.handle) and self._resolve(identity.handle) == identity:
                return identity.handle
        except Unusable:
            pass  # by itself the address is that of a source which is off
        return f"{identity.source}:{identity.handle}"


def unique(posts: Sequence[Post]) -> list[Post]:
    """Those that would be kept, as they came: of posts with one native id the first counts (store/posts.py)."""
    first: dict[str, Post] = {}
    for post in posts:
        first.setdefault(post.native_id, post)
    return list(first.values())


def kept_notes(found: Outcome, kept: Sequence[Post]) -> list[str]:
    """What of a completed run would not be kept, or not as one might think."""
    count, twice = len(kept), len(found.posts) - len(kept)
    lacks = {
        "no time": sum(post.published_at is None for post in kept),
        "no address": sum(not post.url for post in kept),
        "neither title nor text": sum(not (post.title or post.text or post.html) for post in kept),
    }
    notes = [] if kept else ["no post was found"]
    if twice:
        notes.append(f"{twice} would not be kept: their ids come twice, and the first of each counts")
    notes += [f"{number} of {count} have {what}" for what, number in lacks.items() if number]
    if found.cut:
        notes.append(f"the text of {_several(found.cut, 'post', 'posts')} is cut")
    elif found.truncated:
        notes.append("more was found than one run may report: the rest is left out")
    return notes


def failed_notes(found: Outcome) -> list[str]:
    """What else there is to say of one that failed."""
    notes = []
    if found.posts:
        number = _several(len(found.posts), "post was", "posts were")
        notes.append(f"{number} found before it failed: of a failed run nothing is kept")
    if found.retry_after_s:
        notes.append(f"the site asks to be left alone for {found.retry_after_s:.0f} s")
    return notes


def _moved_notes(found: Outcome, identity: Identity) -> list[str]:
    address = _leads_to(found)
    if address is None:
        return []
    if found.profile is not None and found.profile.url:
        return [f"the address is that of a page; its feed, which would be scraped, is at {address}"]
    if not is_http(identity.handle):  # of an account, the address is the source's to know
        return []
    return [f"the address has moved to {address}, which is believed after {MOVED_TIMES} runs in a row"]


def _leads_to(found: Outcome) -> str | None:
    """The address of the feed on a page, or the one that the target's own leads to for ever."""
    address = (found.profile.url if found.profile is not None else "") or found.moved_to
    try:
        return normalise_url(address) if address else None
    except Unusable:
        return None


def _several(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
