"""Retention: history and, where configured, posts; in pieces, so that no write waits long."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, func, select

from errors import StoreUnavailable
from jobs.core import Core
from store import schema as s
from store.writer import Tx

log = logging.getLogger(__name__)
#: Rows a piece.
PIECE = 500


def _trim(core: Core, table: Any, column: Any, days: float) -> int:  # Any: a table and its time column
    """Delete rows older than that; returns how many."""
    before = core.clock.now() - timedelta(days=days)
    gone = 0
    while True:

        def op(tx: Tx) -> int:
            ids = tx.conn.execute(select(table.c.id).where(column < before).limit(PIECE)).scalars().all()
            if table is s.posts:
                tx.conn.execute(delete(s.post_versions).where(s.post_versions.c.post_id.in_(ids)))
            return tx.conn.execute(delete(table).where(table.c.id.in_(ids))).rowcount

        removed = core.writer.run(op)
        gone += removed
        if removed < PIECE:
            return gone


def _trim_sweeps(core: Core, days: float) -> int:
    """Delete sweeps that ended longer ago than that, with their members; returns how many. The last one stays."""
    before = core.clock.now() - timedelta(days=days)

    def op(tx: Tx) -> int:
        w, m = s.sweeps.c, s.sweep_members.c
        newest = select(func.max(w.id)).scalar_subquery()
        old = select(w.id).where(w.ended_at < before, w.id != newest).limit(20)
        ids = tx.conn.execute(old).scalars().all()
        tx.conn.execute(delete(s.sweep_members).where(m.sweep_id.in_(ids)))
        return tx.conn.execute(delete(s.sweeps).where(w.id.in_(ids))).rowcount

    gone = 0
    while removed := core.writer.run(op):
        gone += removed
    return gone


def tidy(core: Core) -> int:
    """One round of retention; 0 days keeps for ever. Returns rows deleted."""
    st = core.settings
    if not core.ready or core.draining:
        return 0
    try:
        gone = 0
        if st.history_days:
            gone += _trim(core, s.journal, s.journal.c.at, st.history_days)
            gone += _trim(core, s.runs, s.runs.c.ended_at, st.history_days)
            gone += _trim_sweeps(core, st.history_days)
        if st.retention_days:
            gone += _trim(core, s.posts, s.posts.c.first_seen_at, st.retention_days)
        return gone
    except StoreUnavailable as exc:
        log.warning('housekeeping_postponed error="%s"', exc)
        return 0
