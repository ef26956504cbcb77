"""Every verb once: the only place where a transaction and the lifecycle meet for those who ask.

API, command line, scheduler and start-up are callers and decide nothing themselves. How a run starts is in scrape.py,
how it ends in endings.py, what the pool tells in runs.py, the net in timeout_check.py; what is only read, in
reading.py. Over the budget of lines because every verb is here once, and each is short.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, delete, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from errors import (
    AlreadyRunning,
    BadRequest,
    Draining,
    GleandError,
    GuardRejected,
    NotFound,
    Refused,
    StoreUnavailable,
    Unusable,
)
from fsm.states import State, Trigger
from jobs import jumps, schedules, sweeps, views
from jobs.core import Core, raised
from jobs.endings import RUN_COLUMNS, Ending
from jobs.hosts import MAX_TURN_S
from jobs.preview import Previews
from jobs.reading import Reading
from jobs.runs import Runs
from jobs.scrape import Claims
from jobs.timeout_check import TimeoutCheck, interrupt_all
from jobs.views import View
from sources.registry import Identity
from store import queries
from store import schema as s
from store.queries import TargetRow, Values
from store.writer import Tx

log = logging.getLogger(__name__)
_T = s.targets.c
#: A loop that has not gone round for this long is stuck (seconds).
STUCK_S = 20.0
#: Rows that are deleted at a time (count).
PIECE = 500
#: A transition that stops a worker waits this long for it to be gone before it answers 202 (seconds).
GONE_S = 0.5
_LATER = "ask again in a few seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of asking for a target."""

    target_id: int
    sweep_id: int | None
    created: bool


