"""Retention: history and, where configured, posts; in pieces, so that no write waits long.

Kept for ever: targets, the last run of each, the sweep that ended last, what still goes on, and posts that their
source still shows: deleted, they would come back as new. What goes is looked for on a connection that reads, and
deleted by id.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Float, Select, Table, and_, delete, func, or_, select, type_coerce, update
from sqlalchemy.exc import SQLAlchemyError

from errors import StoreUnavailable
from jobs.core import Core
from store import schema as s
from store.writer import Tx

log = logging.getLogger(__name__)
#: Rows a piece, and most of a kind in one round; the next round goes on.
PIECE, ROUND = 500, 100_000
#: Longest time that is counted back (days).
LONGEST_DAYS = 36_500
#: `last_seen_at` is written once a day: what was seen within this of the newest was seen last (days).
SEEN_DAYS = 2
#: What a host asked for, and its robots.txt, when nobody has looked at it for so long (days).
HOST_DAYS = 30

_J, _R, _W, _M, _P, _H = s.journal.c, s.runs.c, s.sweeps.c, s.sweep_members.c, s.posts.c, s.hosts.c


def tidy(core: Core) -> int:
    """One round of retention; 0 days keeps for ever. Returns rows deleted."""
    st, gone = core.settings, 0
    try:
        if st.history_days:
            before = _before(core, st.history_days)
            gone += _trim(core, s.journal, select(_J.id).where(_J.at < before).order_by(_J.at))
            gone += _trim(core, s.runs, _old_runs(before))
            gone += _trim_sweeps(core, before)
        gone += _trim_hosts(core, _before(core, HOST_DAYS))
        if st.retention_days:
            gone += _trim_posts(core, _before(core, st.retention_days))
    except (StoreUnavailable, SQLAlchemyError) as exc:
        log.warning('housekeeping_postponed error="%s"', exc)
    if gone:
        log.info("housekeeping_done rows=%d", gone)
    return gone


def _before(core: Core, days: float) -> datetime:
    return core.clock.now() - timedelta(days=min(days, LONGEST_DAYS))


def _found(core: Core, query: Select[Any]) -> list[Any]:  # Any: ids, or rows that begin with one
    if not core.ready or core.draining:
        return []
    with core.engine.connect() as conn:
        return list(conn.execute(query.limit(ROUND)).all())


def _in_pieces(core: Core, found: Sequence[Any], op: Callable[[Tx, list[int]], int]) -> int:
    """Run an operation on some ids at a time; returns the sum. Ends early when the daemon does."""
    gone = 0
    for start in range(0, len(found), PIECE):
        if core.draining:
            break
        ids = [row.id for row in found[start : start + PIECE]]
        gone += core.writer.run(lambda tx, ids=ids: op(tx, ids))  # type: ignore[misc]  # mypy does not infer a lambda with defaults
    return gone


def _trim(core: Core, table: Table, old: Select[Any]) -> int:
    def op(tx: Tx, ids: list[int]) -> int:
        return tx.conn.execute(delete(table).where(table.c.id.in_(ids))).rowcount

    return _in_pieces(core, _found(core, old), op)


def _old_runs(before: datetime) -> Select[Any]:
    """Runs that ended before then, but for the last one of each target."""
    newer = s.runs.alias()
    mine = and_(newer.c.target_id == _R.target_id, newer.c.ended_at.is_not(None))
    last = select(func.max(newer.c.token)).where(mine).correlate(s.runs).scalar_subquery()
    return select(_R.id).where(_R.ended_at < before, _R.token < last).order_by(_R.ended_at)


def _trim_sweeps(core: Core, before: datetime) -> int:
    """Sweeps that ended before then, but for the one that ended last; members first: there may be many."""
    last = select(_W.id).where(_W.ended_at.is_not(None)).order_by(_W.ended_at.desc(), _W.id.desc()).limit(1)
    newest = select(func.max(_W.id)).scalar_subquery()
    old = select(_W.id).where(_W.ended_at < before, _W.id.not_in(last), _W.id != newest).order_by(_W.ended_at)
    gone = 0
    for row in _found(core, old):
        members = select(_M.target_id.label("id")).where(_M.sweep_id == row.id)
        while found := _found(core, members):

            def op(tx: Tx, ids: list[int], sweep_id: int = row.id) -> int:
                these = and_(_M.sweep_id == sweep_id, _M.target_id.in_(ids))
                return tx.conn.execute(delete(s.sweep_members).where(these)).rowcount

            gone += _in_pieces(core, found, op)
        gone += _trim(core, s.sweeps, select(_W.id).where(_W.id == row.id))
    return gone


def _trim_hosts(core: Core, before: datetime) -> int:
    """Hosts that want nothing any more, and whose robots.txt would be read anew."""
    old = and_(_H.next_allowed_at < before, or_(_H.robots_at.is_(None), _H.robots_at < before))

    def op(tx: Tx, names: list[Any]) -> int:  # Any: names of hosts, in the place of ids
        return tx.conn.execute(delete(s.hosts).where(_H.host.in_(names), old)).rowcount

    return _in_pieces(core, _found(core, select(_H.host.label("id")).where(old)), op)


def _trim_posts(core: Core, before: datetime) -> int:
    """Posts that their source has not shown since then, with their versions."""
    newest = select(_P.target_id, func.max(_P.last_seen_at).label("at")).group_by(_P.target_id).subquery()
    shown = type_coerce(newest.c.at, Float) - SEEN_DAYS * 86400.0
    old = select(_P.id).join(newest, newest.c.target_id == _P.target_id)
    old = old.where(_P.last_seen_at < before, type_coerce(_P.last_seen_at, Float) < shown).order_by(_P.id)

    def op(tx: Tx, ids: list[int]) -> int:
        still = and_(_P.id.in_(ids), _P.last_seen_at < before)
        rows = tx.conn.execute(select(_P.id, _P.target_id).where(still)).all()
        tx.conn.execute(delete(s.post_versions).where(s.post_versions.c.post_id.in_([row.id for row in rows])))
        tx.conn.execute(delete(s.posts).where(_P.id.in_([row.id for row in rows])))
        for target_id, n in Counter(row.target_id for row in rows).items():
            own = update(s.targets).where(s.targets.c.id == target_id)
            tx.conn.execute(own.values(post_count=s.targets.c.post_count - n))
        tx.after(lambda: core.board.touch(*{row.target_id for row in rows}))
        return len(rows)

    return _in_pieces(core, _found(core, old), op)
