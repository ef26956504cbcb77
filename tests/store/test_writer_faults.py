"""A store that refuses: full (by a real limit on its pages, and by a real tmpfs in e2e), locked by somebody else."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, text
from sqlalchemy.exc import SQLAlchemyError

from errors import StoreUnavailable
from store import schema as s
from store.engine import in_transaction
from store.writer import Tx
from tests.support.store import T0, needs_sqlite, open_store
from tests.support.waiting import wait_until
from tests.support.writing import Blocker, Room, adds

pytestmark = needs_sqlite
BUSY_S = 0.3


class FaultyRoom(Room):
    """A writer on a database that can be made full and locked."""

    def __init__(self, engine: Engine, path: Path) -> None:
        #: Most pages of the database; a connection taken from now on obeys it.
        self.pages = 1 << 30
        event.listen(engine, "checkout", self._limit)
        self.path = path
        self.other = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5)
        super().__init__(engine)

    def _limit(self, connection: Any, _record: Any, _proxy: Any) -> None:
        connection.execute(f"PRAGMA max_page_count={self.pages}")

    def fill(self) -> None:
        """From now on the database may not grow."""
        self.pages = self.other.execute("PRAGMA page_count").fetchone()[0]

    def lock(self, kind: str = "IMMEDIATE") -> None:
        self.other.execute(f"BEGIN {kind}")

    def unlock(self) -> None:
        self.other.execute("ROLLBACK")


@pytest.fixture
def room(tmp_path: Path) -> Iterator[FaultyRoom]:
    with open_store(tmp_path, busy_timeout_s=BUSY_S) as engine:
        room = FaultyRoom(engine, tmp_path / "gleand.db")
        yield room
        room.other.close()
        room.writer.stop()


def too_much(state: list[bool]) -> Any:
    """An operation that fills the database; notes whether the transaction survived that."""

    def op(tx: Tx) -> None:
        adds("half of it")(tx)
        try:
            tx.conn.execute(
                text("INSERT INTO hosts (host, next_allowed_at, reason) VALUES ('big', 0, zeroblob(1000000))")
            )
        except SQLAlchemyError:
            state.append(in_transaction(tx.conn))
            raise

    return op


def test_a_full_database_inside_a_group_costs_only_what_did_not_fit(room: FaultyRoom) -> None:
    room.writer.run(adds("early"))  # room for a few rows more in its page
    room.fill()
    state: list[bool] = []
    effects: list[str] = []

    def tells(name: str) -> Any:
        def op(tx: Tx) -> str:
            tx.after(lambda: effects.append(name))
            return adds(name)(tx)

        return op

    blocker = Blocker(room.writer)
    first, big, last = (room.writer.submit(op) for op in (tells("a"), too_much(state), tells("b")))
    answered: list[list[str]] = []
    first.add_done_callback(lambda _: answered.append(room.hosts()))
    blocker.go.set()
    assert first.result(5) == "added a" and last.result(5) == "added b"
    with pytest.raises(StoreUnavailable):
        big.result(5)
    assert state and not state[0], "SQLite was expected to undo the whole transaction: the test tests nothing"
    assert room.hosts() == ["a", "b", "early"]
    assert effects == ["a", "b"]  # once each, though they ran twice
    assert set(answered[0]) >= {"a", "early"}


def test_nothing_commits_by_itself_after_the_transaction_is_gone(room: FaultyRoom) -> None:
    room.fill()
    state: list[bool] = []
    published: list[list[str]] = []
    room.look = lambda: published.append(room.hosts())
    blocker = Blocker(room.writer)
    futures = [room.writer.submit(op) for op in (too_much(state), adds("a"), adds("b"))]
    blocker.go.set()
    assert futures[1].result(5) and futures[2].result(5)
    assert published[1:] == [["a"], ["a", "b"]]  # each in a transaction of its own, none in between


def test_an_operation_that_swallows_the_error_and_goes_on_leaves_nothing(room: FaultyRoom) -> None:
    room.fill()

    def swallows(tx: Tx) -> str:
        adds("before")(tx)
        try:
            too_much([])(tx)
        except SQLAlchemyError:
            adds("after")(tx)
        return "done"

    def goes_on(tx: Tx) -> str:
        for host in ("after", "after that"):
            try:
                tx.attempt(lambda: too_much([])(tx))
            except SQLAlchemyError:
                adds(host)(tx)
        return "done"

    for op in (swallows, goes_on):
        assert isinstance(room.writer.submit(op).exception(5), StoreUnavailable)
        assert room.hosts() == []
    assert room.writer.run(adds("next")) == "added next"


def test_a_part_that_fails_undoes_only_itself(room: FaultyRoom) -> None:
    effects: list[str] = []

    def part(tx: Tx) -> None:
        adds("part")(tx)
        tx.after(lambda: effects.append("part"))
        raise LookupError("no")

    def op(tx: Tx) -> str:
        adds("whole")(tx)
        tx.after(lambda: effects.append("whole"))
        with pytest.raises(LookupError):
            tx.attempt(lambda: part(tx))
        return tx.attempt(lambda: adds("other part")(tx))

    assert room.writer.run(op) == "added other part"
    assert room.hosts() == ["other part", "whole"]
    assert effects == ["whole"]


def test_a_locked_database_fails_a_group_at_once(room: FaultyRoom) -> None:
    room.writer.run(adds("early"))
    begins: list[str] = []

    def keep(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("BEGIN"):
            begins.append(statement)

    blocker = Blocker(room.writer, after=room.lock)
    event.listen(room.engine, "before_cursor_execute", keep)
    futures = [room.writer.submit(adds(f"late {n:03}")) for n in range(100)]
    blocker.go.set()
    began = time.monotonic()
    assert all(isinstance(f.exception(10), StoreUnavailable) for f in futures)
    assert time.monotonic() - began < 4 * BUSY_S
    assert len(begins) == 1
    room.unlock()
    assert room.writer.run(adds("again")) == "added again"
    assert room.hosts() == ["again", "early"]


def test_a_lock_that_comes_during_single_retries_fails_the_rest_at_once(room: FaultyRoom) -> None:
    room.writer.run(adds("early"))
    room.fill()

    def locks_others_out(tx: Tx) -> None:
        adds("a")(tx)
        tx.after(room.lock)

    blocker = Blocker(room.writer)
    futures = [room.writer.submit(op) for op in (locks_others_out, too_much([]))]
    futures += [room.writer.submit(adds(f"{n:03}")) for n in range(40)]
    blocker.go.set()
    began = time.monotonic()
    assert futures[0].exception(5) is None
    assert all(isinstance(f.exception(10), StoreUnavailable) for f in futures[1:])
    assert time.monotonic() - began < 4 * BUSY_S
    room.unlock()
    assert room.hosts() == ["a", "early"]


def test_refusals_inside_a_group_that_fails_are_not_answered_as_refusals(room: FaultyRoom) -> None:
    room.fill()

    def says_no(_tx: Tx) -> None:
        raise LookupError("no such thing")

    room.writer.submit(too_much([])).exception(5)
    room.lock()
    with pytest.raises(StoreUnavailable):  # whether it would be refused was never read
        room.writer.run(says_no)
    room.unlock()


def test_effects_of_what_was_not_stored_never_run(room: FaultyRoom) -> None:
    room.lock()
    effects: list[str] = []

    def op(tx: Tx) -> None:
        tx.after(lambda: effects.append("ran"))

    with pytest.raises(StoreUnavailable):
        room.writer.run(op)
    room.unlock()
    room.writer.run(adds("a"))
    assert effects == []
    assert room.said == ["published"]


def test_it_says_why_it_refuses_and_that_it_does_no_more(room: FaultyRoom) -> None:
    room.writer.run(adds("a"))
    assert room.writer.refusing is None
    room.lock()
    assert isinstance(room.writer.submit(adds("b")).exception(5), StoreUnavailable)
    assert room.writer.refusing == "database is locked"
    room.unlock()
    wait_until(lambda: room.writer.refusing is None, within_s=3)  # though nobody asks


def test_a_commit_that_writes_nothing_does_not_prove_that_the_store_writes(room: FaultyRoom) -> None:
    room.writer.run(adds("a"))
    with room.engine.connect() as conn:
        conn.execute(text("SELECT 1"))
    assert isinstance(room.writer.submit(broken).exception(5), StoreUnavailable)
    event.listen(room.engine, "before_cursor_execute", no_tokens, retval=False)
    try:
        assert isinstance(room.writer.submit(lambda _tx: None).exception(5), StoreUnavailable)
        assert room.writer.refusing == "the disk is full"
    finally:
        event.remove(room.engine, "before_cursor_execute", no_tokens)
    assert room.writer.submit(lambda _tx: None).exception(5) is None
    assert room.writer.refusing is None


def broken(_tx: Tx) -> None:
    """As SQLite says it when a disk is full at the commit."""
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    from sqlalchemy.exc import OperationalError

    raise OperationalError("COMMIT", {}, error)


def no_tokens(_conn: Any, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: Any) -> None:
    """Refuse what changes anything."""
    if statement.startswith("UPDATE tokens"):
        raise OSError("the disk is full")


def test_an_idle_writer_finds_out_by_itself_that_the_store_refuses(
    room: FaultyRoom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.writer.PROVE_S", 0.1)
    room.writer.run(adds("a"))
    room.lock()
    wait_until(lambda: room.writer.refusing, within_s=3)
    room.unlock()
    wait_until(lambda: room.writer.refusing is None, within_s=3)


def test_an_error_of_no_known_kind_fails_the_group_and_not_the_thread(room: FaultyRoom) -> None:
    def surprise(*_: Any) -> None:
        raise RuntimeError("a driver with a fault")

    event.listen(room.engine, "checkout", surprise)
    try:
        assert isinstance(room.writer.submit(adds("a")).exception(5), StoreUnavailable)
    finally:
        event.remove(room.engine, "checkout", surprise)
    assert room.writer.run(adds("b")) == "added b"


def test_a_commit_that_fails_leaves_no_transaction_open(room: FaultyRoom) -> None:
    """SQLite keeps the transaction when a COMMIT meets a constraint that was deferred to it."""
    with room.engine.begin() as conn:
        conn.execute(text("CREATE TABLE a (id INTEGER PRIMARY KEY)"))
        conn.execute(text("CREATE TABLE b (a INTEGER REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED)"))

    def dangles(tx: Tx) -> None:
        adds("dangling")(tx)
        tx.conn.execute(text("INSERT INTO b VALUES (1)"))

    blocker = Blocker(room.writer)
    good, bad = room.writer.submit(adds("good")), room.writer.submit(dangles)
    blocker.go.set()
    assert good.result(5) == "added good"
    assert isinstance(bad.exception(5), StoreUnavailable)
    assert room.hosts() == ["good"]
    assert room.writer.run(adds("next")) == "added next"
    assert room.hosts() == ["good", "next"]


def test_an_outage_is_logged_when_it_begins_and_when_it_ends(
    room: FaultyRoom, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="store.writer")
    room.lock()
    for _ in range(4):
        assert isinstance(room.writer.submit(adds("a")).exception(5), StoreUnavailable)
    room.unlock()
    room.writer.run(adds("a"))
    said = [record.getMessage() for record in caplog.records]
    assert said == ['store_refuses size=1 error="database is locked"', "store_writes_again"]


def test_a_stop_during_an_outage_answers_everybody(room: FaultyRoom) -> None:
    room.lock()
    futures = [room.writer.submit(adds(f"{n}")) for n in range(200)]
    room.writer.stop()
    assert all(isinstance(f.exception(0), StoreUnavailable) for f in futures)
    room.unlock()


def test_the_result_of_a_commit_is_known_to_whoever_waits_longer_than_the_lock(room: FaultyRoom) -> None:
    room.lock()
    future = room.writer.submit(
        lambda tx: tx.conn.execute(insert(s.hosts).values(host="a", next_allowed_at=T0, reason=""))
    )
    time.sleep(BUSY_S / 3)  # the lock is held for less than the writer waits for it
    room.unlock()
    assert future.exception(5) is None
    assert room.hosts() == ["a"]
