"""The life of a run: claimed, handed over, ended. Every ending goes through `Core.move`.

Listener of the pool: its methods are called on the pool's thread and only queue; what could not be stored waits in
a bounded, ordered backlog, and nothing is claimed meanwhile.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from errors import Refused, StoreUnavailable
from fsm.states import State, Trigger
from jobs import schedules, sweeps
from jobs.core import Core, Live, TargetRow
from model import FetchLimits, Order, Outcome, Target
from store import schema as s
from store.posts import keep
from store.writer import Tx

log = logging.getLogger(__name__)
_T = s.targets.c
#: Endings that wait for the store, at most.
BACKLOG_LIMIT = 10_000


class Runs:
    """Claims and endings."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.backlog: deque[Callable[[Tx], Any]] = deque(maxlen=BACKLOG_LIMIT)  # Any: results are not used
        #: Called when a worker may be free or something may be due.
        self.kick: Callable[[], None] = lambda: None

    # -- claim ---------------------------------------------------------------------------------------------------

    def claim(self) -> int:
        """One round: reserve free workers, claim that many targets, hand over after the commit. Returns how many."""
        core = self._core
        if core.pool is None or core.draining or self.backlog or core.pool.free() <= 0:
            return 0
        slots = core.pool.reserve(core.pool.free())
        taken: list[tuple[int, Order]] = []
        try:
            if slots and self._anything_due():
                core.writer.run(lambda tx: self._claim(tx, slots, taken), timeout_s=30.0)
        finally:
            used = {slot for slot, _ in taken}
            for slot in slots:
                if slot not in used:
                    core.pool.release(slot)
        return len(taken)

    def _anything_due(self) -> bool:
        """A read before the write: an idle daemon commits nothing."""
        with self._core.engine.connect() as conn:
            return bool(self._candidates(conn, self._core.clock.now(), set(), set(), 1))

    def _candidates(self, conn: Any, now: datetime, hosts: set[str], skip: set[int], n: int) -> list[TargetRow]:
        """Due targets: asked for by themselves, then by a refresh-all, then by schedule; oldest first."""
        busy = {live.order.target.id for live in list(self._core.live.values())}
        blocked = select(s.hosts.c.host).where(s.hosts.c.next_allowed_at > now)
        common = and_(
            _T.state != State.RUNNING.value,
            or_(_T.paused_until.is_(None), _T.paused_until <= now),
            or_(_T.host == "", _T.host.not_in(blocked)),
            _T.host.not_in(hosts),
            _T.id.not_in(skip | busy),
        )
        asked = select(s.targets).where(_T.requested_at.is_not(None), common)
        rows = list(conn.execute(asked.order_by(_T.request_rank, _T.requested_at, _T.id).limit(n)))
        if len(rows) < n:
            due = select(s.targets).where(_T.due_at <= now, _T.requested_at.is_(None), common)
            rows += conn.execute(due.order_by(_T.due_at).limit(n - len(rows)))
        return rows

    def _claim(self, tx: Tx, slots: list[int], taken: list[tuple[int, Order]]) -> None:
        core, now = self._core, self._core.clock.now()
        limit = core.settings.host_concurrency
        inflight: dict[str, int] = {}
        for live in list(core.live.values()):
            inflight[live.host] = inflight.get(live.host, 0) + 1
        full = {h for h, n in inflight.items() if h and n >= limit}
        passed: set[int] = set()
        free = list(slots)
        while free:
            rows = self._candidates(tx.conn, now, full, passed, len(free))
            if not rows:
                return
            for row in rows:
                passed.add(row.id)
                if row.host in full or core.worker_of(row.id) != "none" or not free:
                    continue
                if row.host:
                    inflight[row.host] = inflight.get(row.host, 0) + 1
                    if inflight[row.host] >= limit:
                        full.add(row.host)
                slot = free.pop(0)
                try:
                    taken.append((slot, self._start(tx, row, slot, now)))
                except Refused:
                    free.insert(0, slot)

    def _start(self, tx: Tx, row: TargetRow, slot: int, now: datetime) -> Order:
        core = self._core
        timeout_s = float(row.timeout_s or core.settings.scrape_timeout_s)
        deadline = now + timedelta(seconds=timeout_s)
        actor = "schedule" if row.requested_at is None else "request"
        values = {
            "requested_at": None,
            "due_at": None,
            "asked": row.requested_at is not None,
            "started_at": now,
            "deadline_at": deadline,
            "last_heartbeat": now,
            "last_progress_at": now,
            "error": None,
            "reason": None,
            "progress": "starting",
            "boot_id": core.boot_id,
        }
        core.move(tx, row, Trigger.START, core.facts(row), actor=actor, values=values)
        token = int(tx.conn.execute(select(_T.token).where(_T.id == row.id)).scalar_one())
        run = insert(s.runs).values(
            target_id=row.id, token=token, boot_id=core.boot_id, state="RUNNING", started_at=now, deadline_at=deadline
        )
        run_id = int(tx.conn.execute(run.returning(s.runs.c.id)).scalar_one())
        tx.conn.execute(update(s.targets).where(_T.id == row.id).values(run_id=run_id))
        order = self._order(row, run_id=run_id, token=token, timeout_s=timeout_s)
        mono = core.clock.monotonic()

        def hand_over() -> None:
            core.live[token] = Live(
                order=order, host=row.host, started=mono, progressed=mono, beat_at=now, progress_at=now
            )
            assert core.pool is not None
            core.pool.hand_over(slot, order)
            log.info("run_started target=%d run_id=%d token=%d", row.id, run_id, token)

        tx.after(hand_over)
        return order

    def _order(self, row: TargetRow, *, run_id: int, token: int, timeout_s: float) -> Order:
        st = self._core.settings
        agent = st.user_agent + (f" (+{st.contact})" if st.contact else "")
        limits = FetchLimits(
            connect_timeout_s=st.connect_timeout_s,
            read_timeout_s=st.read_timeout_s,
            body_limit_bytes=st.body_limit_bytes,
            max_redirects=st.max_redirects,
            max_posts=st.max_posts_per_run,
            allow_private_networks=st.allow_private_networks,
            user_agent=agent,
        )
        target = Target(
            id=row.id, source=row.source, handle=row.handle, url=row.url, range=row.range, remember=row.remember or {}
        )
        return Order(
            run_id=run_id,
            token=token,
            target=target,
            timeout_s=timeout_s,
            stall_timeout_s=min(float(st.stall_timeout_s), timeout_s),
            limits=limits,
            scraper=st.scrapers.get(row.source),
            scraper_path=str(Path(st.scraper_path).resolve()) if st.scraper_path else None,
        )

    # -- endings -------------------------------------------------------------------------------------------------

    def end(
        self,
        tx: Tx,
        row: TargetRow,
        trigger: Trigger,
        *,
        actor: str,
        claimed_token: int | None = None,
        error: str | None = None,
        reason: str | None = None,
        force: bool = False,
        outcome: Outcome | None = None,
        overdue: bool = False,
    ) -> State:
        """End the run of a RUNNING target: state, run row, next turn and sweeps in one transaction."""
        from dataclasses import replace

        core, now = self._core, self._core.clock.now()
        facts = core.facts(row, claimed_token=claimed_token)
        if overdue:
            facts = replace(facts, overdue=True)
        live = core.live.get(row.token)
        values: dict[str, Any] = {"error": error, "reason": reason, "progress": None, "asked": False}
        values |= self._next_turn(row, trigger, outcome, now)
        if live is not None:
            values |= {"last_heartbeat": live.beat_at, "last_progress_at": live.progress_at}
        if trigger is Trigger.RESET:
            cleared = ("started_at", "deadline_at", "last_heartbeat", "last_progress_at", "error", "reason")
            values |= dict.fromkeys(cleared)
        step = core.move(tx, row, trigger, facts, actor=actor, reason=reason or error, force=force, values=values)
        run: dict[str, Any] = {"state": step.dest.value, "ended_at": now, "error": error, "reason": reason}
        if live is not None:
            run["duration_s"] = round(core.clock.monotonic() - live.started, 3)
        if outcome is not None and trigger is Trigger.COMPLETE:
            run |= self._keep(tx, row, outcome, now)
        tx.conn.execute(update(s.runs).where(s.runs.c.id == row.run_id).values(run))
        if trigger is not Trigger.INTERRUPT:
            sweeps.member_done(core, tx, row.id, step.dest, error)
        self._host_waits(tx, row, outcome, now)
        token = row.token
        tx.after(lambda: core.forget(token))
        tx.after(
            lambda: log.info(
                "run_ended target=%d run_id=%s state=%s error=%s", row.id, row.run_id, step.dest.value, error
            )
        )
        return step.dest

    def _keep(self, tx: Tx, row: TargetRow, outcome: Outcome, now: datetime) -> dict[str, Any]:
        kept = keep(tx.conn, row.id, outcome.posts, now=now)
        values: dict[str, Any] = {"last_scraped": now, "post_count": _T.post_count + kept.new}
        if outcome.remember is not None:
            values["remember"] = dict(outcome.remember)
        if outcome.profile is not None and outcome.profile.display_name:
            values["display_name"] = row.display_name or outcome.profile.display_name[:300]
        tx.conn.execute(update(s.targets).where(_T.id == row.id).values(values))
        return {
            "posts_seen": kept.seen,
            "posts_new": kept.new,
            "posts_edited": kept.edited,
            "truncated": outcome.truncated,
        }

    def zone(self) -> Any:
        """The time zone crontab lines are read in."""
        name = self._core.settings.timezone
        return datetime.now().astimezone().tzinfo if name in (None, "", "local") else ZoneInfo(name)

    def _next_turn(self, row: TargetRow, trigger: Trigger, outcome: Outcome | None, now: datetime) -> dict[str, Any]:
        regular = schedules.next_time(row.schedule, after=now, zone=self.zone())
        if trigger is Trigger.INTERRUPT:
            wait = 0.0 if row.interrupted < 1 else schedules.backoff_s(row.interrupted)
            return {"due_at": now + timedelta(seconds=wait), "interrupted": row.interrupted + 1}
        if trigger in (Trigger.COMPLETE, Trigger.RESET):
            return {"due_at": regular, "attempt": 0, "interrupted": 0}
        due = regular
        if regular is not None:
            due = max(regular, now + timedelta(seconds=schedules.backoff_s(row.attempt + 1)))
            if outcome is not None and outcome.retry_after_s:
                due = max(due, now + timedelta(seconds=outcome.retry_after_s))
        return {"due_at": due, "attempt": row.attempt + 1, "interrupted": 0}

    def _host_waits(self, tx: Tx, row: TargetRow, outcome: Outcome | None, now: datetime) -> None:
        if not row.host:
            return
        wait, why = float(self._core.settings.host_delay_s), "delay between two requests"
        if outcome is not None and outcome.retry_after_s:
            wait, why = max(wait, outcome.retry_after_s), "the host asked to wait (Retry-After)"
        until = now + timedelta(seconds=wait)
        stmt = upsert(s.hosts).values(host=row.host, next_allowed_at=until, reason=why)
        later = stmt.excluded.next_allowed_at > s.hosts.c.next_allowed_at
        changed = {"next_allowed_at": until, "reason": why}
        tx.conn.execute(stmt.on_conflict_do_update(index_elements=["host"], set_=changed, where=later))

    def _settle(self, tx: Tx, order: Order, trigger: Trigger, **how: Any) -> None:
        """End what a report or the pool says has ended; a stale token is journalled and changes nothing."""
        row = tx.conn.execute(select(s.targets).where(_T.id == order.target.id)).one_or_none()
        if row is None:
            return
        try:
            if trigger is Trigger.EXPIRE and row.token != order.token:
                return
            self.end(tx, row, trigger, claimed_token=order.token, **how)
        except Refused as exc:
            if trigger is not Trigger.EXPIRE:
                self._core.refuse(tx, row, trigger, exc, actor="worker")

    def store_later(self, op: Callable[[Tx], Any]) -> None:
        """Store an ending; when the store refuses, keep it, in order, until it does not."""
        if self.backlog:
            self.backlog.append(op)
            return

        def done(future: Future[Any]) -> None:
            exc = future.exception()
            if isinstance(exc, StoreUnavailable):
                self.backlog.append(op)
            elif exc is not None:
                log.error("ending_not_stored error=%r", exc)
            self.kick()

        self._core.writer.submit(op, fast=True).add_done_callback(done)

    def drain_backlog(self) -> int:
        """Try to store what waits, oldest first; returns how many were stored."""
        stored = 0
        while self.backlog:
            op = self.backlog[0]
            try:
                self._core.writer.run(op, timeout_s=5.0)
            except StoreUnavailable:
                return stored
            except Exception:  # noqa: BLE001 - one broken ending must not hold the others for ever
                log.exception("ending_not_stored")
            self.backlog.popleft()
            stored += 1
        return stored

    # -- listener of the pool ------------------------------------------------------------------------------------

    def finished(self, order: Order, outcome: Outcome) -> None:
        """The worker reported a result."""
        trigger = Trigger.COMPLETE if outcome.ok else Trigger.FAIL
        self.store_later(
            lambda tx: self._settle(tx, order, trigger, actor="worker", error=outcome.error, outcome=outcome)
        )

    def died(self, order: Order, reason: str) -> None:
        """The worker's process ended without a result."""
        self.store_later(lambda tx: self._settle(tx, order, Trigger.FAIL, actor="pool", error=reason, reason="died"))

    def overdue(self, order: Order, kind: str) -> None:
        """The pool's own clock says the run is too long, or too long without progress."""
        what = (
            f"ran longer than {order.timeout_s:g} s"
            if kind == "deadline"
            else (f"made no progress for {order.stall_timeout_s:g} s")
        )
        self.store_later(
            lambda tx: self._settle(
                tx, order, Trigger.EXPIRE, actor="pool", error=f"the scrape {what}", reason=kind, overdue=True
            )
        )

    def progressed(self, order: Order, text: str) -> None:
        """The work moved."""
        live = self._core.live.get(order.token)
        if live is not None:
            live.progressed, live.progress_at = self._core.clock.monotonic(), self._core.clock.now()
            live.beat_at, live.text, live.phase = live.progress_at, text[:200], "fetching"

    def beat(self, order: Order) -> None:
        """The worker is alive."""
        live = self._core.live.get(order.token)
        if live is not None:
            live.beat_at = self._core.clock.now()

    def late(self, order: Order) -> None:
        """A report of a revoked run; it changes nothing and is journalled."""
        self.store_later(lambda tx: self._settle(tx, order, Trigger.COMPLETE, actor="worker"))

    def freed(self) -> None:
        """A worker may be free."""
        self.kick()

    def clamp_due(self) -> None:
        """After a jump of the wall clock: no target waits longer than one interval, no host longer than its delay."""

        def op(tx: Tx) -> None:
            now = self._core.clock.now()
            for row in tx.conn.execute(select(s.targets).where(_T.due_at > now)).all():
                seconds = schedules.interval_s(row.schedule)
                latest = now + timedelta(seconds=schedules.BACKOFF_CAP_S if row.attempt else seconds or 366 * 86400)
                if row.due_at > latest:
                    tx.conn.execute(update(s.targets).where(_T.id == row.id).values(due_at=latest))

        self.store_later(op)

    # -- recovery and the net ------------------------------------------------------------------------------------

    def recover(self) -> int:
        """Close every RUNNING run that this boot does not own; before the port answers. Returns how many."""

        def op(tx: Tx) -> int:
            where = and_(_T.state == State.RUNNING.value, or_(_T.boot_id != self._core.boot_id, _T.boot_id.is_(None)))
            rows = tx.conn.execute(select(s.targets).where(where)).all()
            for row in rows:
                message = "interrupted: the daemon stopped during the scrape"
                self.end(tx, row, Trigger.INTERRUPT, actor="recovery", error=message, reason="interrupted")
            return len(rows)

        return self._core.writer.run(op, timeout_s=120.0)

    def interrupt_all(self) -> int:
        """Close what is still RUNNING when this boot ends."""

        def op(tx: Tx) -> int:
            rows = tx.conn.execute(select(s.targets).where(_T.state == State.RUNNING.value)).all()
            for row in rows:
                message = "interrupted: the daemon was stopped during the scrape"
                self.end(tx, row, Trigger.INTERRUPT, actor="shutdown", error=message, reason="interrupted")
            ended = update(s.boots).where(s.boots.c.id == self._core.boot_id)
            tx.conn.execute(ended.values(ended_at=self._core.clock.now()))
            return len(rows)

        return self._core.writer.run(op, timeout_s=10.0)

    def check_timeouts(self) -> list[int]:
        """The 30-second net: every RUNNING target against deadline, stall and owner. Returns the targets moved."""
        core = self._core

        def op(tx: Tx) -> list[int]:
            moved = []
            for row in tx.conn.execute(select(s.targets).where(_T.state == State.RUNNING.value)).all():
                live, facts = core.live.get(row.token), core.facts(row)
                kind = None if live is None else live.overdue(core.clock.monotonic())
                if kind:
                    error = f"the scrape was ended by the timeout check ({kind})"
                    self.end(tx, row, Trigger.EXPIRE, actor="timeout-check", error=error, reason=kind)
                elif facts.owner_gone and (live is None or core.clock.monotonic() - live.started > 5.0):
                    error = "interrupted: no worker holds this run"
                    self.end(tx, row, Trigger.INTERRUPT, actor="timeout-check", error=error, reason="interrupted")
                else:
                    continue
                moved.append(row.id)
            sweeps.end_finished(core, tx)
            return moved

        return core.writer.run(op)
