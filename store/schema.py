"""Tables. A change here comes with a numbered migration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    case,
    false,
    insert,
    text,
)


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC datetime, stored as seconds since 1970 so that it compares and indexes the same everywhere."""

    impl = Float
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> float | None:
        """To the database."""
        return None if value is None else value.timestamp()

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:  # Any: the driver's type
        """From the database."""
        return None if value is None else datetime.fromtimestamp(float(value), UTC)


def _partial(name: str, *columns: Any, where: str, postgresql: str | None = None, unique: bool = False) -> None:
    """An index of the rows that match; `postgresql`: where it says that in another way. Any: columns."""
    Index(name, *columns, unique=unique, sqlite_where=text(where), info={_WHERE: postgresql or where})


def for_postgresql() -> None:
    """Tell PostgreSQL's dialect which indexes are partial. Not said in the tables: naming a dialect loads it (2 MB)."""
    for table in metadata.tables.values():
        for index in table.indexes:
            if _WHERE in index.info:
                index.dialect_kwargs["postgresql_where"] = text(index.info[_WHERE])


def create(conn: Connection) -> None:
    """Make every table, in the caller's transaction."""
    metadata.create_all(conn)
    conn.execute(insert(tokens).values(id=1, last=0))


metadata = MetaData()
_WHERE = "postgresql_where"
_STATES = "('IDLE', 'RUNNING', 'COMPLETED', 'FAILED', 'TIMEOUT')"

targets = Table(
    "targets",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("source", String(64), nullable=False),
    Column("handle", String(2048), nullable=False),
    Column("url", String(2048), nullable=False),
    Column("host", String(300), nullable=False),
    Column("display_name", String(300)),
    Column("schedule", String(200), nullable=False),
    Column("timeout_s", Float),
    Column("range", Integer),
    Column("state", String(16), nullable=False, server_default="IDLE"),
    Column("token", Integer, nullable=False, server_default="0"),
    Column("run_id", Integer),
    Column("boot_id", Integer),
    Column("requested_at", UtcTime),
    #: 0: asked for by itself, 1: by a refresh-all.
    Column("request_rank", Integer, nullable=False, server_default="0"),
    #: An operator's force waives the guard `not_paused` at the claim.
    Column("request_forced", Boolean, nullable=False, server_default=false()),
    Column("due_at", UtcTime),
    #: The claim passes it over until then: its host had enough to do, or it was paused.
    Column("deferred_until", UtcTime),
    Column("paused_until", UtcTime),
    Column("started_at", UtcTime),
    Column("deadline_at", UtcTime),
    Column("last_heartbeat", UtcTime),
    Column("last_progress_at", UtcTime),
    Column("progress", String(300)),
    Column("error", Text),
    Column("reason", Text),
    #: Whether a client asked for the run in progress (a scheduled one may be joined).
    Column("asked", Boolean, nullable=False, server_default=false()),
    #: Failures in a row.
    Column("attempt", Integer, nullable=False, server_default="0"),
    #: Interruptions in a row.
    Column("interrupted", Integer, nullable=False, server_default="0"),
    Column("remember", JSON),
    #: Until then its site has nothing new.
    Column("fresh_until", UtcTime),
    #: Where its address led by permanent redirects the last times, and how many times in a row.
    Column("moved_to", String(2048)),
    Column("moved_times", Integer, nullable=False, server_default="0"),
    #: Why it was paused by itself; None: an operator paused it, or nobody.
    Column("paused_why", String(300)),
    Column("added_at", UtcTime, nullable=False),
    Column("last_scraped", UtcTime),
    Column("post_count", Integer, nullable=False, server_default="0"),
    UniqueConstraint("source", "handle"),
    CheckConstraint(f"state IN {_STATES}", name="targets_state"),
    sqlite_autoincrement=True,
)
#: When the claim looks at a target next.
TURN = case((targets.c.deferred_until > targets.c.due_at, targets.c.deferred_until), else_=targets.c.due_at)
ASKED_TURN = case(
    (targets.c.deferred_until > targets.c.requested_at, targets.c.deferred_until), else_=targets.c.requested_at
)
_partial("targets_due", TURN, where="due_at IS NOT NULL")
_partial("targets_requested", targets.c.request_rank, ASKED_TURN, where="requested_at IS NOT NULL")
_partial("targets_running", targets.c.state, where="state = 'RUNNING'")

