"""Events: the ring, and what the journal gives to those who follow it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, delete, event, insert

from errors import StoreUnavailable
from jobs import views
from jobs.events import Event, Ring
from jobs.reading import Reading
from store import schema as s
from tests.support.store import T0, open_store


def some(*ids: int, size: int = 2) -> list[Event]:
    return [Event(id=n, name="transition", data=b"x" * size) for n in ids]


def ids(events: list[Event] | None) -> list[int] | None:
    return None if events is None else [one.id for one in events]


# -- the ring --------------------------------------------------------------------------------------------------------


def test_a_ring_gives_what_comes_after_an_id_oldest_first_and_no_more_than_asked() -> None:
    ring = Ring(start=10)
    ring.add(some(11, 12, 15))
    ring.add(some(16))
    assert ids(ring.after(10, 9)) == [11, 12, 15, 16]
    assert ids(ring.after(12, 9)) == [15, 16]
    assert ids(ring.after(13, 1)) == [15]
    assert ids(ring.after(16, 9)) == []
    assert ids(ring.after(99, 9)) == []
    assert ring.last == 16


def test_a_ring_says_when_it_does_not_reach_back_that_far() -> None:
    ring = Ring(start=10, most=3)
    assert ring.after(9, 9) is None
    ring.add(some(11, 12, 13, 14, 15))
    assert ring.after(11, 9) is None
    assert ids(ring.after(12, 9)) == [13, 14, 15]


def test_a_ring_is_bounded_in_bytes_too_and_may_end_up_empty() -> None:
    ring = Ring(start=0, most_bytes=100)
    ring.add(some(1, 2, 3, size=40))
    assert ids(ring.after(1, 9)) == [2, 3]
    ring.add(some(4, size=101))
    assert ring.after(3, 9) is None
    assert ids(ring.after(4, 9)) == []


# -- the journal -----------------------------------------------------------------------------------------------------


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with open_store(tmp_path) as it:
        yield it


@pytest.fixture
def reading(engine: Engine) -> Reading:
    core: Any = SimpleNamespace(engine=engine, ready=True, board=None)
    return Reading(core)


def journal(engine: Engine, count: int = 1, **values: Any) -> None:
    row = {"target_id": 7, "label": "feed:a", "at": T0, "trigger": "start", "from_state": "IDLE", "actor": "api"}
    with engine.begin() as conn:
        for _ in range(count):
            conn.execute(insert(s.journal).values(row | {"to_state": "RUNNING"} | values))


def test_an_event_is_the_journal_entry_as_clients_see_it(engine: Engine, reading: Reading) -> None:
    journal(engine, reason="caf\u00e9\n\u2028 \U0001f600")
    journal(engine, to_state=None, refused_by="not_paused")
    (first, second), newest = reading.events(after=0, limit=9)
    assert (first.id, first.name, second.id, second.name, newest) == (1, "transition", 2, "refusal", 2)
    told = json.loads(first.data)
    with engine.connect() as conn:
        assert told == views.journal(conn.execute(s.journal.select().where(s.journal.c.id == 1)).one())
    assert (told["from"], told["to"], told["reason"]) == ("IDLE", "RUNNING", "caf\u00e9\n\u2028 \U0001f600")
    assert b"\n" not in first.data and first.data.isascii()


def test_events_come_in_pages_after_an_id(engine: Engine, reading: Reading) -> None:
    journal(engine, 5)
    assert ids(reading.events(after=0, limit=2)[0]) == [1, 2]
    assert ids(reading.events(after=2, limit=9)[0]) == [3, 4, 5]
    assert reading.events(after=5, limit=9) == ([], 5)
    assert reading.events(after=None, limit=9) == ([], 5)


def test_an_id_that_is_yet_to_come_gives_the_newest_there_is(engine: Engine, reading: Reading) -> None:
    assert reading.events(after=40, limit=9) == ([], 0)
    journal(engine)
    assert reading.events(after=40, limit=9) == ([], 1)


def test_ids_go_on_after_the_journal_was_cleared(engine: Engine, reading: Reading) -> None:
    journal(engine, 3)
    with engine.begin() as conn:
        conn.execute(delete(s.journal))
    assert reading.events(after=3, limit=9) == ([], 0)
    journal(engine)
    assert ids(reading.events(after=3, limit=9)[0]) == [4]


def test_reading_events_uses_the_index_and_reads_nothing_when_there_is_nothing(
    engine: Engine, reading: Reading
) -> None:
    journal(engine, 3)
    seen: list[tuple[str, Any]] = []

    def note(_c: Any, _u: Any, statement: str, values: Any, *_: Any) -> None:
        if statement.startswith("SELECT"):
            seen.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    reading.events(after=3, limit=9)
    assert len(seen) == 1
    reading.events(after=2, limit=9)
    assert len(seen) == 3
    if engine.dialect.name == "sqlite":
        with engine.connect() as conn:
            plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {seen[-1][0]}", seen[-1][1]).all()
        assert "SEARCH journal USING INTEGER PRIMARY KEY" in plan[0][-1]


def test_events_of_a_store_that_is_not_ready_are_refused(engine: Engine, reading: Reading) -> None:
    reading._core.ready = False
    with pytest.raises(StoreUnavailable):
        reading.events(after=0, limit=1)
