"""Statements, built once: building them anew costs more than the database does. No rule of the lifecycle is here."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Integer, Row, and_, bindparam, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from store import schema as s
from store.schema import UtcTime

Values = dict[str, Any]  # Any: column values
TargetRow = Row[Any]  # Any: a row of `targets`

_T, _H, _M = s.targets.c, s.hosts.c, s.sweep_members.c
_NOW = bindparam("b_now", type_=UtcTime())
_BLOCKED = select(_H.host).where(_H.next_allowed_at > _NOW)
_MAY = and_(
    _T.state != "RUNNING",
    _T.host.not_in(_BLOCKED),
    _T.host.not_in(bindparam("b_full", expanding=True)),
    _T.id.not_in(bindparam("b_skip", expanding=True)),
)
_AWAKE = or_(_T.paused_until.is_(None), _T.paused_until <= _NOW)
_LIMIT = bindparam("b_limit", type_=Integer())

TARGET = select(s.targets).where(_T.id == bindparam("b_id"))
TARGETS = select(s.targets).where(_T.id.in_(bindparam("b_ids", expanding=True)))
RUNNING = select(s.targets).where(_T.state == "RUNNING").order_by(_T.deadline_at)
_ASKED = (
    select(s.targets)
    .where(_T.requested_at.is_not(None), or_(_AWAKE, _T.request_forced), _MAY)
    .order_by(_T.request_rank, _T.requested_at, _T.id)
    .limit(_LIMIT)
)
_DUE = select(s.targets).where(_T.due_at <= _NOW, _T.requested_at.is_(None), _AWAKE, _MAY).order_by(_T.due_at)
_DUE = _DUE.limit(_LIMIT)
NEXT_DUE = select(func.min(_T.due_at)).where(_T.due_at.is_not(None))
#: Conditional on (id, state, token); SET comes from the other parameters. The row count is the answer.
STEP = update(s.targets).where(
    _T.id == bindparam("b_id"), _T.state == bindparam("b_state"), _T.token == bindparam("b_token")
)
SET_TARGET = update(s.targets).where(_T.id == bindparam("b_id"))
SET_RUN = update(s.runs).where(s.runs.c.id == bindparam("b_id"))
ADD_RUN = insert(s.runs)
ADD_JOURNAL = insert(s.journal)
_TOKENS = update(s.tokens).values(last=s.tokens.c.last + bindparam("b_n")).returning(s.tokens.c.last)
SWEEPS_OF = select(_M.sweep_id, _M.target_id).where(
    _M.target_id.in_(bindparam("b_ids", expanding=True)), _M.outcome.is_(None)
)
MEMBER_DONE = (
    update(s.sweep_members)
    .where(_M.sweep_id == bindparam("b_sweep"), _M.target_id == bindparam("b_target"), _M.outcome.is_(None))
    .values(outcome=bindparam("b_outcome"), error=bindparam("b_error"))
)
#: Parameters b_completed, b_failed, b_timed_out, b_n (members done now), b_sweep.
COUNT_MEMBERS = (
    update(s.sweeps)
    .where(s.sweeps.c.id == bindparam("b_sweep"))
    .values(
        open=s.sweeps.c.open - bindparam("b_n", type_=Integer()),
        completed=s.sweeps.c.completed + bindparam("b_completed", type_=Integer()),
        failed=s.sweeps.c.failed + bindparam("b_failed", type_=Integer()),
        timed_out=s.sweeps.c.timed_out + bindparam("b_timed_out", type_=Integer()),
    )
    .returning(s.sweeps.c.open)
)
SWEEP = select(s.sweeps).where(s.sweeps.c.id == bindparam("b_id"))
ACTIVE_SWEEPS = select(s.sweeps).where(s.sweeps.c.active).order_by(s.sweeps.c.id)
LAST_SWEEP = select(s.sweeps).where(s.sweeps.c.ended_at.is_not(None)).order_by(s.sweeps.c.ended_at.desc()).limit(1)
LAST_RUN = select(s.runs).where(s.runs.c.ended_at.is_not(None)).order_by(s.runs.c.ended_at.desc()).limit(1)
LAST_RUN_OF = (
    select(s.runs)
    .where(s.runs.c.target_id == bindparam("b_id"), s.runs.c.ended_at.is_not(None))
    .order_by(s.runs.c.token.desc())
    .limit(1)
)


def due(
    conn: Connection, *, now: datetime, full: Collection[str], skip: Collection[int], limit: int
) -> list[TargetRow]:
    """Give targets that may start: asked for by themselves, then by a refresh-all, then by schedule; oldest first.

    Args:
        full: Hosts that have as many runs as they may.
        skip: Targets that cannot be started now.
    """
    values = {"b_now": now, "b_full": list(full), "b_skip": list(skip), "b_limit": limit}
    rows = list(conn.execute(_ASKED, values))
    if len(rows) < limit:
        rows += conn.execute(_DUE, values | {"b_limit": limit - len(rows)})
    return rows


def take_tokens(conn: Connection, n: int) -> int:
    """Give out n tokens of the one sequence of this database; returns the first."""
    return int(conn.execute(_TOKENS, {"b_n": n}).scalar_one()) - n + 1


def step(conn: Connection, rows: Sequence[TargetRow], values: Sequence[Values]) -> bool:
    """Move targets on; False when one of them was moved by somebody else meanwhile."""
    own = [
        {"b_id": row.id, "b_state": row.state, "b_token": row.token} | new
        for row, new in zip(rows, values, strict=True)
    ]
    return conn.execute(STEP, own if len(own) > 1 else own[0]).rowcount == len(own)


def block_hosts(conn: Connection, waits: Sequence[Values]) -> None:
    """Let nobody ask these hosts before `next_allowed_at`, for a `reason`; never shortens a longer wait."""
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    conn.execute(_BLOCKS[dialect], waits)


def block_host(conn: Connection, host: str, *, until: datetime, reason: str) -> None:
    """Let nobody ask one host before then."""
    block_hosts(conn, [{"host": host, "next_allowed_at": until, "reason": reason}])


def _block(dialect: Any) -> Any:  # Any: a dialect module of SQLAlchemy, and its insert
    stmt = dialect.insert(s.hosts)
    new = stmt.excluded
    return stmt.on_conflict_do_update(
        index_elements=["host"],
        set_={"next_allowed_at": new.next_allowed_at, "reason": new.reason},
        where=new.next_allowed_at > s.hosts.c.next_allowed_at,
    )


_BLOCKS = {dialect: _block(dialect) for dialect in (sqlite, postgresql)}
