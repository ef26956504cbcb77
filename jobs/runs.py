"""The end of a run: every ending goes through `Runs.end`, whoever says so.

Listener of the pool: its methods are called on the pool's thread and only queue. What could not be stored waits in an
ordered backlog, which is as long as the runs that were alive, because nothing is claimed meanwhile.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from errors import NotFound, Refused, StoreUnavailable
from fsm.states import State, Trigger
from jobs import schedules, sweeps
from jobs.core import Core, Live
from jobs.views import View, iso
from model import Order, Outcome
from store import queries
from store.posts import keep
from store.queries import TargetRow, Values
from store.writer import Tx

log = logging.getLogger(__name__)

#: Between two copies of heartbeats into the database (seconds).
BEATS_S = 5.0
#: Columns of a target that belong to its last run; a reset clears them.
RUN_COLUMNS = ("started_at", "deadline_at", "last_heartbeat", "last_progress_at", "error", "reason", "progress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a run is to end, and who says so."""

    trigger: Trigger
    actor: str
    #: Shown to clients.
    error: str | None = None
    #: Shown where old clients put it into HTML; None: `error`.
    public_error: str | None = None
    #: One word, or an operator's sentence.
    reason: str | None = None
    #: What the caller came with; None: an operator.
    token: int | None = None
    force: bool = False
    outcome: Outcome | None = None
    #: The caller measured it by its own monotonic clock.
    overdue: bool = False


