"""A store for tests: a migrated database, SQLite in a file unless TEST_DATABASE_URL names another.

With `TEST_DATABASE_URL=postgresql+psycopg://...` the conformance tests run there, each in a schema of its own; what is
asked of SQLite alone (plans, full disks, locks on files) is skipped.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, insert, select, text
from sqlalchemy.engine import make_url

from store import schema as s
from store.engine import migrate, open_engine

#: An SQLAlchemy URL, or nothing for SQLite in a temporary file.
URL = os.environ.get("TEST_DATABASE_URL")
needs_sqlite = pytest.mark.skipif(URL is not None, reason="a property of SQLite")
T0 = datetime(2026, 3, 1, 12, tzinfo=UTC)
_numbers = itertools.count(1)


def at(seconds: float) -> datetime:
    """T0 and this many seconds."""
    return T0 + timedelta(seconds=seconds)


@contextmanager
def open_store(directory: Path, **how: Any) -> Iterator[Engine]:
    """An engine on a new, migrated database; `how` goes to open_engine."""
    name, url = f"t{next(_numbers)}", URL or f"sqlite:///{directory / 'gleand.db'}"
    if URL is not None:
        admin = open_engine(URL)
        with admin.begin() as conn:
            conn.execute(text(f"DROP SCHEMA IF EXISTS {name} CASCADE"))
            conn.execute(text(f"CREATE SCHEMA {name}"))
        admin.dispose()
        own = make_url(URL).update_query_dict({"options": f"-csearch_path={name}"})
        url = own.render_as_string(hide_password=False)
    engine = open_engine(url, **how)
    try:
        migrate(engine)
        yield engine
    finally:
        engine.dispose()


def add_target(conn: Connection, **values: Any) -> int:
    """A target that waits for nothing; returns its id."""
    n = next(_numbers)
    known = {"source": "feed", "handle": f"h{n}", "url": f"http://a.example/{n}", "host": "", "schedule": "every 15m"}
    stmt = insert(s.targets).values(known | {"added_at": T0} | values).returning(s.targets.c.id)
    return int(conn.execute(stmt).scalar_one())


def row(conn: Connection, target_id: int) -> Any:
    """A row of `targets`."""
    return conn.execute(select(s.targets).where(s.targets.c.id == target_id)).one()
