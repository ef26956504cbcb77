"""Reads: what clients ask for that is not on the board. Short connections of their own; nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Integer, and_, bindparam, func, or_, select
from sqlalchemy.exc import SQLAlchemyError

from errors import GleandError, NotFound, StoreUnavailable
from fsm.machine import mermaid
from jobs import views
from jobs.core import Core
from jobs.events import Event, event
from jobs.views import View, cursor_id, iso
from sources.registry import Identity, Registry
from store import queries
from store import schema as s
from store.queries import TargetRow

_T, _J = s.targets.c, s.journal.c
# Asked for at every publication while somebody follows.
_NEWEST = select(func.max(_J.id))
_EVENTS = (
    select(s.journal).where(_J.id > bindparam("b_after")).order_by(_J.id).limit(bindparam("b_limit", type_=Integer()))
)


def like(text: str) -> str:
    """A pattern for `ilike(..., escape="!")` that finds the text anywhere."""
    return f"%{text.replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"


class Reading:
    """See the module."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.board = core.board

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        """Open a connection for reading. Raises StoreUnavailable."""
        if not self._core.ready:
            raise StoreUnavailable("the database is not ready yet", hint="ask again in a few seconds")
        try:
            with self._core.engine.connect() as conn:
                yield conn
        except SQLAlchemyError as exc:
            raise StoreUnavailable("the database could not be read", hint="ask again in a few seconds") from exc

    def find(self, *, target_id: int | None = None, username: str | None = None) -> TargetRow:
        """The row of a target. Raises NotFound."""
        with self._connection() as conn:
            if target_id is not None:
                row = conn.execute(queries.TARGET, {"b_id": target_id}).one_or_none()
            else:
                row = self._by_name(conn, username or "")
        if row is None:
            raise NotFound(f"there is no target {target_id}" if target_id is not None else "no such user is tracked")
        return row

    def _by_name(self, conn: Connection, name: str) -> TargetRow | None:
        """By what the older API calls the username: the handle, or anything `add` would read as this target."""
        rows = conn.execute(select(s.targets).where(_T.handle == name)).all()
        if len(rows) != 1:
            try:
                known = self.resolve(name)
            except GleandError:
                return rows[0] if rows else None
            where = and_(_T.source == known.source, _T.handle == known.handle)
            rows = conn.execute(select(s.targets).where(where)).all() or rows
        return rows[0] if rows else None

    def resolve(self, name: str, *, source: str | None = None) -> Identity:
        """Read what names a target. Raises Unusable."""
        return self.registry().resolve(name, source=source)

    def registry(self) -> Registry:
        """The sources, as the settings of this moment have them."""
        st = self._core.settings
        return Registry(
            default_source=st.default_source,
            handle_url=st.handle_url,
            own=dict.fromkeys(self._core.plugins, "") | st.own_sources,
            bases=st.source_bases,
            enabled=st.enabled_sources,
        )

    def scrape_status(self, sweep_id: int | None = None) -> View:
        """STATUS; with `sweep_id` that sweep's. Raises NotFound, StoreUnavailable (for a certain one only)."""
        if sweep_id is None:
            return self.board.status_view()
        with self._connection() as conn:
            row = conn.execute(queries.SWEEP, {"b_id": sweep_id}).one_or_none()
        if row is None:
            raise NotFound(f"there is no sweep {sweep_id}")
        return self.board.status_view(row=row)

    def users(self, *, limit: int | None = None, cursor: str | None = None) -> View:
        """All targets as the older API shows them, in the order they were added."""
        rows, more = self._list([], limit=limit, cursor=cursor)
        return {"users": [views.user(r) for r in rows], "count": len(rows), "next_cursor": more}

    def targets(self, *, state: str | None, source: str | None, q: str | None, limit: int, cursor: str | None) -> View:
        """A page of targets."""
        where: list[Any] = []
        if state is not None:
            where.append(_T.state == state)
        if source is not None:
            where.append(_T.source == source)
        if q:
            where.append(or_(*(column.ilike(like(q), escape="!") for column in (_T.handle, _T.display_name))))
        rows, more = self._list(where, limit=limit, cursor=cursor)
        return {"targets": [views.target(self._core, r) for r in rows], "next_cursor": more}

    def _list(self, where: list[Any], *, limit: int | None, cursor: str | None) -> tuple[list[TargetRow], str | None]:
        stmt = select(s.targets).where(*where).order_by(_T.id)
        after = cursor_id(cursor)
        if after is not None:
            stmt = stmt.where(_T.id > after)
        with self._connection() as conn:
            rows = list(conn.execute(stmt if limit is None else stmt.limit(limit + 1)))
        if limit is not None and len(rows) > limit:
            return rows[:limit], str(rows[limit - 1].id)
        return rows, None

    def target(self, target_id: int) -> View:
        """One target."""
        return views.target(self._core, self.find(target_id=target_id))

    def target_status(self, target_id: int) -> View:
        """The lifecycle of one target in full; from here on it is on the board, for the next who asks."""
        return self.board.show(target_id)

    def feed(self, *, username: str | None, limit: int, cursor: str | None) -> View:
        """The older feed."""
        with self._connection() as conn:
            where = []
            if username:
                row = self._by_name(conn, username)
                where = [s.posts.c.target_id == (row.id if row is not None else -1)]
            posts, more = self._posts(conn, limit=limit, cursor=cursor, where=where)
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
            columns = (s.posts.c.title, s.posts.c.text)
            where.append(or_(*(column.ilike(like(q), escape="!") for column in columns)))
        with self._connection() as conn:
            rows, more = self._posts(conn, limit=limit, cursor=cursor, where=where)
        return {"posts": rows, "next_cursor": more}

    def _posts(
        self, conn: Connection, *, limit: int, cursor: str | None, where: list[Any]
    ) -> tuple[list[View], str | None]:
        """A page, newest id first: stable while posts arrive."""
        p = s.posts.c
        stmt = select(s.posts, _T.handle, _T.display_name, _T.source).join(s.targets, _T.id == p.target_id)
        before = cursor_id(cursor)
        if before is not None:
            stmt = stmt.where(p.id < before)
        rows = conn.execute(stmt.where(*where).order_by(p.id.desc()).limit(limit + 1)).all()
        return [views.post(row) for row in rows[:limit]], str(rows[limit - 1].id) if len(rows) > limit else None

    def _history(self, table: Any, name: str, view: Any, target_id: int, limit: int, cursor: str | None) -> View:
        stmt = select(table).where(table.c.target_id == target_id).order_by(table.c.id.desc()).limit(limit + 1)
        before = cursor_id(cursor)
        if before is not None:
            stmt = stmt.where(table.c.id < before)
        with self._connection() as conn:
            rows = conn.execute(stmt).all()
        if not rows and cursor is None:
            self.find(target_id=target_id)
        more = str(rows[limit - 1].id) if len(rows) > limit else None
        return {name: [view(row) for row in rows[:limit]], "next_cursor": more}

    def journal(self, target_id: int, *, limit: int, cursor: str | None) -> View:
        """Transitions and refusals of a target, newest first; also of one that was removed."""
        return self._history(s.journal, "journal", views.journal, target_id, limit, cursor)

    def events(self, *, after: int | None, limit: int) -> tuple[list[Event], int]:
        """Transitions and refusals of all targets that were journalled after an id, oldest first.

        Args:
            after: None: only the second value is asked for.

        Returns:
            The events, and the newest id that there is; lower than `after` where that is another database's, or the
            journal was cleared meanwhile.
        """
        with self._connection() as conn:
            newest = int(conn.execute(_NEWEST).scalar() or 0)
            if after is None or after >= newest:
                return [], newest
            rows = conn.execute(_EVENTS, {"b_after": after, "b_limit": limit})
            return [event(row) for row in rows], newest

    def runs_of(self, target_id: int, *, limit: int, cursor: str | None) -> View:
        """Runs of a target, newest first."""
        return self._history(s.runs, "runs", views.run, target_id, limit, cursor)

    def run(self, run_id: int) -> View:
        """One run with its timeline."""
        with self._connection() as conn:
            row = conn.execute(select(s.runs).where(s.runs.c.id == run_id)).one_or_none()
            if row is None:
                raise NotFound(f"there is no run {run_id}")
            steps = select(s.journal).where(s.journal.c.run_id == run_id).order_by(s.journal.c.id)
            steps = steps.where(s.journal.c.target_id == row.target_id)
            return views.run(row) | {"timeline": [views.journal(j) for j in conn.execute(steps)]}

    def sweep(self, sweep_id: int) -> View:
        """One sweep with its members."""
        view, m = self.scrape_status(sweep_id), s.sweep_members.c
        with self._connection() as conn:
            rows = conn.execute(select(s.sweep_members).where(m.sweep_id == sweep_id).order_by(m.target_id).limit(500))
            members = [{"target_id": r.target_id, "outcome": r.outcome, "error": r.error} for r in rows]
        return view | {"members": members}

    def hosts(self, *, limit: int, cursor: str | None) -> View:
        """Hosts that are in use or to be left alone: when each may be asked next, and why."""
        found = [one for one in self._core.hosts.view() if cursor is None or one["host"] > cursor]
        shown = [one | {"next_allowed_at": iso(one["next_allowed_at"])} for one in found[:limit]]
        return {"hosts": shown, "next_cursor": shown[-1]["host"] if len(found) > limit else None}

    def sources(self) -> View:
        """The adapters there are."""
        return {"sources": self.registry().names()}

    def lifecycle_mmd(self) -> str:
        """The lifecycle, drawn from the running machine."""
        return mermaid()