class Runs:
    """Endings, and what the pool tells."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.backlog: deque[tuple[Order, Ending]] = deque()
        self._beats_at = 0.0
        #: Called when a worker may be free or something may be due.
        self.kick: Callable[[], None] = lambda: None

    def end(self, tx: Tx, row: TargetRow, how: Ending) -> State:
        """End the run of a RUNNING target: state, posts, run row, next turn and sweeps in one transaction.

        Raises:
            Refused: The lifecycle, or a faster writer, said no; nothing was changed.
        """
        core, now = self._core, self._core.clock.now()
        facts = core.facts(row, claimed_token=how.token)
        if how.overdue:
            facts = replace(facts, overdue=True)
        live = core.live.get(row.token)
        values = self._columns(row, how, live, now)
        step = core.move(
            tx, row, how.trigger, facts, actor=how.actor, reason=how.reason or how.error, force=how.force, values=values
        )
        run: View = {"state": step.dest.value, "ended_at": now, "error": values["error"], "reason": how.reason}
        if how.trigger is Trigger.RESET:
            run["error"] = how.error
        if live is not None:
            run["duration_s"] = round(core.clock.monotonic() - live.started, 3)
        if how.outcome is not None and how.trigger is Trigger.COMPLETE:
            run |= self._keep(tx, row, how.outcome, now)
        tx.conn.execute(queries.SET_RUN, {"b_id": row.run_id} | run)
        if how.trigger is not Trigger.INTERRUPT:
            sweeps.member_done(core, tx, row.id, step.dest, how.public_error or how.error)
        self._host_waits(tx, row, how, now)
        tx.after(lambda: self._ended(row, run))
        return step.dest

    def _ended(self, row: TargetRow, run: View) -> None:
        """Effect: nothing of the run is alive for us any more."""
        self._core.live.pop(row.token, None)
        defaults = {"duration_s": None, "truncated": False, "posts_seen": 0, "posts_new": 0, "posts_edited": 0}
        times = {
            "started_at": iso(row.started_at),
            "deadline_at": iso(row.deadline_at),
            "ended_at": iso(run["ended_at"]),
        }
        ids = {"id": row.run_id, "target_id": row.id, "token": row.token}
        self._core.board.run_ended(defaults | ids | run | times)
        log.info("run_ended target=%d run_id=%s state=%s error=%s", row.id, row.run_id, run["state"], run["error"])
        self.kick()

    def _columns(self, row: TargetRow, how: Ending, live: Live | None, now: datetime) -> Values:
        values: Values = {"error": how.error, "reason": how.reason, "progress": None, "asked": False}
        if live is not None:
            values |= {"last_heartbeat": live.beat_at, "last_progress_at": live.progress_at}
        if how.trigger is Trigger.RESET:
            values |= dict.fromkeys(RUN_COLUMNS)
        return values | self._next_turn(row, how, now)

    def _next_turn(self, row: TargetRow, how: Ending, now: datetime) -> Values:
        regular = self.next_time(row.schedule, now)
        if how.trigger is Trigger.INTERRUPT:
            wait = 0.0 if row.interrupted < 1 else schedules.backoff_s(row.interrupted)
            return {"due_at": now + timedelta(seconds=wait), "interrupted": row.interrupted + 1}
        if how.trigger in (Trigger.COMPLETE, Trigger.RESET):
            return {"due_at": regular, "attempt": 0, "interrupted": 0}
        due = regular
        if regular is not None:
            due = max(regular, now + timedelta(seconds=schedules.backoff_s(row.attempt + 1)))
            if how.outcome is not None and how.outcome.retry_after_s:
                due = max(due, now + timedelta(seconds=how.outcome.retry_after_s))
        return {"due_at": due, "attempt": row.attempt + 1, "interrupted": 0}

    def next_time(self, schedule: str, after: datetime) -> datetime | None:
        """When a schedule fires next, in the time zone of the settings."""
        return schedules.next_time(schedule, after=after, zone=self.zone())

    def zone(self) -> Any:
        """The time zone crontab lines are read in."""
        name = self._core.settings.timezone
        return datetime.now().astimezone().tzinfo if name in (None, "", "local") else ZoneInfo(name)

    def _keep(self, tx: Tx, row: TargetRow, outcome: Outcome, now: datetime) -> View:
        kept = keep(tx.conn, row.id, outcome.posts, now=now)
        values: Values = {"last_scraped": now, "post_count": row.post_count + kept.new}
        if outcome.remember is not None:
            values["remember"] = dict(outcome.remember)
        profile = outcome.profile
        if profile is not None and profile.display_name and not row.display_name:
            values["display_name"] = profile.display_name[:300]
        if profile is not None and profile.url:
            values |= _moved_to(profile.url)
        tx.conn.execute(queries.SET_TARGET, {"b_id": row.id} | values)
        counts = {"posts_seen": kept.seen, "posts_new": kept.new, "posts_edited": kept.edited}
        return counts | {"truncated": outcome.truncated}

    def _host_waits(self, tx: Tx, row: TargetRow, how: Ending, now: datetime) -> None:
        if not row.host:
            return
        wait, why = float(self._core.settings.host_delay_s), "delay between two requests"
        asked = how.outcome.retry_after_s if how.outcome is not None else None
        if asked and asked > wait:
            wait, why = asked, "the host asked to wait (Retry-After)"
        if wait > 0:
            queries.block_host(tx.conn, row.host, until=now + timedelta(seconds=wait), reason=why)
        if asked:
            sweeps.give_up_on_hosts(self._core, tx)

    # -- storing, now or later -----------------------------------------------------------------------------------

    def settle(self, tx: Tx, order: Order, how: Ending) -> None:
        """End what a report or the pool says has ended; a stale token is journalled and changes nothing."""
        try:
            row = self._core.row(tx, order.target.id)
        except NotFound:
            return
        if how.trigger is Trigger.EXPIRE and row.token != order.token:
            return
        try:
            self.end(tx, row, how)
        except Refused as exc:
            self._core.refuse(tx, row, how.trigger, exc, actor=how.actor)

    def store(self, order: Order, how: Ending) -> None:
        """Store an ending; when the store refuses, keep it, in order, until it does not."""
        if self.backlog:
            self._keep_back(order, how)
            return

        def done(future: Future[None]) -> None:
            exc = future.exception()
            if isinstance(exc, StoreUnavailable):
                self._keep_back(order, how)
            elif exc is not None:
                self._not_storable(order, how, exc)

        self._core.writer.submit(lambda tx: self.settle(tx, order, how), fast=True).add_done_callback(done)

    def _not_storable(self, order: Order, how: Ending, exc: BaseException) -> None:
        """A fault of ours, or of the data: a result that cannot be kept is a failed run, not one for ever RUNNING."""
        log.error("ending_not_stored run_id=%d trigger=%s", order.run_id, how.trigger.value, exc_info=exc)
        if how.trigger is Trigger.COMPLETE:
            error = "what the scrape found could not be stored"
            self.store(
                order, Ending(trigger=Trigger.FAIL, actor="daemon", token=order.token, error=error, reason="failed")
            )

    def _keep_back(self, order: Order, how: Ending) -> None:
        live = self._core.live.get(order.token)
        if live is None:
            return  # ended by somebody else: this would be refused
        live.unsaved = True
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
        what = f"ran longer than {order.timeout_s:g} s"
        if kind != "deadline":
            what = f"made no progress for {order.stall_timeout_s:g} s"
        how = Ending(
            trigger=Trigger.EXPIRE,
            actor="pool",
            token=order.token,
            error=f"the scrape {what}",
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

    def late(self, order: Order) -> None:
        """A report of a revoked run; it changes nothing and is journalled."""
        how = Ending(trigger=Trigger.COMPLETE, actor="worker", token=order.token)
        self._core.writer.submit(lambda tx: self.settle(tx, order, how))

    def freed(self) -> None:
        """A worker may be free, or gone."""
        self._core.board.changed()
        self.kick()


def _moved_to(url: str) -> Values:
    """The address a target is scraped at from now on; what is not a usable one is ignored."""
    from errors import Unusable
    from sources.registry import host_of, normalise_url

    try:
        known = normalise_url(url)
    except Unusable:
        return {}
    return {"url": known, "host": host_of(known)}
