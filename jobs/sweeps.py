"""Sweeps: sets of targets asked for together. Functions on a transaction; who calls them is the service.

A sweep's row keeps the counts, so that neither its end nor its status depends on how many members it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import and_, func, insert, literal, select, update

from fsm.states import ENDED_STATES, State
from jobs import views
from jobs.core import Core
from store import queries
from store import schema as s
from store.driver import run_many
from store.queries import Values
from store.writer import Tx

_M, _T, _W = s.sweep_members.c, s.targets.c, s.sweeps.c
_COUNTER = {State.COMPLETED: "completed", State.FAILED: "failed", State.TIMEOUT: "timed_out"}


def create(core: Core, tx: Tx, kind: str, *, who: Any) -> tuple[int, int]:  # Any: a condition on `targets`
    """Open a sweep of every target that fits the condition; returns its id and how many they are.

    A second active refresh-all violates the unique index.
    """
    values = {"kind": kind, "state": "RUNNING", "active": True, "created_at": core.clock.now(), "total": 0, "open": 0}
    sweep_id = int(tx.conn.execute(insert(s.sweeps).values(values).returning(_W.id)).scalar_one())
    found = select(literal(sweep_id), _T.id).where(who)
    total = tx.conn.execute(insert(s.sweep_members).from_select(["sweep_id", "target_id"], found)).rowcount
    tx.conn.execute(update(s.sweeps).where(_W.id == sweep_id).values(total=total, open=total))
    running = tx.conn.execute(select(_T.token).where(who, _T.state == State.RUNNING.value)).scalars().all()

    def join() -> None:
        for token in running:
            live = core.live.get(token)
            if live is not None:
                live.sweeps.add(sweep_id)
        core.board.touch_sweeps()

    tx.after(join)
    return sweep_id, total


def member_done(core: Core, tx: Tx, target_id: int, outcome: State, error: str | None) -> None:
    """A target has an outcome; see members_done."""
    members_done(core, tx, {target_id: (outcome, error)})


def members_done(core: Core, tx: Tx, outcomes: Mapping[int, tuple[State, str | None]]) -> None:
    """Targets have outcomes: they are done in every sweep that waits for them; the last one ends the sweep."""
    done: list[Values] = []
    counts: dict[int, Counter[State]] = {}
    for sweep_id, target_id in tx.conn.execute(queries.SWEEPS_OF, {"b_ids": list(outcomes)}).all():
        outcome, error = outcomes[target_id]
        done.append({"b_sweep": sweep_id, "b_target": target_id, "b_outcome": outcome.value, "b_error": error})
        counts.setdefault(sweep_id, Counter())[outcome] += 1
    if done:
        run_many(tx.conn, queries.MEMBER_DONE, done)
    for sweep_id, outcomes_of_it in counts.items():
        _count(core, tx, sweep_id, outcomes_of_it)


def _count(core: Core, tx: Tx, sweep_id: int, done: Counter[State]) -> None:
    values = {f"b_{counter}": done[state] for state, counter in _COUNTER.items()}
    left = tx.conn.execute(queries.COUNT_MEMBERS, values | {"b_sweep": sweep_id, "b_n": done.total()}).scalar_one()
    tx.after(core.board.touch_sweeps)
    if left <= 0:
        finish(core, tx, sweep_id)


def finish(core: Core, tx: Tx, sweep_id: int) -> None:
    """End a sweep whose members are all done: COMPLETED if one was, else TIMEOUT, else FAILED, else IDLE."""
    row = tx.conn.execute(queries.SWEEP, {"b_id": sweep_id}).one()
    state = next(
        (st for st in (State.COMPLETED, State.TIMEOUT, State.FAILED) if getattr(row, _COUNTER[st])), State.IDLE
    )
    end(core, tx, sweep_id, state)


def end(core: Core, tx: Tx, sweep_id: int, state: State) -> bool:
    """Close a sweep that is active; the row count is the answer. What went wrong goes on to those still active."""
    row = tx.conn.execute(queries.SWEEP, {"b_id": sweep_id}).one()
    error = None
    if state in ENDED_STATES and state is not State.COMPLETED:
        first = select(_M.error).where(_M.sweep_id == sweep_id, _M.error.is_not(None)).limit(1)
        error = views.sweep_error(row, tx.conn.execute(first).scalar())
    own = and_(_W.id == sweep_id, _W.active)
    values = {"state": state.value, "active": False, "ended_at": core.clock.now(), "error": error}
    if tx.conn.execute(update(s.sweeps).where(own).values(values)).rowcount != 1:
        return False
    tx.after(lambda: core.board.sweep_ended(sweep_id))
    carried = error or row.carried
    if carried is not None:
        tx.conn.execute(update(s.sweeps).where(_W.active, _W.carried.is_(None)).values(carried=carried))
    return True


def last(core: Core, tx: Tx) -> Any:  # Any: a row of `sweeps`
    """Give the sweep that ended last; None when there is none."""
    row = tx.conn.execute(queries.SWEEP, {"b_id": core.board.last_sweep}).one_or_none()
    return row or tx.conn.execute(queries.LAST_SWEEP).one_or_none()


def active(tx: Tx) -> list[Any]:  # Any: rows of `sweeps`
    """Sweeps that are active, oldest first."""
    return list(tx.conn.execute(queries.ACTIVE_SWEEPS))


def close_members(core: Core, tx: Tx, sweep_id: int, outcome: State, error: str | None, *, who: Any = None) -> int:
    """Mark open members as done, all or those whose target fits a condition; returns how many.

    The sweep ends when none is left open.
    """
    where = [_M.sweep_id == sweep_id, _M.outcome.is_(None)]
    if who is not None:
        where.append(_M.target_id.in_(select(_T.id).where(who)))
    stmt = update(s.sweep_members).where(*where).values(outcome=outcome.value, error=error)
    closed = tx.conn.execute(stmt).rowcount
    if closed:
        _count(core, tx, sweep_id, Counter({outcome: closed}))
    return closed


def give_up_on_hosts(core: Core, tx: Tx) -> None:
    """A member whose host says "wait" for longer than a scrape may take is done as failed; its request is cleared."""
    longest, h = core.clock.now() + timedelta(seconds=float(core.settings.scrape_timeout_s)), s.hosts.c
    asked = and_(_T.requested_at.is_not(None), _T.state != State.RUNNING.value)
    late = (
        select(h.host, h.next_allowed_at).join(s.targets, _T.host == h.host).where(asked, h.next_allowed_at > longest)
    )
    for host, until in tx.conn.execute(late.distinct()).all():
        who = and_(asked, _T.host == host)
        text = f"the host asked to be left alone until {views.iso(until)}"
        for sweep in active(tx):
            close_members(core, tx, sweep.id, State.FAILED, text, who=who)
        unplanned = update(s.targets).where(who, _T.due_at.is_(None), _T.schedule != "manual")
        tx.conn.execute(unplanned.values(due_at=until))
        clear = update(s.targets).where(who).values(requested_at=None, request_forced=False).returning(_T.id)
        tx.after(partial(core.board.touch, *tx.conn.execute(clear).scalars().all()))


def unqueue(core: Core, tx: Tx, who: Any, next_time: Any) -> None:  # Any: a condition; (schedule, after) -> datetime
    """Take requests off the queue; the regular schedule stays."""
    now: datetime = core.clock.now()
    queued = and_(_T.requested_at.is_not(None), who)
    for row in tx.conn.execute(select(_T.id, _T.schedule).where(queued, _T.due_at.is_(None))).all():
        tx.conn.execute(queries.SET_TARGET, {"b_id": row.id, "due_at": next_time(row.schedule, now)})
    clear = update(s.targets).where(queued).values(requested_at=None, request_forced=False).returning(_T.id)
    ids = tx.conn.execute(clear).scalars().all()
    tx.after(lambda: core.board.touch(*ids))


def check(core: Core, tx: Tx, *, quiet_since: dict[tuple[int, int], float], next_time: Any) -> list[int]:
    """The net, once a timeout check: sweeps whose members are all done, and those in which nothing moves.

    Args:
        quiet_since: Monotonic instants of each active sweep's last movement, kept by the caller between checks.
        next_time: (schedule, after) -> the next regular turn.

    Returns:
        Sweeps that were ended.
    """
    give_up_on_hosts(core, tx)
    ended: list[int] = []
    going = active(tx)
    for key in quiet_since.keys() - {(row.id, row.open) for row in going}:
        del quiet_since[key]
    for row in going:
        open_ = select(func.count()).select_from(s.sweep_members).where(_M.sweep_id == row.id, _M.outcome.is_(None))
        if not tx.conn.execute(open_).scalar():
            finish(core, tx, row.id)
            ended.append(row.id)
        elif _stands_still(core, tx, row, quiet_since):
            members = _T.id.in_(select(_M.target_id).where(_M.sweep_id == row.id, _M.outcome.is_(None)))
            unqueue(core, tx, members, next_time)
            close_members(core, tx, row.id, State.TIMEOUT, "nothing moved in this sweep for too long")
            ended.append(row.id)
    return ended


def _stands_still(
    core: Core, tx: Tx, row: Any, quiet_since: dict[tuple[int, int], float]
) -> bool:  # Any: a row of `sweeps`
    """Whether no member moved for longer than any of them may take, though workers are free."""
    now, key = core.clock.monotonic(), (row.id, row.open)
    moved = [live.progressed for live in list(core.live.values()) if row.id in live.sweeps]
    last = max([quiet_since.get(key, now), *moved])
    if core.pool is None or core.pool.free() <= 0:
        last = now
    quiet_since[key] = last
    most = select(func.max(_T.timeout_s)).join(s.sweep_members, _M.target_id == _T.id).where(_M.sweep_id == row.id)
    longest = max(float(core.settings.scrape_timeout_s), float(tx.conn.execute(most).scalar() or 0.0))
    return now - last > longest + float(core.settings.check_interval_s)
