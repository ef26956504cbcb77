"""What clients see: rows become JSON-ready dicts. Reads only."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from errors import BadRequest
from fsm.machine import possible
from fsm.states import State
from store.queries import TargetRow

if TYPE_CHECKING:
    from jobs.core import Core, Live

View = dict[str, Any]  # Any: JSON values
#: Fields that change with each beat, and so neither an ETag nor a waiter.
HEARTBEATS = frozenset({"last_heartbeat", "last_progress_at"})


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


def initials(name: str) -> str:
    """First letters of the first two words."""
    words = [w for w in name.replace("://", " ").replace("/", " ").split() if w]
    return "".join(w[0] for w in words[:2]).upper() or "?"


def user(row: TargetRow) -> View:
    """USER of the older API."""
    name = row.display_name or row.handle
    return {
        "username": row.handle,
        "display_name": name,
        "initials": initials(name),
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


def target(core: Core, row: TargetRow) -> View:
    """A target as section 2 of the contract shows it."""
    return user(row) | {
        "handle": row.handle,
        "schedule": row.schedule,
        "timeout_s": row.timeout_s,
        "range": row.range,
        "paused_until": iso(row.paused_until),
        "paused_why": row.paused_why,
        "phase": phase(core, row),
    }


def phase(core: Core, row: TargetRow) -> str | None:
    """`queued` before RUNNING; `starting`, `fetching` inside; `stopping` after it."""
    live = core.live.get(row.token)
    if row.state == State.RUNNING.value:
        return live.phase if live else "starting"
    if core.worker_of(row.id) != "none":
        return "stopping"
    return "queued" if row.requested_at is not None else None


def target_status(core: Core, row: TargetRow, last_run: View | None) -> View:
    """The lifecycle of a target in full."""
    live = core.live.get(row.token)
    running = row.state == State.RUNNING.value
    worker = core.worker_of(row.id)
    return {
        "id": row.id,
        "username": row.handle,
        "source": row.source,
        "state": row.state,
        "phase": phase(core, row),
        "token": row.token,
        "run_id": row.run_id,
        "worker": "stopping" if worker == "running" and not running else worker,
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
        "requested_at": iso(row.requested_at),
        "paused_until": iso(row.paused_until),
        "paused_why": row.paused_why,
        "unsaved": bool(live and live.unsaved),
        "last_run": last_run,
        "triggers": {
            name: {"possible": guard is None, "refused_by": guard}
            for name, guard in possible(State(row.state), core.facts(row)).items()
        },
    }


def run(row: Any) -> View:
    """One run."""
    names = ("id", "target_id", "token", "state", "duration_s", "error", "reason", "truncated", "gap")
    counts = ("posts_seen", "posts_new", "posts_edited")
    times = ("started_at", "deadline_at", "ended_at")
    return {n: getattr(row, n) for n in names + counts} | {n: iso(getattr(row, n)) for n in times}


def journal(row: Any) -> View:
    """One journal row."""
    names = ("id", "target_id", "label", "trigger", "refused_by", "actor", "reason", "forced", "run_id", "token")
    view = {n: getattr(row, n) for n in names}
    return view | {"at": iso(row.at), "from": row.from_state, "to": row.to_state, "times": row.times}


def sanitised(html: str, url: str) -> str:
    """Markup without anything that runs, tracks by itself or restyles the page; relative addresses made absolute."""
    if not html:
        return ""
    import nh3  # late: most daemons are asked for their status only

    schemes = {"http", "https", "mailto"}
    if url.startswith(("http://", "https://")):
        try:
            return nh3.clean(html, url_schemes=schemes, url_relative=("rewrite_with_base", url))
        except ValueError:  # no address that a browser would take
            pass
    return nh3.clean(html, url_schemes=schemes)


def found(item: Any, *, source: str, handle: str, name: str) -> View:
    """What a source gave of a post, as POST shows it; `item` is a post, kept or not."""
    return {
        "post_text": item.text or item.title,
        "post_url": item.url,
        "author_name": item.author or name,
        "source_username": handle,
        "source_display_name": name,
        "source_initials": initials(name),
        "published_at": iso(item.published_at),
        "title": item.title,
        "html": sanitised(item.html, item.url),
        "native_id": item.native_id,
        "source": source,
        "kind": item.kind,
        "media": list(item.media),
    }


def post(row: Any) -> View:
    """POST of the older API, and more; `row` is a post joined with its target."""
    name = row.display_name or row.handle
    own = {"id": row.id, "post_number": row.id}
    kept = {
        "target_id": row.target_id,
        "version": row.version,
        "first_seen_at": iso(row.first_seen_at),
        "vanished_at": iso(row.vanished_at),
    }
    return own | found(row, source=row.source, handle=row.handle, name=name) | kept


def _progress(row: Any, name: str | None) -> str:
    done = row.total - row.open
    if row.active:
        who = f"Scraping {name}" if name else "Waiting for a worker or a host"
        return f"{who} ({done} of {row.total} done)"
    if row.state == State.IDLE.value:
        return "Idle"
    word = "Done" if row.state == State.COMPLETED.value else f"Ended as {row.state}"
    return f"{word}: {row.completed} of {row.total} scraped"


def sweep_error(row: Any, first: str | None) -> str | None:
    """Say what went wrong when no member completed."""
    parts = [f"{row.failed} failed"] * bool(row.failed) + [f"{row.timed_out} timed out"] * bool(row.timed_out)
    text = f"{' and '.join(parts) or 'none completed'}, of {row.total}"
    return plain(f"{text}: {first}" if first else text)


def sweep_status(row: Any, live: Live | None, now: float) -> View:
    """STATUS of the older API for a sweep; `live` is the oldest run it waits for."""
    view = empty_status()
    if row is None:
        return view
    name = plain(live.order.target.handle) if live is not None else None
    view |= {
        "running": bool(row.active),
        "state": row.state,
        "progress": _progress(row, name),
        "error": None if row.active else row.error or row.carried,
        "current_user": name,
        "total_users": row.total,
        "completed_users": row.completed,
        "started_at": iso(row.created_at),
        "last_heartbeat": iso(row.ended_at or row.created_at),
        "sweep_id": row.id,
        "failed_users": row.failed,
        "timed_out_users": row.timed_out,
    }
    if live is not None:
        view["last_heartbeat"] = iso(live.beat_at)
        view["last_progress_at"] = iso(live.progress_at)
        view["deadline_at"] = iso(live.deadline_at)
        view["stalled"] = live.overdue(now) == "stalled"
    return view


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
