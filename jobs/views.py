"""What clients see: rows become JSON-ready dicts. Reads only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, and_, func, or_, select

from errors import BadRequest, NotFound
from fsm.machine import possible
from fsm.states import ENDED_STATES, State
from jobs.core import Core, TargetRow
from store import schema as s

View = dict[str, Any]  # Any: JSON values
_T = s.targets.c


def iso(value: datetime | None) -> str | None:
    """ISO 8601 in UTC with an offset."""
    return None if value is None else value.astimezone(UTC).isoformat(timespec="milliseconds")


def plain(text: str | None) -> str | None:
    """Text that old clients put into HTML as it is."""
    return None if text is None else "".join(c for c in text if c not in "<>&" and c.isprintable())


def cursor_id(cursor: str | None) -> int | None:
    """Read a cursor. Raises BadRequest."""
    if cursor is None:
        return None
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 18:
        raise BadRequest("the cursor is not one of ours", hint="use next_cursor of the previous answer")
    return int(cursor)


class Views:
    """Reading; everything on short connections of its own."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def user(self, row: TargetRow) -> View:
        """USER of the older API."""
        name = row.display_name or row.handle
        words = [w for w in name.replace("://", " ").replace("/", " ").split() if w]
        return {
            "username": row.handle,
            "display_name": name,
            "initials": "".join(w[0] for w in words[:2]).upper() or "?",
            "added_at": iso(row.added_at),
            "last_scraped": iso(row.last_scraped),
            "post_count": row.post_count,
            "id": row.id,
            "source": row.source,
            "url": row.url,
            "state": row.state,
            "error": row.error,
            "next_due_at": iso(row.due_at),
        }

    def target(self, row: TargetRow) -> View:
        """A target as section 2 shows it."""
        return self.user(row) | {
            "handle": row.handle,
            "schedule": row.schedule,
            "timeout_s": row.timeout_s,
            "paused_until": iso(row.paused_until),
            "phase": self._phase(row),
        }

    def _phase(self, row: TargetRow) -> str | None:
        live = self._core.live.get(row.token)
        if row.state == State.RUNNING.value:
            return live.phase if live else "starting"
        if self._core.worker_of(row.id) != "none":
            return "stopping"
        return "queued" if row.requested_at is not None else None

    def status(self, conn: Connection, row: TargetRow) -> View:
        """The lifecycle of a target in full."""
        core, live = self._core, self._core.live.get(row.token)
        running = row.state == State.RUNNING.value
        r = s.runs.c
        last = select(s.runs).where(r.target_id == row.id, r.ended_at.is_not(None)).order_by(r.id.desc()).limit(1)
        run = conn.execute(last).one_or_none()
        worker = core.worker_of(row.id)
        if worker == "running" and not running:
            worker = "stopping"
        return {
            "id": row.id,
            "username": row.handle,
            "source": row.source,
            "state": row.state,
            "phase": self._phase(row),
            "token": row.token,
            "run_id": row.run_id,
            "worker": worker,
            "started_at": iso(row.started_at),
            "deadline_at": iso(row.deadline_at),
            "last_heartbeat": iso(live.beat_at if live else row.last_heartbeat),
            "last_progress_at": iso(live.progress_at if live else row.last_progress_at),
            "stalled": bool(running and live and live.overdue(core.clock.monotonic()) == "stalled"),
            "progress": plain(live.text) if live and running else row.progress,
            "error": row.error,
            "reason": row.reason,
            "attempt": row.attempt,
            "next_due_at": iso(row.due_at),
            "paused_until": iso(row.paused_until),
            "last_run": None if run is None else self.run(run),
            "triggers": {
                name: {"possible": guard is None, "refused_by": guard}
                for name, guard in possible(State(row.state), core.facts(row)).items()
            },
        }

    def run(self, row: Any) -> View:
        """One run."""
        names = ("id", "target_id", "token", "state", "duration_s", "error", "reason", "truncated")
        counts = ("posts_seen", "posts_new", "posts_edited")
        times = ("started_at", "deadline_at", "ended_at")
        return {n: getattr(row, n) for n in names + counts} | {n: iso(getattr(row, n)) for n in times}

    def journal(self, row: Any) -> View:
        """One journal row."""
        names = ("id", "target_id", "label", "trigger", "refused_by", "actor", "reason", "forced", "run_id", "token")
        view = {n: getattr(row, n) for n in names}
        return view | {"at": iso(row.at), "from": row.from_state, "to": row.to_state, "times": row.times}

    def post(self, row: Any) -> View:
        """POST of the older API, and more; `row` is a post joined with its target."""
        name = row.display_name or row.handle
        return {
            "id": row.id,
            "post_number": row.id,
            "post_text": row.text or row.title,
            "post_url": row.url,
            "author_name": row.author or name,
            "source_username": row.handle,
            "source_display_name": name,
            "source_initials": "".join(w[0] for w in name.split()[:2]).upper() or "?",
            "published_at": iso(row.published_at),
            "title": row.title,
            "html": row.html,
            "native_id": row.native_id,
            "target_id": row.target_id,
            "source": row.source,
            "kind": row.kind,
            "media": row.media,
            "version": row.version,
            "first_seen_at": iso(row.first_seen_at),
        }

    def posts(
        self, conn: Connection, *, limit: int, cursor: str | None, where: list[Any]
    ) -> tuple[list[View], str | None]:
        """A page of posts, newest id first; stable while posts arrive."""
        p = s.posts.c
        before = cursor_id(cursor)
        stmt = select(s.posts, _T.handle, _T.display_name, _T.source).join(s.targets, _T.id == p.target_id)
        if before is not None:
            stmt = stmt.where(p.id < before)
        rows = conn.execute(stmt.where(*where).order_by(p.id.desc()).limit(limit + 1)).all()
        more = str(rows[limit - 1].id) if len(rows) > limit else None
        return [self.post(row) for row in rows[:limit]], more

    def page(
        self, conn: Connection, table: Any, view: Any, *, limit: int, cursor: str | None, where: Any
    ) -> tuple[list[View], str | None]:  # Any: a table and how its rows are shown
        """A page of any table with an id, newest first."""
        stmt = select(table).where(where).order_by(table.c.id.desc()).limit(limit + 1)
        before = cursor_id(cursor)
        if before is not None:
            stmt = stmt.where(table.c.id < before)
        rows = conn.execute(stmt).all()
        return [view(row) for row in rows[:limit]], str(rows[limit - 1].id) if len(rows) > limit else None

    def sweep(self, conn: Connection, sweep_id: int | None) -> View:
        """STATUS of the older API: of the newest active sweep, else of the one that ended last, or of a certain one."""
        w, m = s.sweeps.c, s.sweep_members.c
        stmt = select(s.sweeps)
        if sweep_id is not None:
            row = conn.execute(stmt.where(w.id == sweep_id)).one_or_none()
            if row is None:
                raise NotFound(f"there is no sweep {sweep_id}")
        else:
            row = conn.execute(stmt.where(w.active).order_by(w.id.desc()).limit(1)).one_or_none()
            row = row or conn.execute(stmt.order_by(w.ended_at.desc(), w.id.desc()).limit(1)).one_or_none()
        if row is None:
            return empty_status()
        tally: dict[str | None, int] = {}
        for outcome, count in conn.execute(
            select(m.outcome, func.count()).where(m.sweep_id == row.id).group_by(m.outcome)
        ):
            tally[outcome] = count
        current = None
        if row.active:
            current = conn.execute(
                select(s.targets)
                .join(s.sweep_members, m.target_id == _T.id)
                .where(m.sweep_id == row.id, m.outcome.is_(None), _T.state == State.RUNNING.value)
                .order_by(_T.started_at)
                .limit(1)
            ).one_or_none()
        return self._status(row, tally, current)

    def _status(self, row: Any, tally: dict[str | None, int], current: TargetRow | None) -> View:
        total, open_ = sum(tally.values()), tally.get(None, 0)
        done = total - open_
        name = plain(current.handle) if current is not None else None
        if row.active:
            progress = (
                f"Scraping {name} ({done} of {total} done)"
                if name
                else f"Waiting for a worker ({done} of {total} done)"
            )
        else:
            progress = {
                "IDLE": "Idle",
                "COMPLETED": f"Done: {tally.get('COMPLETED', 0)} of {total} scraped",
            }.get(row.state, f"Ended: {row.state.lower()}, {tally.get('COMPLETED', 0)} of {total} scraped")
        error = None
        if State(row.state) in ENDED_STATES and row.state != "COMPLETED":
            bad = tally.get("FAILED", 0) + tally.get("TIMEOUT", 0)
            error = f"{bad} of {total} scrapes did not complete ({tally.get('TIMEOUT', 0)} timed out)"
        live = self._core.live.get(current.token) if current is not None else None
        return empty_status() | {
            "running": bool(row.active),
            "state": row.state,
            "progress": progress,
            "error": error,
            "current_user": name,
            "total_users": total,
            "completed_users": tally.get("COMPLETED", 0),
            "failed_users": tally.get("FAILED", 0),
            "timed_out_users": tally.get("TIMEOUT", 0),
            "started_at": iso(row.created_at),
            "last_heartbeat": iso(live.beat_at if live else (current.last_heartbeat if current else row.ended_at)),
            "last_progress_at": iso(live.progress_at if live else None),
            "deadline_at": iso(current.deadline_at if current is not None else None),
            "sweep_id": row.id,
        }


def empty_status() -> View:
    """STATUS when nothing was ever asked for."""
    return {
        "running": False,
        "state": "IDLE",
        "progress": "Idle",
        "error": None,
        "current_user": None,
        "total_users": 0,
        "completed_users": 0,
        "started_at": None,
        "last_heartbeat": None,
        "sweep_id": None,
        "failed_users": 0,
        "timed_out_users": 0,
        "deadline_at": None,
        "last_progress_at": None,
        "stalled": False,
        "next_due_at": None,
        "counts": {},
        "last_run": None,
    }


def search(**wanted: Any) -> list[Any]:  # Any: column expressions
    """Conditions of a target list."""
    where: list[Any] = []
    if wanted.get("state"):
        where.append(_T.state == wanted["state"])
    if wanted.get("source"):
        where.append(_T.source == wanted["source"])
    if wanted.get("q"):
        like = f"%{wanted['q'].replace('!', '!!').replace('%', '!%').replace('_', '!_')}%"
        where.append(or_(_T.handle.ilike(like, escape="!"), _T.display_name.ilike(like, escape="!")))
    return [and_(*where)] if where else []
