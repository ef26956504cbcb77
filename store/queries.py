"""Statements, built once: building them anew costs more than the database does. No rule of the lifecycle is here."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    bindparam,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
    update,
)

from store import schema as s
from store.driver import run_many
from store.schema import UtcTime

#: The lane of those that nobody asked for.
SCHEDULED = 2
Values = dict[str, Any]  # Any: column values
TargetRow = Row[Any]  # Any: a row of `targets`

_T, _H, _M = s.targets.c, s.hosts.c, s.sweep_members.c
_NOW = bindparam("b_now", type_=UtcTime())
_LIMIT = bindparam("b_limit", type_=Integer())
_LOOKED_AT = (_T.deferred_until, _T.paused_until, _T.fresh_until, _T.request_forced)
_SKIP = _T.id.not_in(bindparam("b_skip", expanding=True))

TARGET = select(s.targets).where(_T.id == bindparam("b_id"))
TARGETS = select(s.targets).where(_T.id.in_(bindparam("b_ids", expanding=True)))
RUNNING = select(s.targets).where(_T.state == "RUNNING").order_by(_T.deadline_at)


def _lane(lane: int, turn: ColumnElement[Any], *where: ColumnElement[bool]) -> Select[Any]:
    """Targets whose turn has come, oldest first, and what the claim looks at."""
    since = (_T.due_at if lane == SCHEDULED else _T.requested_at).label("since")
    columns = (_T.id, _T.host, literal(lane).label("lane"), turn.label("turn"), since, *_LOOKED_AT)
    due = select(*columns).where(*where, turn <= _NOW, _SKIP).order_by(turn, _T.id).limit(_LIMIT)
    return select(due.subquery())


_REQUESTED = _T.requested_at.is_not(None)
_WAITING = union_all(
    _lane(0, s.ASKED_TURN, _REQUESTED, _T.request_rank == 0),
    _lane(1, s.ASKED_TURN, _REQUESTED, _T.request_rank == 1),
    _lane(SCHEDULED, s.TURN, _T.due_at.is_not(None), _T.requested_at.is_(None)),
)
_WAITING = _WAITING.order_by(_WAITING.selected_columns.lane, _WAITING.selected_columns.turn)
NEXT_DUE = select(func.min(s.TURN)).where(_T.due_at.is_not(None))
DEFER = update(s.targets).where(_T.id == bindparam("b_id")).values(deferred_until=bindparam("b_until", type_=UtcTime()))
ROBOTS_OF = select(_H.host, _H.robots_status, _H.robots_text, _H.robots_at).where(
    _H.host.in_(bindparam("b_hosts", expanding=True)), _H.robots_at.is_not(None)
)
NEWEST_ROBOTS = (
    select(_H.host, _H.robots_status, _H.robots_text, _H.robots_at)
    .where(_H.robots_at.is_not(None))
    .order_by(_H.robots_at.desc())
    .limit(200)
)
HOSTS = select(_H.host, _H.next_allowed_at, _H.reason, _H.crawl_delay_s).where(
    or_(_H.next_allowed_at > _NOW, _H.crawl_delay_s > 0)
)
#: When runs on hosts ended last, since b_since.
LAST_ENDED = (
    select(_T.host, func.max(s.runs.c.ended_at, type_=UtcTime()).label("ended_at"))
    .join(s.runs, s.runs.c.target_id == _T.id)
    .where(s.runs.c.ended_at > bindparam("b_since", type_=UtcTime()), _T.host != "")
    .group_by(_T.host)
)
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


def waiting(conn: Connection, *, now: datetime, skip: Collection[int], limit: int) -> list[Row[Any]]:
    """Give targets whose turn has come: asked for by themselves, then by a refresh-all, then by schedule; oldest first.

    Costs what it gives, however many others there are.

    Args:
        skip: Targets that cannot be started now.
        limit: Most of each kind (count).

    Returns:
        Rows of id, host, lane (0, 1, 2 as above), turn (when it is looked at), since (when it was asked for, or due),
        deferred_until, paused_until, fresh_until, request_forced.
    """
    return list(conn.execute(_WAITING, {"b_now": now, "b_skip": list(skip), "b_limit": limit}))


def take_tokens(conn: Connection, n: int) -> int:
    """Give out n tokens of the one sequence of this database; returns the first."""
    return int(conn.execute(_TOKENS, {"b_n": n}).scalar_one()) - n + 1


def step(conn: Connection, rows: Sequence[TargetRow], values: Sequence[Values]) -> bool:
    """Move targets on; False when one of them was moved by somebody else meanwhile."""
    own = [
        {"b_id": row.id, "b_state": row.state, "b_token": row.token} | new
        for row, new in zip(rows, values, strict=True)
    ]
    return run_many(conn, STEP, own) == len(own)


def block_host(conn: Connection, host: str, *, until: datetime, reason: str) -> None:
    """Let nobody ask a host before then; never shortens a longer wait."""
    stmt = _upsert(conn.dialect.name, "next_allowed_at", "reason", later=True)
    conn.execute(stmt, {"host": host, "next_allowed_at": until, "reason": reason})


def keep_robots(conn: Connection, host: str, *, at: datetime, status: int, text: str, crawl_delay_s: float) -> None:
    """Keep what a host's robots.txt said then."""
    found = {"robots_status": status, "robots_text": text, "robots_at": at, "crawl_delay_s": crawl_delay_s}
    conn.execute(_upsert(conn.dialect.name, *found), {"host": host, "next_allowed_at": at, "reason": ""} | found)


@functools.cache
def _upsert(dialect: str, *names: str, later: bool = False) -> Any:  # Any: an insert of the dialect's own
    """A statement that adds a host, or changes these columns of it; `later`: only to a later time."""
    # The dialect in use is loaded; the other one would take 2 MB and 15 ms.
    stmt = importlib.import_module(f"sqlalchemy.dialects.{dialect}").insert(s.hosts)
    new = stmt.excluded
    return stmt.on_conflict_do_update(
        index_elements=["host"],
        set_={name: new[name] for name in names},
        where=new.next_allowed_at > _H.next_allowed_at if later else None,
    )
