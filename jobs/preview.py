"""A preview: a target is scraped once in a worker, like any other, and shown; nothing of it is kept.

Lives here: who may have one and when, and what the pool says of it. What is shown is put together in shown.py. Not
here: any write. A preview has no row anywhere: its token, which is its target's id too, is negative. What its host
asks for (Retry-After, robots.txt) is the host's, and is heeded and kept as any run's.
"""

from __future__ import annotations

import itertools
import logging
import math
import threading
from dataclasses import dataclass, replace

from errors import Busy, Draining, GleandError, Refused, StoreUnavailable, TooMany
from fsm.states import State
from jobs.core import Core, PoolLike
from jobs.protocol import Message
from jobs.runs import NO_TOKEN, Runs, too_long
from jobs.scrape import make_order
from jobs.shown import Ended, Resolve, Shown
from jobs.views import View
from model import Order, Outcome, Target
from sources.registry import Identity
from sources.urls import host_of

log = logging.getLogger(__name__)
#: Most previews at once (count), but fewer than there are workers: each has a thread of the HTTP server, and a worker
#: until its processes are gone.
AT_ONCE = 2
#: Longest wait for the host's turn and for a worker (seconds).
WAIT_S = 5.0
#: Longest time that a preview may take (seconds); `scrape_timeout_s` where that is less.
LONGEST_S = 60.0
#: After the deadline, until one of which the pool says nothing is given up (seconds).
SPARE_S = 5.0
#: How often one that waits looks again by itself (seconds).
LOOK_S = 0.05
#: The first token; they count down from here. No row has one like it.
FIRST_TOKEN = NO_TOKEN - 1
_LATER = "ask again in a few seconds"


@dataclass(slots=True)
class _Preview:
    """One that is under way, or whose processes are not known to be gone."""

    token: int
    ended: Ended | None = None


