"""Sweeps: sets of targets asked for together. Functions on a transaction; who calls them is the service."""

from __future__ import annotations

from sqlalchemy import and_, func, insert, select, update

from fsm.states import State
from jobs.core import Core
from store import schema as s
from store.writer import Tx


def create(core: Core, tx: Tx, kind: str) -> int:
    """Open a sweep; a second active refresh-all violates its unique index."""
    stmt = insert(s.sweeps).values(kind=kind, state="RUNNING", active=True, created_at=core.clock.now())
    core.dirty = True
    return int(tx.conn.execute(stmt.returning(s.sweeps.c.id)).scalar_one())


def join(tx: Tx, sweep_id: int, target_id: int) -> None:
    """Make a target a member."""
    tx.conn.execute(insert(s.sweep_members).values(sweep_id=sweep_id, target_id=target_id))


def member_done(core: Core, tx: Tx, target_id: int, outcome: State, error: str | None) -> None:
    """A target has an outcome: it is done in every sweep that waits for it; the last one ends the sweep."""
    m = s.sweep_members.c
    stmt = update(s.sweep_members).where(m.target_id == target_id, m.outcome.is_(None))
    done = tx.conn.execute(stmt.values(outcome=outcome.value, error=error).returning(m.sweep_id)).scalars().all()
    for sweep_id in done:
        end_if_done(core, tx, sweep_id)


def end_if_done(core: Core, tx: Tx, sweep_id: int) -> bool:
    """End a sweep whose members are all done; True when it ended now."""
    m = s.sweep_members.c
    open_ = select(m.target_id).where(m.sweep_id == sweep_id, m.outcome.is_(None)).limit(1)
    if tx.conn.execute(open_).first() is not None:
        return False
    tally = select(m.outcome, func.count(), func.max(m.error)).where(m.sweep_id == sweep_id).group_by(m.outcome)
    rows = {outcome: (count, error) for outcome, count, error in tx.conn.execute(tally)}
    state, error = State.IDLE, None
    for candidate in (State.COMPLETED, State.TIMEOUT, State.FAILED):
        if candidate.value in rows:
            state = candidate
            error = None if candidate is State.COMPLETED else rows[candidate.value][1]
            break
    return end(core, tx, sweep_id, state, error)


def end(core: Core, tx: Tx, sweep_id: int, state: State, error: str | None) -> bool:
    """Close a sweep that is active; the row count is the answer."""
    own = and_(s.sweeps.c.id == sweep_id, s.sweeps.c.active)
    values = {"state": state.value, "active": False, "ended_at": core.clock.now(), "error": error}
    core.dirty = True
    return tx.conn.execute(update(s.sweeps).where(own).values(values)).rowcount == 1


def active(tx: Tx) -> list[int]:
    """Ids of the sweeps that are active, oldest first."""
    stmt = select(s.sweeps.c.id).where(s.sweeps.c.active).order_by(s.sweeps.c.id)
    return list(tx.conn.execute(stmt).scalars())


def end_finished(core: Core, tx: Tx) -> list[int]:
    """The net: end every active sweep whose members are all done (or gone)."""
    return [sweep_id for sweep_id in active(tx) if end_if_done(core, tx, sweep_id)]
