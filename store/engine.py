"""Opening the database, bringing it to the current schema, and the lock that keeps a second daemon away."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from io import FileIO
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import ExceptionContext, make_url
from sqlalchemy.exc import SQLAlchemyError

from errors import GleandError, StoreUnavailable
from store.schema import create, for_postgresql

log = logging.getLogger(__name__)
#: The newest revision in migrations/versions; a test compares.
HEAD = "0001"
#: As Alembic makes it; a test compares.
_VERSION_TABLE = (
    "CREATE TABLE alembic_version ( version_num VARCHAR(32) NOT NULL,"
    " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num) )"
)
#: Connections kept, and more of them at need: together more than there are threads that read, so that no number of
#: slow readers keeps the writer waiting for one.
KEPT, MORE = 8, 56
#: Result codes of SQLite that no waiting changes.
_HOPELESS = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)


class DatabaseHeld(GleandError):
    """Another daemon has this database open; stop that one, or give this one a directory of its own."""

    code = "database_held"


class DatabaseUnusable(GleandError):
    """The database cannot be used as it is; somebody has to look at it."""

    code = "database_unusable"


def open_engine(url: str, *, busy_timeout_s: float = 2.0) -> Engine:
    """Open the database.

    SQLite: WAL, foreign keys, synchronous FULL (what was announced must survive the loss of power; NORMAL loses
    the last commits), transactions begun by us (the driver's own begin is too late for a read).

    Args:
        url: An SQLAlchemy URL.
        busy_timeout_s: How long a write waits for another process's lock (seconds).
    """
    engine = create_engine(url, pool_size=KEPT, max_overflow=MORE)
    if engine.dialect.name != "sqlite":
        for_postgresql()
        return engine

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:  # Any: the driver's connection
        connection.isolation_level = None
        wait = f"busy_timeout={int(busy_timeout_s * 1000)}"  # first: it holds for the others too
        for pragma in (wait, "journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        mode = "IMMEDIATE" if connection.get_execution_options().get("gleand_writer") else "DEFERRED"
        connection.exec_driver_sql(f"BEGIN {mode}")

    @event.listens_for(engine, "handle_error")
    def forbid(context: ExceptionContext) -> None:
        """When SQLite has undone the whole transaction, as for a full disk, what came next would commit by itself."""
        conn = context.connection
        if conn is not None and conn.in_transaction() and not in_transaction(conn):
            context.is_disconnect, context.invalidate_pool_on_disconnect = True, False

    return engine


def in_transaction(conn: Connection) -> bool:
    """Whether the database still has the transaction that we began; SQLite may undo it by itself."""
    if conn.invalidated:
        return False
    raw = conn.connection.dbapi_connection
    return bool(getattr(raw, "in_transaction", True))


def migrate(engine: Engine) -> None:
    """Bring the schema to HEAD; does nothing where it is there already. Only an older one needs Alembic.

    Raises:
        StoreUnavailable: The database could not be read or changed now.
        DatabaseUnusable: It never will be like this: not ours to open, or made by a newer version.
    """
    try:
        with engine.connect() as conn:
            found = _revision(conn)
        if found is None:
            _create(engine)
        elif found != HEAD:
            upgrade(engine)
    except SQLAlchemyError as exc:
        orig = getattr(exc, "orig", None) or exc
        code, path = getattr(orig, "sqlite_errorcode", 0) & 0xFF, engine.url.database or ""
        if code in _HOPELESS or (code == sqlite3.SQLITE_CANTOPEN and not _may_open(path)):
            raise DatabaseUnusable(f"the database {path} cannot be used: {orig}") from exc
        raise StoreUnavailable(f"the database could not be prepared: {orig}") from exc


def _may_open(path: str) -> bool:
    """Whether only the moment keeps SQLite from opening it (no inodes, no descriptors), and not what is there."""
    there = os.path.isfile(path) and os.access(path, os.R_OK | os.W_OK)
    return (there or not os.path.exists(path)) and os.access(os.path.dirname(path) or ".", os.W_OK | os.X_OK)


def _revision(conn: Connection) -> str | None:
    """Which schema is there; None: none yet. Raises DatabaseUnusable for one that we must not touch."""
    tables = inspect(conn).get_table_names()
    if "alembic_version" not in tables:
        if tables:
            raise DatabaseUnusable("the database holds tables that gleand did not make")
        return None
    found = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if found is not None and str(found) > HEAD:
        raise DatabaseUnusable(f"the database has schema {found}, made by a newer gleand; this one knows {HEAD}")
    return str(found or "")


def _create(engine: Engine) -> None:
    """The whole schema at once, as every migration would make it: a new database needs no Alembic (10 MB, 70 ms)."""
    with engine.execution_options(gleand_writer=True).begin() as conn:
        create(conn)
        conn.execute(text(_VERSION_TABLE))
        conn.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})


def upgrade(engine: Engine) -> None:
    """Bring an older schema to HEAD, in one transaction. Raises DatabaseUnusable: one that we do not know."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells every plug-in it has
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.execution_options(gleand_writer=True).begin() as conn:
        config.attributes["connection"] = conn
        try:
            command.upgrade(config, "head")
        except CommandError as exc:
            raise DatabaseUnusable(f"the database has a schema that gleand did not make: {exc}") from exc


def lock_database(url: str) -> FileIO | None:
    """Hold the database for this process until the returned file is closed (or the process ends).

    The lock file lies beside the real path of the SQLite file, so that two data directories that lead to one
    database meet. Not for other databases yet: None.

    Raises:
        DatabaseHeld: Somebody else holds it.
        DatabaseUnusable: The lock file cannot be opened, and so neither could the database.
    """
    path = make_url(url).database
    if not url.startswith("sqlite") or not path or path == ":memory:":
        return None
    real = os.path.realpath(path)
    try:
        handle = open(f"{real}.lock", "ab+", buffering=0)  # noqa: SIM115 - held for the life of the process
    except OSError as exc:
        raise DatabaseUnusable(f"the database {real} cannot be used: its lock file: {exc.strerror}") from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        handle.seek(0)
        holder = handle.read(32).decode("ascii", "replace").strip() or "unknown"
        handle.close()
        raise DatabaseHeld(f"the database {real} is held by the gleand with pid {holder}") from exc
    try:
        handle.truncate(0)
        handle.write(b"%d\n" % os.getpid())
    except OSError as exc:  # a full disk: the lock holds all the same, only its holder has no name
        log.warning('lock_not_signed error="%s"', exc.strerror)
    return handle