class Previews:
    """See the module. The pool's listener: what is of no preview goes on to `runs`."""

    def __init__(self, core: Core, runs: Runs, resolve: Resolve) -> None:
        self._core, self._runs, self._resolve = core, runs, resolve
        self._shown = Shown(core, resolve)
        self._tokens = itertools.count(FIRST_TOKEN, -1)
        #: Guards what follows; told when one has ended, or a place is free.
        self._changed = threading.Condition()
        self._open: dict[int, _Preview] = {}

    def show(self, name: str, *, source: str | None = None, range_: int | None = None) -> View:
        """Scrape what a name means once, and show what would be kept. Blocks for as long as that takes.

        Raises:
            Unusable: The name cannot be a target.
            TooMany: As many as may be are under way.
            Refused: Its host is busy, or is to be left alone.
            Busy: No worker was free in time.
            Draining: The daemon is stopping; a scrape that had begun is ended.
        """
        identity = self._resolve(name, source=source)
        preview = self._enter()
        try:
            order = self._order(identity, preview.token, range_)
            slot = self._take_place(identity.host, preview.token)
        except BaseException:
            self._leave(preview.token)
            raise
        if identity.host:  # who came there first since it was looked at has the turn, and the worker asks for another
            order = replace(order, has_turn=self._core.hosts.begin(identity.host, order.token))
        began = self._core.clock.monotonic()
        self._pool.hand_over(slot, order)
        log.info("preview_started token=%d host=%s", preview.token, identity.host or "none")
        ended = self._wait(preview, order, began)
        log.info("preview_ended token=%d state=%s", preview.token, ended.state.value)
        return self._shown.view(identity, ended, range_=range_, duration_s=round(ended.at - began, 3))

    @property
    def _pool(self) -> PoolLike:
        assert self._core.pool is not None, "a daemon without a pool answers nobody"
        return self._core.pool

    # -- one preview ---------------------------------------------------------------------------------------------

    def _check(self) -> None:
        """Raises Draining, StoreUnavailable."""
        if self._core.draining:
            raise Draining("the daemon is stopping", hint=_LATER)
        if not self._core.ready:  # what hosts asked for is not known yet
            raise StoreUnavailable("the database is not ready yet", hint=_LATER)

    def _enter(self) -> _Preview:
        """Be one of those under way. Raises TooMany."""
        self._check()
        most = max(1, min(AT_ONCE, self._core.settings.workers - 1))
        with self._changed:
            if len(self._open) >= most:
                others = "another preview is" if most == 1 else f"{most} other previews are"
                raise TooMany(f"{others} under way", hint=_LATER)
            preview = _Preview(token=next(self._tokens))
            self._open[preview.token] = preview
            return preview

    def _leave(self, token: int) -> _Preview | None:
        with self._changed:
            self._changed.notify_all()
            return self._open.pop(token, None)

    def _order(self, identity: Identity, token: int, range_: int | None) -> Order:
        target = Target(id=token, source=identity.source, handle=identity.handle, url=identity.url, range=range_)
        timeout_s = min(float(self._core.settings.scrape_timeout_s), LONGEST_S)
        robots = self._core.robots.of(identity.host)  # where it is not known, the worker reads it
        return make_order(self._core, target, token=token, timeout_s=timeout_s, robots=robots)

    def _take_place(self, host: str, token: int) -> int:
        """Wait until the host may be asked, and for a worker; returns its place. Raises Draining, Refused, Busy."""
        core, until = self._core, self._core.clock.monotonic() + WAIT_S
        try:
            while True:
                self._check()
                wait_s = core.hosts.wait_s(host) if host else 0.0
                slots = [] if wait_s else self._pool.reserve(1)
                if slots:
                    return slots[0]
                (core.awaited.discard if wait_s else core.awaited.add)(token)
                left = until - core.clock.monotonic()
                if left <= 0 or left < wait_s < math.inf:
                    raise self._refusal(host, wait_s)
                with self._changed:
                    self._changed.wait(LOOK_S)
        finally:
            core.awaited.discard(token)

    def _refusal(self, host: str, wait_s: float) -> GleandError:
        if not wait_s:
            return Busy("every worker is busy", hint=_LATER)
        if wait_s == math.inf:
            text, hint = f"{host} is busy with other runs", "ask again when they have ended"
            return Refused(text, hint=hint, refused_by="host_free")
        whole = math.ceil(wait_s)
        why = next((one["reason"] for one in self._core.hosts.view() if one["host"] == host), "it asked for that")
        text = f"{host} is to be left alone for {whole} s: {why}"
        return Refused(text, hint="ask again after that", refused_by="host_free", wait_s=whole)

    def _wait(self, preview: _Preview, order: Order, began: float) -> Ended:
        """Wait until it has ended, within bounds; one that has not is stopped. Raises Draining."""
        core, until = self._core, began + order.timeout_s + SPARE_S
        with self._changed:
            while preview.ended is None and not core.draining and core.clock.monotonic() < until:
                self._changed.wait(LOOK_S)
        if preview.ended is None:
            self._end(order, State.TIMEOUT, "nothing was heard of the scrape")
            self._pool.revoke(order.token)
            self._check()
        assert preview.ended is not None
        return preview.ended

    def _end(self, order: Order, state: State, error: str | None, found: Outcome | None = None) -> None:
        """It has ended; who says so first is right."""
        with self._changed:
            preview = self._open.get(order.token)
            if preview is not None and preview.ended is None:
                now = self._core.clock.monotonic()
                preview.ended = Ended(state=state, error=error, at=now, found=found or Outcome(ok=False))
                self._changed.notify_all()

    # -- listener of the pool ------------------------------------------------------------------------------------

    def finished(self, order: Order, outcome: Outcome) -> None:
        """The worker reported a result."""
        if not _is_preview(order):
            self._runs.finished(order, outcome)
            return
        if outcome.reached:  # that nobody was may be a mistyped name, and says nothing of our network
            self._core.network.answered()
        if outcome.untold and outcome.retry_after_s and order.target.url:
            self._runs.told_by(host_of(order.target.url), outcome.retry_after_s)
        self._end(order, State.COMPLETED if outcome.ok else State.FAILED, outcome.error, outcome)

    def died(self, order: Order, reason: str) -> None:
        """The worker's process ended without a result."""
        if _is_preview(order):
            self._end(order, State.FAILED, reason)
        else:
            self._runs.died(order, reason)

    def overdue(self, order: Order, kind: str) -> None:
        """It is too long, or too long without progress: there is nothing to store first, so it is stopped at once."""
        if not _is_preview(order):
            self._runs.overdue(order, kind)
            return
        self._end(order, State.TIMEOUT, too_long(order, kind))
        self._pool.revoke(order.token)

    def progressed(self, order: Order, text: str) -> None:
        """The work moved."""
        if not _is_preview(order):
            self._runs.progressed(order, text)

    def beat(self, order: Order) -> None:
        """The worker is alive."""
        if not _is_preview(order):
            self._runs.beat(order)

    def late(self, order: Order) -> None:
        """A report that nobody waits for any more."""
        if not _is_preview(order):
            self._runs.late(order)

    def said(self, order: Order, message: Message) -> None:
        """What it says of hosts holds for every run."""
        self._runs.said(order, message)

    def gone(self, order: Order) -> None:
        """The order has no process any more: its host and its place are free."""
        self._runs.gone(order)
        if _is_preview(order):
            self._end(order, State.FAILED, "the worker process is gone")
            self._leave(order.token)

    def freed(self) -> None:
        """A worker may be free, or gone."""
        with self._changed:
            self._changed.notify_all()
        self._runs.freed()


def _is_preview(order: Order) -> bool:
    return order.token <= FIRST_TOKEN