runs = Table(
    "runs",
    metadata,
    #: The token it started with: one sequence for both, never reused.
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("target_id", Integer, nullable=False),
    Column("token", Integer, nullable=False),
    Column("boot_id", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("deadline_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("duration_s", Float),
    Column("error", Text),
    Column("reason", Text),
    Column("posts_seen", Integer, nullable=False, server_default="0"),
    Column("posts_new", Integer, nullable=False, server_default="0"),
    Column("posts_edited", Integer, nullable=False, server_default="0"),
    Column("truncated", Boolean, nullable=False, server_default=false()),
    #: Nothing of it was known before, though posts were: some between may have been missed.
    Column("gap", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("target_id", "token"),
    CheckConstraint(f"state IN {_STATES}", name="runs_state"),
)
Index("runs_ended", runs.c.ended_at)

sweeps = Table(
    "sweeps",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("error", Text),
    #: What went wrong in a sweep that ended while this one was active.
    Column("carried", Text),
    #: Members in all, members that are not done, and outcomes; the rest were removed, reset or paused (counts).
    Column("total", Integer, nullable=False),
    Column("open", Integer, nullable=False),
    Column("completed", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("timed_out", Integer, nullable=False, server_default="0"),
    CheckConstraint(f"state IN {_STATES}", name="sweeps_state"),
    sqlite_autoincrement=True,
)
_partial("sweeps_one_refresh", sweeps.c.kind, unique=True, where="active AND kind = 'refresh'")
# as the dialects write `WHERE sweeps.active`, or the index is passed over
_partial("sweeps_active", sweeps.c.active, where="active = 1", postgresql="active")
Index("sweeps_ended", sweeps.c.ended_at)

sweep_members = Table(
    "sweep_members",
    metadata,
    Column("sweep_id", Integer, primary_key=True),
    Column("target_id", Integer, primary_key=True),
    Column("outcome", String(16)),
    Column("error", Text),
)
_partial("sweep_members_open", sweep_members.c.target_id, where="outcome IS NULL")

journal = Table(
    "journal",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("target_id", Integer, nullable=False),
    Column("label", String(2200), nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("trigger", String(16), nullable=False),
    Column("from_state", String(16), nullable=False),
    Column("to_state", String(16)),
    Column("refused_by", String(32)),
    Column("actor", String(64), nullable=False),
    Column("reason", Text),
    Column("forced", Boolean, nullable=False, server_default=false()),
    Column("run_id", Integer),
    Column("token", Integer),
    #: How many times the same refusal came within its minute.
    Column("times", Integer, nullable=False, server_default="1"),
    sqlite_autoincrement=True,
)
Index("journal_target", journal.c.target_id, journal.c.id)
Index("journal_at", journal.c.at)
#: For folding the same refusals of a minute into one row.
_partial("journal_refused", journal.c.target_id, journal.c.at, where="refused_by IS NOT NULL")

posts = Table(
    "posts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("target_id", Integer, nullable=False),
    Column("native_id", String(2048), nullable=False),
    Column("url", Text, nullable=False),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("html", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("published_at", UtcTime),
    Column("kind", String(16), nullable=False),
    Column("media", JSON, nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("first_seen_at", UtcTime, nullable=False),
    Column("last_seen_at", UtcTime, nullable=False),
    #: Since when its source does not show it any more, though it should.
    Column("vanished_at", UtcTime),
    UniqueConstraint("target_id", "native_id"),
    sqlite_autoincrement=True,
)
Index("posts_seen", posts.c.first_seen_at)
Index("posts_window", posts.c.target_id, posts.c.published_at)

post_versions = Table(
    "post_versions",
    metadata,
    Column("post_id", Integer, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("title", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("html", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("replaced_at", UtcTime, nullable=False),
)

hosts = Table(
    "hosts",
    metadata,
    Column("host", String(300), primary_key=True),
    Column("next_allowed_at", UtcTime, nullable=False),
    Column("reason", String(200), nullable=False),
    #: Least time between two requests that its robots.txt asks for (seconds).
    Column("crawl_delay_s", Float, nullable=False, server_default="0"),
    #: Its robots.txt, as it was read then.
    Column("robots_status", Integer),
    Column("robots_text", Text),
    Column("robots_at", UtcTime),
)
Index("hosts_blocked", hosts.c.next_allowed_at)

boots = Table(
    "boots",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    sqlite_autoincrement=True,
)

#: One row: the last token given out in this database.
tokens = Table("tokens", metadata, Column("id", Integer, primary_key=True), Column("last", Integer, nullable=False))