class Service(Reading):
    """The verbs."""

    def __init__(self, core: Core) -> None:
        super().__init__(core)
        self.runs = Runs(core)
        #: Listener of the pool, in front of `runs`.
        self.previews = Previews(core, self.runs, self.resolve)
        self.claims = Claims(core)
        self.timeout_check = TimeoutCheck(core, self.runs)
        #: Tick ages by loop name, filled by the daemon.
        self.ticks: dict[str, Callable[[], float]] = {}

    @property
    def draining(self) -> bool:
        """Whether the daemon is stopping."""
        return self._core.draining

    def round(self) -> int:
        """One claim round: what waits to be stored first, then claims. Returns how many were claimed."""
        core = self._core
        core.board.beat(now=core.clock.monotonic(), worth=False)
        if core.writer.refusing is not None or self.runs.drain_backlog():
            return 0  # nothing can be stored now: nothing new is claimed
        self.runs.store_beats()
        claimed = self.claims.claim()
        if self.claims.choice.more:
            self.runs.kick()
        return claimed

    # -- start and stop ------------------------------------------------------------------------------------------

    def boot(self) -> int:
        """Open this boot and close what earlier ones left RUNNING; before the port answers. Returns how many.

        Raises:
            StoreUnavailable: Nothing was changed; call again.
        """
        core = self._core

        def op(tx: Tx) -> int:
            stmt = insert(s.boots).values(started_at=core.clock.now()).returning(s.boots.c.id)
            core.boot_id = int(tx.conn.execute(stmt).scalar_one())
            why = "the daemon stopped during the scrape"
            return interrupt_all(core, self.runs, tx, actor="recovery", why=why)

        try:
            core.board.load()
        except SQLAlchemyError as exc:
            raise StoreUnavailable("the database could not be read") from exc
        recovered: int = core.writer.run(op, timeout_s=120.0)
        core.writer.run(self._load_hosts)
        core.ready = True
        core.board.changed()
        self.clamp_due()  # the clock may have been set while nobody watched
        return recovered

    def _load_hosts(self, tx: Tx) -> None:
        """Hosts are left alone as long as they would have been without the restart."""
        core, now = self._core, self._core.clock.now()
        rows = tx.conn.execute(queries.HOSTS, {"b_now": now}).all()
        core.hosts.load(rows, now=now)
        core.robots.load(tx.conn.execute(queries.NEWEST_ROBOTS), now=now)
        longest = max([float(core.settings.host_delay_s), *(row.crawl_delay_s for row in rows)])
        ended = tx.conn.execute(queries.LAST_ENDED, {"b_since": now - timedelta(seconds=longest)}).all()
        for own in ended:
            core.hosts.rest(own.host, ago_s=max(0.0, (now - own.ended_at).total_seconds()))
        known = {own.host for own in ended}
        for row in rows:
            # Nobody knows when runs were led there last. A minute is enough, or every restart would cost an hour.
            if row.crawl_delay_s and row.host not in known:
                core.hosts.rest(row.host, ago_s=max(0.0, row.crawl_delay_s - MAX_TURN_S))

    def end_boot(self) -> int:
        """Store what waits, close what still runs, mark this boot as ended. Returns how many runs were closed."""
        core = self._core
        if not core.ready:
            return 0
        core.ending = True
        self.runs.drain_backlog()

        def op(tx: Tx) -> int:
            closed = interrupt_all(core, self.runs, tx, actor="shutdown", why="the daemon was stopped")
            own = s.boots.c.id == core.boot_id
            tx.conn.execute(update(s.boots).where(own).values(ended_at=core.clock.now()))
            return closed

        return core.writer.run(op)

    def clamp_due(self, jump_s: float = 0.0) -> None:
        """The wall clock is not what it was, by so many seconds as far as is known; see jumps.set_right."""

        def op(tx: Tx) -> None:
            jumps.set_right(self._core, tx, jump_s=jump_s, zone=self.runs.zone())
            tx.after(self.claims.choice.forget)

        self._core.writer.submit(op)

    # -- asking --------------------------------------------------------------------------------------------------

    def _write(self, op: Callable[[Tx], Any]) -> Any:  # Any: whatever the operation answers
        if self._core.draining:
            raise Draining("the daemon is stopping", hint=_LATER)
        if not self._core.ready:
            raise StoreUnavailable("the database is not ready yet", hint=_LATER)
        if self.runs.backlog:
            raise StoreUnavailable("the database refuses writes", hint=_LATER)
        answer = raised(self._core.writer.run(op))
        self.runs.kick()
        return answer

    def _plan(self, schedule: str) -> str:
        return schedules.check(schedule, now=self._core.clock.now(), zone=self.runs.zone())

    def add(
        self,
        *,
        target: str,
        source: str | None = None,
        schedule: str | None = None,
        timeout_s: float | None = None,
        range_: int | None = None,
        start: bool = True,
        again: bool = False,
        display_name: str | None = None,
    ) -> View:
        """Track a target, and ask for it unless `start` is false.

        Args:
            again: Asking for one that is tracked already scrapes it again; else that is refused.

        Raises:
            Unusable: The name, source, schedule or timeout cannot work.
            AlreadyRunning: A client asked for it before and it is not done.
        """
        identity = self.resolve(target, source=source)
        plan = self._plan(schedule or self._core.settings.default_schedule)
        values = {"schedule": plan, "timeout_s": _timeout(timeout_s), "range": range_, "display_name": display_name}
        changes = {k: v for k, v in values.items() if v is not None and (k != "schedule" or schedule is not None)}

        def op(tx: Tx) -> Asked | Refused:
            where = and_(_T.source == identity.source, _T.handle == identity.handle)
            row = tx.conn.execute(select(s.targets).where(where)).one_or_none()
            created = row is None
            if row is None:
                row = self._insert(tx, identity, values, start=start)
            elif not again:
                return Refused("this target is tracked already", refused_by="not_tracked", target_id=row.id)
            if not start:
                return Asked(target_id=row.id, sweep_id=None, created=created)
            try:
                self._request(tx, row)
            except Refused as exc:
                return self._core.refuse(tx, row, Trigger.START, exc, actor="api")
            if changes and not created:
                tx.conn.execute(queries.SET_TARGET, {"b_id": row.id} | changes)
            return Asked(target_id=row.id, sweep_id=self._sweep_of_one(tx, row.id), created=created)

        asked: Asked = self._write(op)
        row = self.find(target_id=asked.target_id)
        shown = {"user": views.user(row), "target": views.target(self._core, row)}
        return shown | {"sweep_id": asked.sweep_id, "created": asked.created}

    def _insert(self, tx: Tx, identity: Identity, values: Values, *, start: bool) -> TargetRow:
        now = self._core.clock.now()
        known = {k: getattr(identity, k) for k in ("source", "handle", "url", "host")}
        due = None if start else self.runs.next_time(values["schedule"], now)
        stmt = insert(s.targets).values(known | values | {"added_at": now, "due_at": due}).returning(_T.id)
        target_id = tx.conn.execute(stmt).scalar_one()
        tx.after(lambda: self._core.board.moved([target_id], None, State.IDLE.value))
        return self._core.row(tx, target_id)

    def _sweep_of_one(self, tx: Tx, target_id: int) -> int:
        sweep_id, _ = sweeps.create(self._core, tx, "add", who=_T.id == target_id)
        sweeps.give_up_on_hosts(self._core, tx)
        return sweep_id

    def _request(self, tx: Tx, row: TargetRow, *, force: bool = False) -> None:
        """Ask for one target: a conditional UPDATE. Raises AlreadyRunning, or Refused when it is paused."""
        facts = self._core.facts(row)
        at = {"state": row.state, "trigger": "start"}
        if row.id in self._core.removing:
            raise Refused("the target is being removed", refused_by="not_removed", **at)
        lifts = facts.paused and row.paused_why is not None
        if facts.paused and not force and not lifts:
            raise Refused("the target is paused", refused_by="not_paused", hint="resume it, or force the start", **at)
        if facts.overdue:
            error = "the scrape was overdue when it was asked for again"
            self.runs.end(tx, row, Ending(trigger=Trigger.EXPIRE, actor="api", error=error, reason="deadline"))
            row = self._core.row(tx, row.id)
        if row.state == State.RUNNING.value:  # a scheduled run is joined, one that was asked for is not
            own = and_(_T.id == row.id, _T.state == State.RUNNING.value, _T.asked.is_(False))
            values: Values = {"asked": True}
            refusal = AlreadyRunning("its scrape is already in progress", hint="wait for it, or reset it with force")
            refusal.details = {"refused_by": "not_running"} | at
        else:
            own = and_(_T.id == row.id, _T.state != State.RUNNING.value, _T.requested_at.is_(None))
            values = {"requested_at": self._core.clock.now(), "request_rank": 0, "request_forced": force}
            values |= {"deferred_until": None} | ({"paused_until": None, "paused_why": None} if lifts else {})
            refusal = AlreadyRunning("its scrape was asked for already and waits for its turn", hint="wait for it")
            refusal.details = {"refused_by": "not_queued"} | at
        if tx.conn.execute(update(s.targets).where(own).values(values)).rowcount != 1:
            raise refusal
        tx.after(lambda: self._core.board.touch(row.id))

    def refresh_all(self, *, range_: int | None = None) -> View:
        """Ask for every target that is not paused. Raises BadRequest, AlreadyRunning."""
        now = self._core.clock.now()
        ready = or_(_T.paused_until.is_(None), _T.paused_until <= now)

        def op(tx: Tx) -> View | GleandError:
            going = next((row for row in sweeps.active(tx) if row.kind == "refresh"), None)
            if going is not None:
                hint = "wait for it, or reset with force"
                refusal = AlreadyRunning("a refresh of all is already in progress", hint=hint, sweep_id=going.id)
                refusal.details["refused_by"] = "one_refresh_at_a_time"
                return refusal
            if tx.conn.execute(select(_T.id).where(ready).limit(1)).first() is None:
                raise BadRequest("there is nothing to refresh: no target is tracked, or all are paused")
            sweep_id, total = sweeps.create(self._core, tx, "refresh", who=ready)
            idle = and_(ready, _T.state != State.RUNNING.value, _T.requested_at.is_(None))
            asked = (
                update(s.targets)
                .where(idle)
                .values(requested_at=now, request_rank=1, request_forced=False, deferred_until=None)
            )
            tx.conn.execute(asked)
            tx.conn.execute(update(s.targets).where(ready, _T.state == State.RUNNING.value).values(asked=True))
            if range_ is not None:
                tx.conn.execute(update(s.targets).where(ready).values(range=range_))
            sweeps.give_up_on_hosts(self._core, tx)
            tx.after(lambda: self._core.board.touch(*self._core.board.held()))
            return {"total_users": total, "sweep_id": sweep_id}

        answer: View = self._write(op)
        return answer

    def preview(self, *, target: str, source: str | None = None, range_: int | None = None) -> View:
        """Scrape once and keep nothing; blocks. Raises as Previews.show does."""
        return self.previews.show(target, source=source, range_=range_)

    # -- ending --------------------------------------------------------------------------------------------------

    def remove(self, *, target_id: int | None = None, username: str | None = None) -> View:
        """Stop tracking a target: its run ends first, and the answer waits for its worker to be gone."""
        row = self.find(target_id=target_id, username=username)
        core = self._core
        with core.lock:
            core.removing[row.id] += 1  # from here nothing starts it
        try:
            while not self._write(lambda tx: self._remove_if_still(tx, row.id)):
                self._wait_gone(row.id)
                while self._write(lambda tx: self._remove_piece(tx, row.id)):
                    continue
        finally:
            with core.lock:
                core.removing[row.id] -= 1
                core.removing += Counter()  # drops what is zero
        return {"message": f"Removed {row.handle}"}

    def _remove_if_still(self, tx: Tx, target_id: int) -> bool:
        """Remove a target that is still and empty; else end what runs and say False."""
        core = self._core
        try:
            row = core.row(tx, target_id)
        except NotFound:
            return True  # somebody else removed it meanwhile
        if row.state == State.RUNNING.value:
            self.runs.end(tx, row, Ending(trigger=Trigger.RESET, actor="api", reason="removed", force=True))
            return False
        mine = s.posts.c.target_id == target_id
        if core.worker_of(target_id) != "none" or tx.conn.execute(select(s.posts.c.id).where(mine).limit(1)).first():
            return False
        sweeps.member_done(core, tx, target_id, State.IDLE, None)
        tx.conn.execute(delete(s.runs).where(s.runs.c.target_id == target_id))
        tx.conn.execute(delete(s.targets).where(_T.id == target_id))
        tx.conn.execute(queries.ADD_JOURNAL, core.entry(row, Trigger.RESET, actor="api", reason="removed"))
        tx.after(lambda: core.board.moved([target_id], row.state, None))
        return True

    def _remove_piece(self, tx: Tx, target_id: int) -> int:
        """Delete some posts and runs of a target, so that no other write waits long; returns how many."""
        posts = select(s.posts.c.id).where(s.posts.c.target_id == target_id).limit(PIECE)
        ids = tx.conn.execute(posts).scalars().all()
        tx.conn.execute(delete(s.post_versions).where(s.post_versions.c.post_id.in_(ids)))
        tx.conn.execute(delete(s.posts).where(s.posts.c.id.in_(ids)))
        ended = and_(s.runs.c.target_id == target_id, s.runs.c.ended_at.is_not(None))
        runs = tx.conn.execute(select(s.runs.c.id).where(ended).limit(PIECE)).scalars().all()
        tx.conn.execute(delete(s.runs).where(s.runs.c.id.in_(runs)))
        return len(ids) + len(runs)

    def _wait_gone(self, target_id: int | None = None) -> None:
        """Wait until the processes of a target, or all that are stopping, are gone. Raises GuardRejected: too long."""
        st, pool = self._core.settings, self._core.pool
        longest = st.stop_grace_s + 3.0
        if pool is None:
            return
        gone = pool.wait_all_gone(longest) if target_id is None else pool.wait_gone(target_id, longest)
        if not gone:
            text = "the run has ended, but a process of it could not be killed yet"
            raise GuardRejected(text, hint=_LATER, refused_by="worker_gone")

    def reset_sweeps(self, *, force: bool = False, reason: str | None = None) -> View:
        """The older reset: leaves IDLE; while a sweep is active only by force, and then its processes are gone."""
        why = (reason or "").strip() or "older API"

        def op(tx: Tx) -> list[int] | Refused:
            core, going = self._core, sweeps.active(tx)
            if going and not force:
                return _active(going[0], core.clock.now())
            ended: list[int] = []
            if force:
                for target in tx.conn.execute(queries.RUNNING).all():
                    how = Ending(trigger=Trigger.RESET, actor="api", reason=why, force=True)
                    self.runs.end(tx, target, how)
                    ended.append(target.id)
                sweeps.unqueue(core, tx, _T.requested_at.is_not(None), self.runs.next_time)
            for row in going:
                sweeps.close_members(core, tx, row.id, State.IDLE, None)
                sweeps.end(core, tx, row.id, State.IDLE)
            shown = going[-1] if going else sweeps.last(core, tx)
            if shown is not None:
                own = s.sweeps.c.id == shown.id
                tx.conn.execute(update(s.sweeps).where(own).values(state="IDLE", error=None, carried=None))
                tx.after(core.board.touch_sweeps)
            return ended

        ended: list[int] = self._write(op)
        if force:
            self._wait_gone()
        return {"message": f"Reset: {len(ended)} run(s) ended" if ended else "Reset"}

    def transition(
        self, target_id: int, *, trigger: str, force: bool = False, reason: str | None = None, run_id: int | None = None
    ) -> tuple[View, int]:
        """Pull a trigger. Returns the new status and 200, or 202 while a worker is still stopping."""
        if force and not (reason or "").strip():
            raise BadRequest("force needs a reason", hint="say why: it is kept in the journal")
        wanted = Trigger(trigger)

        def op(tx: Tx) -> Refused | None:
            row = self._core.row(tx, target_id)
            try:
                if run_id is not None and run_id != row.run_id:
                    text = "the run you saw is not the current one"
                    raise Refused(text, refused_by="same_run", state=row.state, trigger=trigger, run_id=row.run_id)
                self._pull(tx, row, wanted, force=force, reason=reason)
            except GuardRejected as exc:
                told = _in_progress(exc, row, self._core.clock.now())
                return self._core.refuse(tx, row, wanted, told, actor="api")
            except Refused as exc:
                return self._core.refuse(tx, row, wanted, exc, actor="api")
            return None

        self._write(op)
        if wanted is not Trigger.START and self._core.pool is not None:
            self._core.pool.wait_gone(target_id, GONE_S)
        view = self.target_status(target_id)
        return view, 202 if view["worker"] == "stopping" else 200

    def _pull(self, tx: Tx, row: TargetRow, trigger: Trigger, *, force: bool, reason: str | None) -> None:
        if trigger is Trigger.START:
            self._request(tx, row, force=force)
            self._sweep_of_one(tx, row.id)
        elif row.state == State.RUNNING.value:
            word = {Trigger.FAIL: "failed by an operator", Trigger.EXPIRE: "expired by an operator"}.get(trigger)
            self.runs.end(tx, row, Ending(trigger=trigger, actor="api", error=word, reason=reason, force=force))
        else:
            values: Values = dict.fromkeys(RUN_COLUMNS)
            values |= {"requested_at": None, "request_forced": False, "attempt": 0}
            if row.due_at is None:
                values["due_at"] = self.runs.next_time(row.schedule, self._core.clock.now())
            facts = self._core.facts(row)
            self._core.move(tx, row, trigger, facts, actor="api", reason=reason, force=force, values=values)
            sweeps.member_done(self._core, tx, row.id, State.IDLE, None)

    def patch(self, target_id: int, changes: Values) -> View:
        """Change schedule, timeout_s, paused_until or display_name. Raises Unusable, NotFound."""
        now, values = self._core.clock.now(), dict(changes)
        if "schedule" in values:
            values["schedule"] = self._plan(values["schedule"] or self._core.settings.default_schedule)
        _timeout(values.get("timeout_s"))
        until = values.get("paused_until")
        pausing = isinstance(until, datetime) and until > now

        def op(tx: Tx) -> None:
            row, new = self._core.row(tx, target_id), dict(values)
            if row.state != State.RUNNING.value and ("schedule" in new or pausing):
                if ("schedule" in new and not row.interrupted) or row.due_at is None:
                    new["due_at"] = self.runs.next_time(new.get("schedule", row.schedule), now)
            if "paused_until" in new:
                new |= {"paused_why": None, "deferred_until": None}
            if pausing:
                new |= {"requested_at": None, "request_forced": False}
                if row.state != State.RUNNING.value:  # queued, or due again after an interruption
                    sweeps.member_done(self._core, tx, target_id, State.IDLE, None)
            if new:
                tx.conn.execute(queries.SET_TARGET, {"b_id": target_id} | new)
            tx.after(lambda: self._core.board.touch(target_id))

        self._write(op)
        return self.target(target_id)

    # -- health --------------------------------------------------------------------------------------------------

    def health(self) -> tuple[View, bool]:
        """Alive: every loop ticks. A store that refuses promptly counts as alive."""
        ages = {name: round(age(), 1) for name, age in list(self.ticks.items())}
        good = all(age < STUCK_S for age in ages.values())
        return {"status": "ok" if good else "stuck", "loops": ages}, good

    def ready(self) -> tuple[View, bool]:
        """Ready: takes writes and can store them."""
        core, unsaved = self._core, len(self.runs.backlog)
        store = not core.ready or core.writer.refusing is not None or unsaved > 0
        why = "draining" if core.draining else ("store" if store else None)
        if why is None and core.pool is not None and not core.pool.able():
            why = "workers"
        network = "down" if core.network.is_down else "ok"
        shown = {"status": "not ready" if why else "ready", "reason": why, "unsaved": unsaved, "network": network}
        return shown, why is None


