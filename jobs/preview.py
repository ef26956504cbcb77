"""A scrape that keeps nothing: what would be kept of a target, and what would not, before anybody tracks it.

It runs in a worker like every other, at its host's pace and until its deadline, with a token that no row has. It
writes nothing, and works while the store refuses writes. The caller waits; only a few may at once.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as TookTooLong
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import and_, func, select
from sqlalchemy.exc import SQLAlchemyError

from errors import Draining, StoreUnavailable, TooMany
from jobs.core import Core
from jobs.protocol import Message
from jobs.runs import Runs
from jobs.scrape import make_order
from jobs.views import View, found_post
from model import Order, Outcome, Post, Target
from sources.registry import Identity
from store import schema as s

#: Previews at once (count); each holds a thread of the API.
MOST = 2
#: Longest a preview may take in its worker (seconds).
LONGEST_S = 60.0
#: How long a preview waits for a free worker and for its host (seconds), and how often it looks.
PATIENCE_S, LOOK_S = 10.0, 0.05
#: Posts that are shown (count).
SHOWN = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """How it ended: COMPLETED, FAILED or TIMEOUT."""

    state: str
    error: str | None = None
    outcome: Outcome | None = None


class Previews:
    """Scrapes for a caller that waits. Also the pool's listener: it keeps what is its own, and hands on the rest."""

    def __init__(self, core: Core, runs: Runs) -> None:
        self._core, self._runs = core, runs
        self._places = threading.BoundedSemaphore(MOST)
        self._tokens = itertools.count(-1, -1)
        self._open: dict[int, Future[_Ended]] = {}

    def scrape(self, identity: Identity, *, range_: int | None) -> View:
        """Scrape once and show what would be kept; blocks.

        Raises:
            TooMany: Others are being scraped for; ask again.
            StoreUnavailable: No worker was free in time, or the host is to be left alone.
            Draining: The daemon is stopping.
        """
        with self._place():
            token = next(self._tokens)
            target = Target(id=token, source=identity.source, handle=identity.handle, url=identity.url, range=range_)
            timeout_s = min(float(self._core.settings.scrape_timeout_s), LONGEST_S)
            order = make_order(self._core, target, token=token, timeout_s=timeout_s)
            began = time.monotonic()
            ended = self._run(order, identity.host)
            return self._view(identity, ended, duration_s=round(time.monotonic() - began, 3))

    @contextmanager
    def _place(self) -> Iterator[None]:
        if not self._places.acquire(blocking=False):
            raise TooMany("other previews are in progress", hint="ask again in a few seconds")
        try:
            yield
        finally:
            self._places.release()

    def _run(self, order: Order, host: str) -> _Ended:
        """Hand the order over once a worker and its host are free; wait for its end."""
        core, told = self._core, Future[_Ended]()
        assert core.pool is not None
        slot = self._reserve(host)
        self._open[order.token] = told
        if host:
            order = replace(order, has_turn=core.hosts.begin(host, order.token))
        core.pool.hand_over(slot, order)
        try:
            return told.result(order.timeout_s + PATIENCE_S)
        except TookTooLong:  # the pool ends it in time; this is the net
            core.pool.revoke(order.token)
            return _Ended(state="TIMEOUT", error=f"the scrape ran longer than {order.timeout_s:g} s")
        finally:
            self._open.pop(order.token, None)

    def _reserve(self, host: str) -> int:
        core, until = self._core, time.monotonic() + PATIENCE_S
        assert core.pool is not None
        while True:
            if core.draining:
                raise Draining("the daemon is stopping", hint="ask again in a few seconds")
            wait_s = core.hosts.wait_s(host) if host else 0.0
            slots = core.pool.reserve(1) if wait_s <= 0 else []
            if slots:
                return slots[0]
            if time.monotonic() > until:
                why = "its host is to be left alone, or is busy" if wait_s > 0 else "no worker is free"
                raise StoreUnavailable(f"there is no preview now: {why}", hint="ask again in a few seconds")
            time.sleep(LOOK_S)

    # -- listener of the pool ------------------------------------------------------------------------------------

    def finished(self, order: Order, outcome: Outcome) -> None:
        """The worker reported a result."""
        state = "COMPLETED" if outcome.ok else "FAILED"
        if not self._tell(order, _Ended(state=state, error=outcome.error, outcome=outcome)):
            self._runs.finished(order, outcome)

    def died(self, order: Order, reason: str) -> None:
        """The worker's process ended without a result."""
        if not self._tell(order, _Ended(state="FAILED", error=reason)):
            self._runs.died(order, reason)

    def overdue(self, order: Order, kind: str) -> None:
        """It is too long, or too long without progress: it ends, and so does its worker."""
        what = f"ran longer than {order.timeout_s:g} s"
        if kind != "deadline":
            what = f"made no progress for {order.stall_timeout_s:g} s"
        if not self._tell(order, _Ended(state="TIMEOUT", error=f"the scrape {what}")):
            self._runs.overdue(order, kind)
        elif self._core.pool is not None:
            self._core.pool.revoke(order.token)

    def late(self, order: Order) -> None:
        """A report of a revoked run."""
        if order.token > 0:
            self._runs.late(order)

    def progressed(self, order: Order, text: str) -> None:
        """The work moved."""
        self._runs.progressed(order, text)

    def beat(self, order: Order) -> None:
        """The worker is alive."""
        self._runs.beat(order)

    def said(self, order: Order, message: Message) -> None:
        """What a run says of hosts: the same for all."""
        self._runs.said(order, message)

    def gone(self, order: Order) -> None:
        """The order has no process any more."""
        self._runs.gone(order)

    def freed(self) -> None:
        """A worker may be free, or gone."""
        self._runs.freed()

    def _tell(self, order: Order, ended: _Ended) -> bool:
        """Whether the order is a preview's; its caller is told the first end."""
        told = self._open.get(order.token)
        if told is not None and not told.done():
            told.set_result(ended)
        return order.token < 0

    # -- what is shown -------------------------------------------------------------------------------------------

    def _view(self, identity: Identity, ended: _Ended, *, duration_s: float) -> View:
        outcome = ended.outcome
        posts = () if outcome is None or not outcome.ok else outcome.posts
        profile = None if outcome is None else outcome.profile
        name = profile.display_name if profile is not None else ""
        return {
            "source": identity.source,
            "handle": identity.handle,
            "url": identity.url,
            "outcome": ended.state,
            "error": ended.error,
            "duration_s": duration_s,
            "display_name": name or None,
            "moved_to": (profile.url if profile is not None else "") or None,
            "posts": [found_post(post, handle=identity.handle, name=name) for post in posts[:SHOWN]],
            "posts_found": len(posts),
            "truncated": outcome is not None and outcome.truncated,
            "notes": list(_notes(posts)) + self._known(identity, posts),
        }

    def _known(self, identity: Identity, posts: Sequence[Post]) -> list[str]:
        """Whether the target is tracked, and how many of the posts are kept; nothing when that cannot be read."""
        own = and_(s.targets.c.source == identity.source, s.targets.c.handle == identity.handle)
        try:
            with self._core.engine.connect() as conn:
                target_id = conn.execute(select(s.targets.c.id).where(own)).scalar()
                ids = [post.native_id for post in posts[:500]]
                kept = and_(s.posts.c.target_id == target_id, s.posts.c.native_id.in_(ids))
                count = conn.execute(select(func.count()).select_from(s.posts).where(kept)).scalar() if target_id else 0
        except SQLAlchemyError:
            return []
        return [] if target_id is None else [f"it is tracked already, as target {target_id}: {count} of these are kept"]


def _notes(posts: Sequence[Post]) -> Iterator[str]:
    """What a person should know of posts: which would not be kept, or not as they might think."""
    twice = sum(count - 1 for count in Counter(post.native_id for post in posts).values())
    rules: list[tuple[str, Callable[[Post], Any]]] = [  # Any: true or false
        ("no time", lambda post: post.published_at is None),
        ("no address", lambda post: not post.url),
        ("neither title nor text", lambda post: not (post.title or post.text or post.html)),
    ]
    if twice:
        yield f"{twice} would not be kept: their ids come twice"
    for what, lacks in rules:
        count = sum(1 for post in posts if lacks(post))
        if count:
            yield f"{count} of {len(posts)} have {what}"
