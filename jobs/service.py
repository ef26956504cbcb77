"""Every verb once: the only place where a transaction and the lifecycle meet for those who ask.

API, command line, scheduler and start-up are callers and decide nothing themselves.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from errors import AlreadyRunning, BadRequest, Draining, GleandError, NotFound, Refused, StoreUnavailable, Unusable
from fsm.machine import mermaid
from fsm.states import State, Trigger
from jobs import schedules, sweeps
from jobs.core import Core, TargetRow, raised
from jobs.runs import Runs
from jobs.views import View, Views, empty_status, iso, search
from sources import registry
from store import schema as s
from store.writer import Tx

log = logging.getLogger(__name__)
_T = s.targets.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What came of asking for a target."""

    target_id: int
    sweep_id: int | None
    created: bool


class Service:
    """The verbs."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.runs = Runs(core)
        self._views = Views(core)
        self._status: View = empty_status()
        self._watchers: list[Callable[[], None]] = []
        self._claim_lock = threading.Lock()
        #: Tick ages by loop name, filled by the daemon.
        self.ticks: dict[str, Callable[[], float]] = {}

    @property
    def draining(self) -> bool:
        """Whether the daemon is stopping."""
        return self._core.draining

    # -- snapshot ------------------------------------------------------------------------------------------------

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back, on the writer's thread, after every published change; the callback must return at once."""
        self._watchers.append(callback)

    def publish(self) -> None:
        """Publish what the status calls answer from; called by the writer after each commit."""
        core = self._core
        if core.dirty:
            core.dirty = False
            try:
                with core.engine.connect() as conn:
                    status = self._views.sweep(conn, None)
                    status["next_due_at"] = iso(conn.execute(select(func.min(_T.due_at))).scalar())
                    last = select(s.runs).where(s.runs.c.ended_at.is_not(None)).order_by(s.runs.c.ended_at.desc())
                    run = conn.execute(last.limit(1)).one_or_none()
                    status["last_run"] = None if run is None else self._views.run(run)
                status["counts"] = {state.value: core.counts.get(state.value, 0) for state in State}
                self._status = status
            except SQLAlchemyError:
                core.dirty = True
                log.exception("publish_failed")
        for watcher in list(self._watchers):
            watcher()

    def scrape_status(self, sweep_id: int | None = None) -> View:
        """STATUS, from memory; with `sweep_id` that sweep's. Raises NotFound."""
        if sweep_id is None:
            return self._status | self._pulse()
        with self._core.engine.connect() as conn:
            view = self._views.sweep(conn, sweep_id)
        shared = ("next_due_at", "last_run", "counts")
        return view | {name: self._status[name] for name in shared}

    def _pulse(self) -> View:
        """Heartbeat and progress of the run the status names; they live in memory only."""
        name = self._status["current_user"]
        for live in list(self._core.live.values()) if name else ():
            if live.order.target.handle == name:
                stalled = live.overdue(self._core.clock.monotonic()) == "stalled"
                beats = {"last_heartbeat": iso(live.beat_at), "last_progress_at": iso(live.progress_at)}
                return beats | {"stalled": stalled}
        return {}

    # -- asking --------------------------------------------------------------------------------------------------

    def _write(self, op: Callable[[Tx], Any]) -> Any:  # Any: whatever the operation answers
        if self._core.draining:
            raise Draining("the daemon is stopping", hint="ask again in a few seconds")
        return raised(self._core.writer.run(op))

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
        st, now = self._core.settings, self._core.clock.now()
        identity = registry.resolve(
            target,
            source=source,
            default_source=st.default_source,
            handle_url=st.handle_url,
            scripts=st.scrapers,
        )
        plan = schedules.check(schedule or st.default_schedule, now=now, zone=self.runs.zone())
        if timeout_s is not None and not 0 < timeout_s <= 7 * 86400:
            raise Unusable("timeout_s must be more than 0 and at most 604800 seconds")

        def op(tx: Tx) -> Asked | Refused:
            where = and_(_T.source == identity.source, _T.handle == identity.handle)
            row = tx.conn.execute(select(s.targets).where(where)).one_or_none()
            created = row is None
            if row is None:
                values = {
                    "source": identity.source,
                    "handle": identity.handle,
                    "url": identity.url,
                    "host": identity.host,
                    "display_name": display_name,
                    "schedule": plan,
                    "timeout_s": timeout_s,
                    "range": range_,
                    "added_at": now,
                    "due_at": None if start else schedules.next_time(plan, after=now, zone=self.runs.zone()),
                }
                target_id = tx.conn.execute(insert(s.targets).values(values).returning(_T.id)).scalar_one()
                self._core.count(tx, None, "IDLE")
                row = self._core.row(tx, target_id)
            elif not again:
                return Refused("this target is tracked already", target_id=row.id)
            else:
                changes: dict[str, Any] = {}
                if schedule is not None:
                    changes["schedule"] = plan
                if range_ is not None:
                    changes["range"] = range_
                if changes:
                    tx.conn.execute(update(s.targets).where(_T.id == row.id).values(changes))
            if not start:
                return Asked(target_id=row.id, sweep_id=None, created=created)
            try:
                self._request(tx, row, rank=0)
            except Refused as exc:
                return self._core.refuse(tx, row, Trigger.START, exc, actor="api")
            sweep_id = sweeps.create(self._core, tx, "add")
            sweeps.join(tx, sweep_id, row.id)
            return Asked(target_id=row.id, sweep_id=sweep_id, created=created)

        asked: Asked = self._write(op)
        self.runs.kick()
        with self._core.engine.connect() as conn:
            row = conn.execute(select(s.targets).where(_T.id == asked.target_id)).one()
        return {
            "user": self._views.user(row),
            "target": self._views.target(row),
            "sweep_id": asked.sweep_id,
            "created": asked.created,
        }

    def _request(self, tx: Tx, row: TargetRow, *, rank: int) -> None:
        """Ask for one target: a conditional UPDATE. Raises AlreadyRunning, or Refused when it is paused."""
        facts = self._core.facts(row)
        if facts.paused:
            raise Refused("the target is paused", refused_by="not_paused", state=row.state, trigger="start")
        if facts.overdue:
            error = "the scrape was overdue when it was asked for again"
            self.runs.end(tx, row, Trigger.EXPIRE, actor="api", error=error, reason="deadline")
            row = self._core.row(tx, row.id)
        if row.state == State.RUNNING.value:
            own = and_(_T.id == row.id, _T.state == State.RUNNING.value, _T.asked.is_(False))
            if tx.conn.execute(update(s.targets).where(own).values(asked=True)).rowcount != 1:
                raise AlreadyRunning(
                    "its scrape is already in progress",
                    hint="wait for it, or reset it with force",
                    refused_by="not_running",
                    state=row.state,
                    trigger="start",
                )
            return
        own = and_(_T.id == row.id, _T.state != State.RUNNING.value, _T.requested_at.is_(None))
        values = {"requested_at": self._core.clock.now(), "request_rank": rank}
        if tx.conn.execute(update(s.targets).where(own).values(values)).rowcount != 1:
            raise AlreadyRunning(
                "its scrape was asked for already and waits for a worker",
                hint="wait for it",
                refused_by="not_queued",
                state=row.state,
                trigger="start",
            )
        self._core.dirty = True

    def refresh_all(self, *, range_: int | None = None) -> View:
        """Ask for every target that is not paused. Raises BadRequest, AlreadyRunning."""
        now = self._core.clock.now()
        ready = or_(_T.paused_until.is_(None), _T.paused_until <= now)

        def op(tx: Tx) -> View | GleandError:
            going = select(s.sweeps.c.id).where(s.sweeps.c.active, s.sweeps.c.kind == "refresh")
            if tx.conn.execute(going).first() is not None:
                return AlreadyRunning("a refresh of all is already in progress", refused_by="one_refresh_at_a_time")
            if not tx.conn.execute(select(func.count()).select_from(s.targets).where(ready)).scalar():
                raise BadRequest("there is nothing to refresh: no target is tracked, or all are paused")
            sweep_id = sweeps.create(self._core, tx, "refresh")
            names = ["sweep_id", "target_id"]
            from sqlalchemy import literal

            members = insert(s.sweep_members).from_select(names, select(literal(sweep_id), _T.id).where(ready))
            total = tx.conn.execute(members).rowcount
            idle = and_(ready, _T.state != State.RUNNING.value, _T.requested_at.is_(None))
            tx.conn.execute(update(s.targets).where(idle).values(requested_at=now, request_rank=1))
            if range_ is not None:
                tx.conn.execute(update(s.targets).where(ready).values(range=range_))
            return {"total_users": total, "sweep_id": sweep_id}

        answer: View = self._write(op)
        self.runs.kick()
        return answer

    # -- ending --------------------------------------------------------------------------------------------------

    def remove(self, *, target_id: int | None = None, username: str | None = None) -> View:
        """Stop tracking a target: its run ends first, and the answer waits for its worker to be gone."""
        row = self._find(target_id=target_id, username=username)

        def end(tx: Tx) -> None:
            now_row = self._core.row(tx, row.id)
            far = {"requested_at": None, "due_at": None, "schedule": "manual"}
            tx.conn.execute(update(s.targets).where(_T.id == row.id).values(far))
            if now_row.state == State.RUNNING.value:
                self.runs.end(tx, now_row, Trigger.RESET, actor="api", reason="removed", force=True)
                tx.conn.execute(update(s.targets).where(_T.id == row.id).values(far))

        def gone(tx: Tx) -> None:
            sweeps.member_done(self._core, tx, row.id, State.IDLE, "removed")
            last = self._core.row(tx, row.id)
            ids = select(s.posts.c.id).where(s.posts.c.target_id == row.id)
            tx.conn.execute(delete(s.post_versions).where(s.post_versions.c.post_id.in_(ids)))
            for table in (s.posts, s.runs):
                tx.conn.execute(delete(table).where(table.c.target_id == row.id))
            tx.conn.execute(delete(s.targets).where(_T.id == row.id))
            self._core.journal(tx, last, Trigger.RESET, actor="api", reason="removed")
            self._core.count(tx, last.state, None)

        self._write(end)
        self._wait_gone([row.id])
        self._write(gone)
        return {"message": f"Removed {row.handle}"}

    def _wait_gone(self, ids: list[int]) -> None:
        st, pool = self._core.settings, self._core.pool
        for target_id in ids:
            if pool is not None and not pool.wait_gone(target_id, st.stop_grace_s + 3.0):
                raise StoreUnavailable("its worker is still stopping", hint="ask again in a few seconds")

    def _find(self, *, target_id: int | None = None, username: str | None = None) -> TargetRow:
        with self._core.engine.connect() as conn:
            if target_id is not None:
                row = conn.execute(select(s.targets).where(_T.id == target_id)).one_or_none()
            else:
                row = self._by_name(conn, username or "")
        if row is None:
            raise NotFound(f"there is no target {target_id}" if target_id is not None else "no such user is tracked")
        return row

    def _by_name(self, conn: Any, name: str) -> TargetRow | None:
        rows = conn.execute(select(s.targets).where(_T.handle == name)).all()
        if not rows:
            st = self._core.settings
            try:
                known = registry.resolve(
                    name,
                    source=None,
                    default_source=st.default_source,
                    handle_url=st.handle_url,
                    scripts=st.scrapers,
                )
            except GleandError:
                return None
            where = and_(_T.source == known.source, _T.handle == known.handle)
            rows = conn.execute(select(s.targets).where(where)).all()
        return rows[0] if rows else None

    def reset_sweeps(self, *, force: bool = False, reason: str | None = None) -> View:
        """The older reset: leaves IDLE; while a sweep is active only by force, and then its processes are gone."""
        why = reason or "older API"

        def op(tx: Tx) -> list[int] | Refused:
            core = self._core
            going = sweeps.active(tx)
            if going and not force:
                row = tx.conn.execute(select(s.sweeps).where(s.sweeps.c.id == going[-1])).one()
                ran = int((core.clock.now() - row.created_at).total_seconds())
                return Refused(
                    f"a scrape has been in progress for {ran} s",
                    hint="wait, or send force: true, which ends every active run and kills its processes",
                    refused_by="overdue",
                    state="RUNNING",
                )
            ended: list[int] = []
            if force:
                for target in tx.conn.execute(select(s.targets).where(_T.state == State.RUNNING.value)).all():
                    self.runs.end(tx, target, Trigger.RESET, actor="api", reason=why, force=True)
                    ended.append(target.id)
                queued = _T.requested_at.is_not(None)
                for target in tx.conn.execute(select(s.targets).where(queued)).all():
                    due = schedules.next_time(target.schedule, after=core.clock.now(), zone=self.runs.zone())
                    clear = {"requested_at": None, "due_at": target.due_at or due}
                    tx.conn.execute(update(s.targets).where(_T.id == target.id).values(clear))
            for sweep_id in going:
                sweeps.end(core, tx, sweep_id, State.IDLE, None)
            open_ = s.sweep_members.c.outcome.is_(None)
            tx.conn.execute(update(s.sweep_members).where(open_).values(outcome="IDLE"))
            last = select(s.sweeps.c.id).order_by(s.sweeps.c.ended_at.desc(), s.sweeps.c.id.desc()).limit(1)
            newest = tx.conn.execute(last).scalar()
            if newest is not None:
                tx.conn.execute(update(s.sweeps).where(s.sweeps.c.id == newest).values(state="IDLE", error=None))
            core.dirty = True
            return ended

        ended: list[int] = self._write(op)
        self._wait_gone(ended)
        self.runs.kick()
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
                    raise Refused(
                        "the run you saw is not the current one",
                        refused_by="same_run",
                        state=row.state,
                        trigger=trigger,
                    )
                self._pull(tx, row, wanted, force=force, reason=reason)
            except Refused as exc:
                return self._core.refuse(tx, row, wanted, exc, actor="api")
            return None

        self._write(op)
        self.runs.kick()
        view = self.target_status(target_id)
        return view, 202 if view["worker"] == "stopping" else 200

    def _pull(self, tx: Tx, row: TargetRow, trigger: Trigger, *, force: bool, reason: str | None) -> None:
        if trigger is Trigger.START:
            if force:
                tx.conn.execute(update(s.targets).where(_T.id == row.id).values(paused_until=None))
                row = self._core.row(tx, row.id)
            self._request(tx, row, rank=0)
            sweep_id = sweeps.create(self._core, tx, "add")
            sweeps.join(tx, sweep_id, row.id)
        elif row.state == State.RUNNING.value:
            word = {Trigger.FAIL: "failed by an operator", Trigger.EXPIRE: "expired by an operator"}.get(trigger)
            self.runs.end(tx, row, trigger, actor="api", error=word, reason=reason, force=force)
        else:
            values = dict.fromkeys(
                ("started_at", "deadline_at", "last_heartbeat", "last_progress_at", "error", "reason", "progress")
            )
            more: dict[str, Any] = {"requested_at": None, "attempt": 0}
            if row.requested_at is not None and row.due_at is None:
                now = self._core.clock.now()
                more["due_at"] = schedules.next_time(row.schedule, after=now, zone=self.runs.zone())
            self._core.move(
                tx,
                row,
                trigger,
                self._core.facts(row),
                actor="api",
                reason=reason,
                force=force,
                values=values | more,
            )
            sweeps.member_done(self._core, tx, row.id, State.IDLE, "reset")

    def patch(self, target_id: int, changes: dict[str, Any]) -> View:
        """Change schedule, timeout_s, paused_until or display_name. Raises Unusable, NotFound."""
        now, values = self._core.clock.now(), dict(changes)
        if "schedule" in values:
            values["schedule"] = schedules.check(values["schedule"], now=now, zone=self.runs.zone())
            values["due_at"] = schedules.next_time(values["schedule"], after=now, zone=self.runs.zone())
        timeout_s = values.get("timeout_s")
        if timeout_s is not None and not 0 < timeout_s <= 7 * 86400:
            raise Unusable("timeout_s must be more than 0 and at most 604800 seconds")
        until = values.get("paused_until")
        if isinstance(until, datetime) and until > now:
            values["requested_at"] = None

        def op(tx: Tx) -> None:
            row = self._core.row(tx, target_id)
            if "due_at" in values and row.state == State.RUNNING.value:
                values.pop("due_at")
            if values.get("requested_at", 0) is None and row.state != State.RUNNING.value:
                sweeps.member_done(self._core, tx, target_id, State.IDLE, "paused")
                values.setdefault("due_at", row.due_at or until)
            if values:
                tx.conn.execute(update(s.targets).where(_T.id == target_id).values(values))

        self._write(op)
        self.runs.kick()
        return self.target(target_id)

    # -- reading -------------------------------------------------------------------------------------------------

    def users(self, *, limit: int | None = None, cursor: str | None = None) -> View:
        """All targets as the older API shows them, in the order they were added."""
        rows, more = self._list([], limit=limit, cursor=cursor)
        return {"users": [self._views.user(r) for r in rows], "count": len(rows), "next_cursor": more}

    def targets(self, *, state: str | None, source: str | None, q: str | None, limit: int, cursor: str | None) -> View:
        """A page of targets."""
        rows, more = self._list(search(state=state, source=source, q=q), limit=limit, cursor=cursor)
        return {"targets": [self._views.target(r) for r in rows], "next_cursor": more}

    def _list(self, where: list[Any], *, limit: int | None, cursor: str | None) -> tuple[list[TargetRow], str | None]:
        from jobs.views import cursor_id

        stmt = select(s.targets).where(*where).order_by(_T.id)
        after = cursor_id(cursor)
        if after is not None:
            stmt = stmt.where(_T.id > after)
        with self._core.engine.connect() as conn:
            rows = list(conn.execute(stmt if limit is None else stmt.limit(limit + 1)))
        if limit is not None and len(rows) > limit:
            return rows[:limit], str(rows[limit - 1].id)
        return rows, None

    def target(self, target_id: int) -> View:
        """One target."""
        return self._views.target(self._find(target_id=target_id))

    def target_status(self, target_id: int) -> View:
        """The lifecycle of one target in full."""
        row = self._find(target_id=target_id)
        with self._core.engine.connect() as conn:
            return self._views.status(conn, row)

    def feed(self, *, username: str | None, limit: int, cursor: str | None) -> View:
        """The older feed."""
        with self._core.engine.connect() as conn:
            where = []
            if username:
                row = self._by_name(conn, username)
                where = [s.posts.c.target_id == (row.id if row is not None else -1)]
            posts, more = self._views.posts(conn, limit=limit, cursor=cursor, where=where)
            total = conn.execute(select(func.count()).select_from(s.posts).where(*where)).scalar()
            users = conn.execute(select(func.count()).select_from(s.targets)).scalar()
        return {
            "posts": posts,
            "total_posts": total,
            "total_users": users,
            "filtered_by": username or None,
            "next_cursor": more,
        }

    def posts(
        self,
        *,
        target: int | None,
        source: str | None,
        since: datetime | None,
        q: str | None,
        limit: int,
        cursor: str | None,
    ) -> View:
        """A page of posts."""
        where: list[Any] = []
        if target is not None:
            where.append(s.posts.c.target_id == target)
        if source is not None:
            where.append(_T.source == source)
        if since is not None:
            where.append(s.posts.c.first_seen_at >= since)
        if q:
            like = f"%{q.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"
            where.append(or_(s.posts.c.title.ilike(like, escape="!"), s.posts.c.text.ilike(like, escape="!")))
        with self._core.engine.connect() as conn:
            rows, more = self._views.posts(conn, limit=limit, cursor=cursor, where=where)
        return {"posts": rows, "next_cursor": more}

    def _history(self, table: Any, name: str, view: Any, target_id: int, limit: int, cursor: str | None) -> View:
        where = table.c.target_id == target_id
        with self._core.engine.connect() as conn:
            rows, more = self._views.page(conn, table, view, limit=limit, cursor=cursor, where=where)
            if not rows and cursor is None:
                self._find(target_id=target_id)
        return {name: rows, "next_cursor": more}

    def journal(self, target_id: int, *, limit: int, cursor: str | None) -> View:
        """Transitions and refusals of a target, newest first; also of one that was removed."""
        return self._history(s.journal, "journal", self._views.journal, target_id, limit, cursor)

    def runs_of(self, target_id: int, *, limit: int, cursor: str | None) -> View:
        """Runs of a target, newest first."""
        return self._history(s.runs, "runs", self._views.run, target_id, limit, cursor)

    def run(self, run_id: int) -> View:
        """One run with its timeline."""
        with self._core.engine.connect() as conn:
            row = conn.execute(select(s.runs).where(s.runs.c.id == run_id)).one_or_none()
            if row is None:
                raise NotFound(f"there is no run {run_id}")
            steps = select(s.journal).where(s.journal.c.run_id == run_id).order_by(s.journal.c.id)
            steps = steps.where(s.journal.c.target_id == row.target_id)
            return self._views.run(row) | {"timeline": [self._views.journal(j) for j in conn.execute(steps)]}

    def sweep(self, sweep_id: int) -> View:
        """One sweep with its members."""
        with self._core.engine.connect() as conn:
            view = self._views.sweep(conn, sweep_id)
            m = s.sweep_members.c
            rows = conn.execute(select(s.sweep_members).where(m.sweep_id == sweep_id).order_by(m.target_id).limit(500))
            members = [{"target_id": r.target_id, "outcome": r.outcome, "error": r.error} for r in rows]
        return view | {"members": members}

    def hosts(self, *, limit: int, cursor: str | None) -> View:
        """Hosts that make us wait, and why."""
        h = s.hosts.c
        stmt = select(s.hosts).where(h.next_allowed_at > self._core.clock.now()).order_by(h.host).limit(limit + 1)
        if cursor is not None:
            stmt = stmt.where(h.host > cursor)
        with self._core.engine.connect() as conn:
            rows = conn.execute(stmt).all()
        shown = [{"host": r.host, "next_allowed_at": iso(r.next_allowed_at), "reason": r.reason} for r in rows[:limit]]
        return {"hosts": shown, "next_cursor": rows[limit - 1].host if len(rows) > limit else None}

    def sources(self) -> View:
        """The adapters there are."""
        own = [{"name": name, "example": f"{name}:handle"} for name in self._core.settings.scrapers]
        return {"sources": [*registry.names(), *own]}

    def lifecycle_mmd(self) -> str:
        """The lifecycle, drawn from the running machine."""
        return mermaid()

    # -- health --------------------------------------------------------------------------------------------------

    def health(self) -> tuple[View, bool]:
        """Alive: every loop ticks. A store that refuses promptly counts as alive."""
        ages = {name: round(age(), 1) for name, age in self.ticks.items()}
        good = all(age < 20.0 for age in ages.values())
        return {"status": "ok" if good else "stuck", "loops": ages}, good

    def ready(self) -> tuple[View, bool]:
        """Ready: takes writes and can store them."""
        core = self._core
        refusing, unsaved = core.writer.refusing, len(self.runs.backlog)
        ok = not core.draining and refusing is None and not unsaved
        why = "draining" if core.draining else ("store" if refusing or unsaved else None)
        return {"status": "ready" if ok else "not ready", "reason": why, "unsaved": unsaved}, ok
