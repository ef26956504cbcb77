"""Opening a database: a new one, one that is current, one of each release, one that is not ours; and the lock."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex

from errors import StoreUnavailable
from gleand import __version__
from store import schema as s
from store.engine import HEAD, DatabaseHeld, DatabaseUnusable, lock_database, migrate, open_engine, upgrade
from tests.data import make
from tests.support.daemon import ROOT
from tests.support.store import URL, needs_sqlite, open_store
from tests.support.waiting import wait_until

DATA = ROOT / "tests" / "data"
RELEASES = sorted(DATA.glob("gleand-*.db"))


def sqlite_at(path: Path) -> str:
    return f"sqlite:///{path}"


COMPARED = {"compare_type": True, "include_object": lambda *how: without_expressions(*how)}


# -- a new database --------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*expression-based index")
def test_a_new_database_gets_exactly_the_schema_in_the_code(tmp_path: Path) -> None:
    with open_store(tmp_path) as engine, engine.connect() as conn:
        context = MigrationContext.configure(conn, opts=COMPARED | {"compare_server_default": True})
        assert compare_metadata(context, s.metadata) == []
        assert conn.execute(select(s.tokens.c.id, s.tokens.c.last)).all() == [(1, 0)]
        assert context.get_current_revision() == HEAD


def without_expressions(item: Any, name: str | None, kind: str, *_: Any) -> bool:
    """Indexes of expressions are compared as statements, below: alembic cannot read them back."""
    return not (kind == "index" and name in ("targets_due", "targets_requested"))


@needs_sqlite
def test_a_new_database_is_what_all_migrations_would_make(tmp_path: Path) -> None:
    """More than alembic compares: checks, partial indexes, autoincrement; and what is in the tables at first."""
    migrated = open_engine(sqlite_at(tmp_path / "migrated.db"))
    upgrade(migrated)
    migrated.dispose()
    with open_store(tmp_path):
        pass
    assert statements(tmp_path / "gleand.db") == statements(tmp_path / "migrated.db")
    assert rows(tmp_path / "gleand.db") == rows(tmp_path / "migrated.db")


def rows(path: Path) -> dict[str, list[Any]]:
    with sqlite3.connect(path) as db:
        names = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: db.execute(f"SELECT * FROM {name}").fetchall() for name in names}


def statements(path: Path) -> dict[str, str]:
    with sqlite3.connect(path) as db:
        rows = db.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name != 'sqlite_sequence'")
        return {name: " ".join(sql.split()) for name, sql in rows}


def test_the_newest_revision_is_the_one_the_code_names() -> None:
    scripts = ScriptDirectory(str(ROOT / "store" / "migrations"))
    assert scripts.get_heads() == [HEAD]
    revisions = [one.revision for one in scripts.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True)  # "newer" is told by comparing


@needs_sqlite
def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    engine = open_engine(sqlite_at(tmp_path / "gleand.db"))
    pages = [20]

    def limit(raw: Any, *_: Any) -> None:
        raw.execute(f"PRAGMA max_page_count={pages[0]}")

    event.listen(engine, "checkout", limit)
    with pytest.raises(StoreUnavailable, match="full"):
        migrate(engine)
    with engine.connect() as conn:
        assert inspect(conn).get_table_names() == []
    pages[0] = 1 << 30
    migrate(engine)  # and can be done again
    with engine.connect() as conn:
        assert set(inspect(conn).get_table_names()) == {*s.metadata.tables, "alembic_version"}
    engine.dispose()


# -- a database that is there ----------------------------------------------------------------------------------------


@needs_sqlite
def test_a_current_database_is_left_untouched(tmp_path: Path) -> None:
    with open_store(tmp_path):
        pass
    before = (tmp_path / "gleand.db").read_bytes()
    took, _ = migrated_alone(tmp_path / "gleand.db")
    assert took < 0.1
    assert (tmp_path / "gleand.db").read_bytes() == before


@needs_sqlite
def test_neither_alembic_nor_another_dialect_is_loaded_for_a_new_or_a_current_database(tmp_path: Path) -> None:
    assert migrated_alone(tmp_path / "gleand.db")[1] == "[]"
    assert migrated_alone(tmp_path / "gleand.db")[1] == "[]"


def migrated_alone(path: Path) -> tuple[float, str]:
    """Migrate in a process of its own: how long it took, and which modules came that should not."""
    code = (
        "import sys, time; from store.engine import open_engine, migrate\n"
        "engine = open_engine(sys.argv[1]); engine.connect().close(); began = time.perf_counter()\n"
        "migrate(engine); took = time.perf_counter() - began; engine.dispose()\n"
        "print(took, [m for m in sys.modules if m.startswith(('alembic', 'mako', 'sqlalchemy.dialects.p'))])"
    )
    command = [sys.executable, "-c", code, sqlite_at(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    took, loaded = done.stdout.strip().split(" ", 1)
    return float(took), loaded


def test_the_same_indexes_are_partial_in_every_dialect() -> None:
    s.for_postgresql()
    indexes = [index for table in s.metadata.tables.values() for index in table.indexes]
    partial = [
        {index.name for index in indexes if " WHERE " in str(CreateIndex(index).compile(dialect=dialect))}
        for dialect in (sqlite.dialect(), postgresql.dialect())
    ]
    assert partial[0] == partial[1]
    assert "targets_due" in partial[0]


@needs_sqlite
@pytest.mark.parametrize(
    ("version", "words"),
    [("9999", ("9999", "newer gleand", HEAD)), ("ffff", ("ffff", "newer gleand")), ("0000", ("did not make", "0000"))],
)
def test_a_database_with_a_schema_we_do_not_know_is_refused_with_a_sentence(
    tmp_path: Path, version: str, words: tuple[str, ...]
) -> None:
    with open_store(tmp_path) as engine, engine.begin() as conn:
        conn.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{version}'")
    before = statements(tmp_path / "gleand.db")
    engine = open_engine(sqlite_at(tmp_path / "gleand.db"))
    with pytest.raises(DatabaseUnusable) as refused:
        migrate(engine)
    assert all(word in refused.value.message for word in words), refused.value.message
    engine.dispose()
    assert statements(tmp_path / "gleand.db") == before


@needs_sqlite
def test_a_locked_new_database_can_be_tried_again(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "gleand.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    engine = open_engine(sqlite_at(tmp_path / "gleand.db"), busy_timeout_s=0.1)
    with pytest.raises(StoreUnavailable, match="locked"):
        migrate(engine)
    other.execute("ROLLBACK")
    migrate(engine)
    engine.dispose()


@needs_sqlite
def test_a_database_that_cannot_be_opened_for_the_moment_can_be_tried_again(tmp_path: Path) -> None:
    """No inodes and no descriptors look the same to SQLite; here something is in the way of its journal."""
    with open_store(tmp_path):
        pass
    (tmp_path / "gleand.db-wal").mkdir()
    engine = open_engine(sqlite_at(tmp_path / "gleand.db"))
    with pytest.raises(StoreUnavailable, match="unable to open"):
        migrate(engine)
    (tmp_path / "gleand.db-wal").rmdir()
    migrate(engine)
    engine.dispose()


# -- every release ---------------------------------------------------------------------------------------------------


def test_this_release_has_its_database() -> None:
    assert f"gleand-{__version__}.db" in [path.name for path in RELEASES]


@needs_sqlite
@pytest.mark.filterwarnings("ignore:.*expression-based index")
@pytest.mark.parametrize("path", RELEASES, ids=lambda path: path.stem)
def test_the_database_of_a_release_loads_for_ever(tmp_path: Path, path: Path) -> None:
    shutil.copy(path, tmp_path / "gleand.db")
    engine = open_engine(sqlite_at(tmp_path / "gleand.db"))
    migrate(engine)
    with engine.connect() as conn:
        context = MigrationContext.configure(conn, opts=COMPARED)
        assert compare_metadata(context, s.metadata) == []
        for table in s.metadata.sorted_tables:
            rows = conn.execute(select(table)).all()  # every column is read, through its type
            assert rows, f"{path.name} has no row of {table.name}"
        posts = conn.execute(select(s.posts.c.title, s.posts.c.version).order_by(s.posts.c.id)).all()
        assert posts == [("hello from a, edited", 2), ("ünïcødé \N{PILE OF POO}", 1)]
        states = conn.execute(select(s.targets.c.state).order_by(s.targets.c.id)).scalars().all()
        assert sorted(states) == ["COMPLETED", "FAILED", "IDLE", "RUNNING", "TIMEOUT"]
        last = conn.execute(select(s.tokens.c.last)).scalar_one()
        assert last >= max(conn.execute(select(s.targets.c.token)).scalars())
    engine.dispose()


@needs_sqlite
def test_the_database_of_this_release_is_what_its_script_makes(tmp_path: Path) -> None:
    """Run `python -m tests.data.make` after a change of the schema that was not released yet."""
    make.make(tmp_path / "new.db")
    kept = DATA / f"gleand-{__version__}.db"
    assert statements(tmp_path / "new.db") == statements(kept)
    assert kept.stat().st_size < 300_000


# -- the lock --------------------------------------------------------------------------------------------------------


def test_the_lock_is_held_until_it_is_closed(tmp_path: Path) -> None:
    url = sqlite_at(tmp_path / "gleand.db")
    first = lock_database(url)
    assert first is not None
    with pytest.raises(DatabaseHeld, match=f"pid {os.getpid()}"):
        lock_database(url)
    first.close()
    second = lock_database(url)
    assert second is not None
    second.close()


def test_the_lock_is_on_the_file_whatever_it_is_called(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "own")
    (tmp_path / "other.db").symlink_to(tmp_path / "own" / "gleand.db")
    held = lock_database(sqlite_at(tmp_path / "own" / "gleand.db"))
    assert held is not None
    for name in ("link/gleand.db", "own/../own/gleand.db", "other.db"):
        with pytest.raises(DatabaseHeld):
            lock_database(sqlite_at(tmp_path / name))
    held.close()


def test_a_shorter_pid_leaves_nothing_of_a_longer_one(tmp_path: Path) -> None:
    (tmp_path / "gleand.db.lock").write_text("1234567890123\n")
    held = lock_database(sqlite_at(tmp_path / "gleand.db"))
    assert held is not None
    assert (tmp_path / "gleand.db.lock").read_text() == f"{os.getpid()}\n"
    held.close()


def test_the_lock_ends_with_the_process_and_not_with_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; from store.engine import lock_database\n"
        "held = lock_database(sys.argv[1]); child = subprocess.Popen(['sleep', '60'])\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    url = sqlite_at(tmp_path / "gleand.db")
    holder = subprocess.Popen([sys.executable, "-c", code, url], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        with pytest.raises(DatabaseHeld, match=str(holder.pid)):
            lock_database(url)
        holder.kill()
        holder.wait(5)
        held = lock_database(url)
        assert held is not None
        held.close()
    finally:
        os.kill(child, 9)
        holder.stdout.close()


def test_databases_elsewhere_have_no_lock_file() -> None:
    assert lock_database("postgresql+psycopg://somewhere/db") is None


@needs_sqlite
def test_a_slow_migration_of_another_process_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "gleand.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    engine = open_engine(sqlite_at(tmp_path / "gleand.db"), busy_timeout_s=5)
    thread = threading.Thread(target=migrate, args=[engine])
    thread.start()
    time.sleep(0.2)  # it waits for the lock: nothing that could be seen from here
    assert thread.is_alive()
    other.execute("ROLLBACK")
    wait_until(lambda: not thread.is_alive())
    thread.join()
    engine.dispose()


assert URL is None or not URL.startswith("sqlite"), "TEST_DATABASE_URL is for other databases"