def _timeout(value: float | None) -> float | None:
    if value is not None and not 0 < value <= 7 * 86400:
        raise Unusable("timeout_s must be more than 0 and at most 604800 seconds")
    return value


def _ran_s(began: datetime, now: datetime) -> int:
    """Whole seconds since then; the clock may have been set back."""
    return max(0, int((now - began).total_seconds()))


def _active(row: Any, now: datetime) -> Refused:  # Any: a row of `sweeps`
    ran = _ran_s(row.created_at, now)
    return Refused(
        f"a scrape is in progress and has been for {ran} s",
        hint="wait for it, or send force: true, which ends every active run and kills its processes",
        refused_by="overdue",
        state=State.RUNNING.value,
        trigger="reset",
        running_for_s=ran,
    )


def _in_progress(exc: GuardRejected, row: TargetRow, now: datetime) -> GuardRejected:
    """Add to the refusal of an ending how long the run has been going, and what force would do."""
    if row.state != State.RUNNING.value or row.started_at is None:
        return exc
    ran = _ran_s(row.started_at, now)
    return GuardRejected(
        f"{exc.message}: the scrape is in progress and has been for {ran} s",
        hint="wait for it, or send force: true and a reason, which ends this run and kills its processes",
        **exc.details,
        running_for_s=ran,
    )
