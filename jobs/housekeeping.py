"""Retention: history and, where configured, posts; in pieces, so that no write waits long."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

from sqlalchemy import delete, select

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
            ids = select(table.c.id).where(column < before).limit(PIECE).scalar_subquery()
            return tx.conn.execute(delete(table).where(table.c.id.in_(ids))).rowcount

        removed = core.writer.run(op)
        gone += removed
        if removed < PIECE:
            return gone


def tidy(core: Core) -> int:
    """One round of retention; 0 days keeps for ever. Returns rows deleted."""
    st = core.settings
    try:
        gone = 0
        if st.history_days:
            gone += _trim(core, s.journal, s.journal.c.at, st.history_days)
            gone += _trim(core, s.runs, s.runs.c.ended_at, st.history_days)
        if st.retention_days:
            gone += _trim(core, s.posts, s.posts.c.first_seen_at, st.retention_days)
        return gone
    except StoreUnavailable as exc:
        log.warning("housekeeping_postponed error=%s", exc)
        return 0
