"""What the pool tells of runs, on its way into the store; how they end there is in endings.py.

Listener of the pool: its methods are called on the pool's thread and only queue. What could not be stored waits in an
ordered backlog, which is as long as the runs that were alive, because nothing is claimed meanwhile.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import timedelta
from functools import partial

from errors import Refused, StoreUnavailable
from fsm.states import State, Trigger
from jobs.core import Core
from jobs.endings import ASKED_TO_WAIT, Ending, Endings
from jobs.hosts import MAX_CRAWL_DELAY_S, Turn
from jobs.protocol import Message, asked, robots, told
from model import Order, Outcome
from sources.urls import host_of
from store import queries
from store.writer import Tx

log = logging.getLogger(__name__)
#: What no row has: a report that comes with it cannot win, even before the revocation is stored.
NO_TOKEN = -1
#: Between two copies of heartbeats into the database (seconds).
BEATS_S = 5.0


class Runs(Endings):
    """Endings that come from the pool, stored together, now or later."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.backlog: deque[tuple[Order, Ending]] = deque()
        self._lock = threading.Lock()
        self._pending: list[tuple[Order, Ending]] = []
        self._beats_at = 0.0
        core.hosts.on_turn = self._answer

    # -- storing, now or later -----------------------------------------------------------------------------------

    def settle(self, tx: Tx, order: Order, how: Ending) -> None:
        """End what a report or the pool says has ended; see settle_all."""
        self.settle_all(tx, [(order, how)])

    def settle_all(self, tx: Tx, said: Sequence[tuple[Order, Ending]]) -> None:
        """End what reports or the pool say have ended, in order; a stale token is journalled and changes nothing."""
        rest = list(said)
        while rest:
            batch: dict[int, tuple[Order, Ending]] = {}
            while rest and rest[0][0].target.id not in batch:  # the second about one target sees what the first did
                order, how = rest.pop(0)
                batch[order.target.id] = (order, how)
            pairs = []
            for row in tx.conn.execute(queries.TARGETS, {"b_ids": list(batch)}).all():
                order, how = batch.pop(row.id)
                if how.trigger is not Trigger.EXPIRE or row.token == order.token:
                    pairs.append((row, how))
            for order, _ in batch.values():  # their targets are gone
                tx.after(partial(self._core.stop_worker, order.token))
            for (row, how), answer in zip(pairs, self.end_all(tx, pairs), strict=True):
                if isinstance(answer, Refused):
                    self._core.refuse(tx, row, how.trigger, answer, actor=how.actor)

    def store(self, order: Order, how: Ending) -> None:
        """Store an ending, with those that come at the same time; when the store refuses, keep it until it does not."""
        live = self._core.live.get(order.token)
        if live is not None:
            live.told = True  # from here the timeout check leaves it alone
        if self.backlog:
            self._keep_back(order, how)
            return
        with self._lock:
            self._pending.append((order, how))
            first = len(self._pending) == 1
        if first:
            self._store_pending([])

    def _store_pending(self, taken: list[tuple[Order, Ending]]) -> None:
        """Submit one operation for all that is pending when it runs; or, given some, for those."""

        def take() -> None:
            if not taken:  # it may be tried again, with the same
                with self._lock:
                    taken.extend(self._pending)
                    self._pending.clear()

        def op(tx: Tx) -> None:
            take()
            self.settle_all(tx, taken)

        def done(future: Future[None]) -> None:
            exc = future.exception()
            if exc is None:
                return
            take()
            for one in taken:
                if isinstance(exc, StoreUnavailable):
                    self._keep_back(*one)
                elif len(taken) > 1:
                    self._store_pending([one])  # one of them is to blame: each by itself
                else:
                    self._not_storable(*one, exc)

        self._core.writer.submit(op, fast=True).add_done_callback(done)

    def _not_storable(self, order: Order, how: Ending, exc: BaseException) -> None:
        """A fault of ours, or of the data: a result that cannot be kept is a failed run, not one for ever RUNNING."""
        log.error("ending_not_stored run_id=%d trigger=%s", order.run_id, how.trigger.value, exc_info=exc)
        live = self._core.live.get(order.token)
        if live is not None:
            live.told = live.unsaved = False  # when all else fails, the timeout check ends it
        if how.trigger is Trigger.COMPLETE:
            error = "what the scrape found could not be stored"
            self.store(
                order, Ending(trigger=Trigger.FAIL, actor="daemon", token=order.token, error=error, reason="failed")
            )
        else:
            self._core.writer.submit(lambda tx: self.abandon(tx, order.target.id, how), fast=True)

    def _keep_back(self, order: Order, how: Ending) -> None:
        live = self._core.live.get(order.token)
        if live is None:
            return  # ended by somebody else: this would be refused
        live.unsaved = True
        self._core.board.changed()
        self.backlog.append((order, how))

    def drain_backlog(self) -> int:
        """Try to store what waits, oldest first; returns how many are left."""
        while self.backlog:
            order, how = self.backlog[0]
            try:
                self._core.writer.run(lambda tx, o=order, h=how: self.settle(tx, o, h), timeout_s=5.0)  # type: ignore[misc]  # mypy does not infer a lambda with defaults
            except StoreUnavailable:
                return len(self.backlog)
            except Exception as exc:  # noqa: BLE001 - one broken ending must not hold the others for ever
                self.backlog.popleft()
                self._not_storable(order, how, exc)
            else:
                self.backlog.popleft()
        return 0

    def store_beats(self) -> None:
        """Copy heartbeats into the database every BEATS_S: one HEARTBEAT of each run that is alive."""
        core, now = self._core, self._core.clock.monotonic()
        lives = [live for live in list(core.live.values()) if not live.unsaved]
        if not lives or now - self._beats_at < BEATS_S or core.writer.refusing:
            return
        self._beats_at = now

        def op(tx: Tx) -> None:
            for live in lives:
                own = {"b_id": live.order.target.id, "b_state": State.RUNNING.value, "b_token": live.order.token}
                beat = {"last_heartbeat": live.beat_at, "last_progress_at": live.progress_at, "progress": live.text}
                tx.conn.execute(queries.STEP, own | beat)

        core.writer.submit(op)

    # -- listener of the pool ------------------------------------------------------------------------------------

    def finished(self, order: Order, outcome: Outcome) -> None:
        """The worker reported a result."""
        if outcome.reached:
            self._core.network.answered()
        elif outcome.unreachable and order.target.url:
            self._core.network.unreachable(host_of(order.target.url))
        public = outcome.error if outcome.ok or outcome.error_is_ours else "the scraper reported an error"
        trigger = Trigger.COMPLETE if outcome.ok else Trigger.FAIL
        how = Ending(
            trigger=trigger,
            actor="worker",
            token=order.token,
            error=outcome.error,
            public_error=public,
            outcome=outcome,
            reason=None if outcome.ok else "failed",
        )
        self.store(order, how)

    def died(self, order: Order, reason: str) -> None:
        """The worker's process ended without a result."""
        self.store(order, Ending(trigger=Trigger.FAIL, actor="pool", token=order.token, error=reason, reason="died"))

    def overdue(self, order: Order, kind: str) -> None:
        """The pool's own clock says the run is too long, or too long without progress."""
        how = Ending(
            trigger=Trigger.EXPIRE,
            actor="pool",
            token=order.token,
            error=too_long(order, kind),
            reason=kind,
            overdue=True,
        )
        self.store(order, how)

    def progressed(self, order: Order, text: str) -> None:
        """The work moved."""
        core, live = self._core, self._core.live.get(order.token)
        if live is not None:
            live.progressed, live.progress_at = core.clock.monotonic(), core.clock.now()
            live.beat_at, live.text, live.phase = live.progress_at, text[:200], "fetching"
            core.board.beat(now=live.progressed)

    def beat(self, order: Order) -> None:
        """The worker is alive."""
        live = self._core.live.get(order.token)
        if live is not None:
            live.beat_at = self._core.clock.now()
            self._core.board.beat(now=self._core.clock.monotonic())

    def said(self, order: Order, message: Message) -> None:
        """What a run says of hosts: it asks for a turn, was told to wait, read a robots.txt."""
        kind = message["t"]
        if kind == "ask":
            host, done = asked(message)
            turn = self._core.hosts.ask(order.token, host, done=done)
            if turn is not None:
                self._answer(turn)
        elif kind == "told":
            self.told_by(*told(message))
        else:
            self._robots(*robots(message))

    def told_by(self, host: str, wait_s: float, why: str = ASKED_TO_WAIT) -> None:
        """A host asked to be left alone for so long."""
        now = self._core.clock.now()
        self._core.hosts.block(host, wait_s, why)  # at once: others may be about to ask
        # In the lane of endings, so that it is stored no later than the run's own.
        self._core.writer.submit(lambda tx: self.host_asked(tx, host, wait_s, why, now), fast=True)

    def _answer(self, turn: Turn) -> None:
        """A turn for a run that asked, now or earlier."""
        if self._core.pool is None:
            return
        told = {"t": "turn", "token": turn.token, "granted": turn.granted, "wait_s": turn.wait_s, "why": turn.why}
        known = self._core.robots.of(turn.host)
        if known is not None:
            told["robots"] = known
        self._core.pool.answer(turn.token, told)

    def _robots(self, host: str, status: int, text: str, age_s: float, delay_s: float) -> None:
        core, at = self._core, self._core.clock.now() - timedelta(seconds=age_s)
        core.hosts.crawl_delay(host, delay_s)
        core.robots.keep(host, status, text, age_s=age_s)
        delay_s = min(delay_s, MAX_CRAWL_DELAY_S)
        core.writer.submit(
            lambda tx: queries.keep_robots(tx.conn, host, at=at, status=status, text=text, crawl_delay_s=delay_s)
        )

    def gone(self, order: Order) -> None:
        """The order has no process any more."""
        self._core.hosts.gone(order.token)

    def late(self, order: Order) -> None:
        """A report of a revoked run; it changes nothing and is journalled."""
        how = Ending(trigger=Trigger.COMPLETE, actor="worker", token=NO_TOKEN)
        self._core.writer.submit(lambda tx: self.settle(tx, order, how))

    def freed(self) -> None:
        """A worker may be free, or gone."""
        self._core.board.changed()
        self.kick()


def too_long(order: Order, kind: str) -> str:
    """What is wrong with a run that is `deadline`, or has stalled."""
    if kind == "deadline":
        return f"the scrape ran longer than {order.timeout_s:g} s"
    return f"the scrape made no progress for {order.stall_timeout_s:g} s"
