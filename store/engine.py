"""Opening the database, bringing it to the current schema, and the lock that keeps a second daemon away."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any, TextIO

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from errors import GleandError, StoreUnavailable

#: The newest revision in migrations/versions; a test compares.
HEAD = "0001"


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
    engine = create_engine(url)
    if engine.dialect.name != "sqlite":
        return engine

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:  # Any: the driver's connection
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", "synchronous=FULL"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA busy_timeout={int(busy_timeout_s * 1000)}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        mode = "IMMEDIATE" if connection.get_execution_options().get("gleand_writer") else "DEFERRED"
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


def migrate(engine: Engine) -> None:
    """Bring the schema to HEAD; does nothing, and imports nothing, where it is there already.

    Raises:
        StoreUnavailable: The database could not be read or changed now.
        DatabaseUnusable: It never will be like this: not ours to open, or made by a newer version.
    """
    try:
        with engine.connect() as conn:
            if inspect(conn).has_table("alembic_version"):
                found = conn.execute(text("SELECT version_num FROM alembic_version")).scalar()
                if found == HEAD:
                    return
                if found is not None and str(found) > HEAD:
                    raise DatabaseUnusable(
                        f"the database has schema {found}, made by a newer gleand; this one knows {HEAD}"
                    )
        from alembic import command
        from alembic.config import Config

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with engine.execution_options(gleand_writer=True).begin() as conn:
            config.attributes["connection"] = conn
            command.upgrade(config, "head")
    except SQLAlchemyError as exc:
        why = str(getattr(exc, "orig", exc))
        if any(word in why for word in ("unable to open", "readonly", "not a database", "malformed")):
            raise DatabaseUnusable(f"the database cannot be used: {why}") from exc
        raise StoreUnavailable(f"the database could not be prepared: {why}") from exc


def lock_database(url: str) -> TextIO | None:
    """Hold the database for this process until the returned file is closed (or the process ends).

    The lock file lies beside the real path of the SQLite file, so that two data directories that lead to one
    database meet. Not for other databases yet: None.

    Raises:
        DatabaseHeld: Somebody else holds it.
    """
    path = make_url(url).database
    if not url.startswith("sqlite") or not path or path == ":memory:":
        return None
    real = os.path.realpath(path)
    handle = open(f"{real}.lock", "a+", encoding="utf-8")  # noqa: SIM115 - held for the life of the process
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        handle.seek(0)
        holder = handle.read().strip() or "unknown"
        handle.close()
        raise DatabaseHeld(f"the database {real} is held by the gleand with pid {holder}") from exc
    handle.seek(0)
    handle.truncate()
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle
