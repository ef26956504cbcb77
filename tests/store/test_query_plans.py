"""What is asked every second costs what is due, never what exists: 100,000 idle targets, finished runs, old sweeps.

Cost is counted in instructions of SQLite's virtual machine, so that a busy computer does not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from errors import Refused
from fsm.states import Trigger
from store import queries
from store.writer import Tx
from tests.support.fake_pool import House
from tests.support.store import at, needs_sqlite, open_store

pytestmark = needs_sqlite
IDLE = 100_000
#: Of other kinds, each; and ended sweeps of this many members.
SOME, MEMBERS = 20, 1000


@dataclass(slots=True)
class Cost:
    """Of what ran in the block."""

    steps: int = 0
    plan: list[str] = field(default_factory=list)


@contextmanager
def measured(conn: Connection) -> Iterator[Cost]:
    """Count instructions, and keep the plan of each statement."""
    cost, raw = Cost(), conn.connection.dbapi_connection
    seen: list[tuple[str, Any]] = []

    def keep(_conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        seen.append((statement, parameters[0] if many else parameters))

    def step() -> int:
        cost.steps += 1
        return 0

    assert raw is not None
    event.listen(conn, "before_cursor_execute", keep)
    raw.set_progress_handler(step, 1)
    try:
        yield cost
    finally:
        raw.set_progress_handler(None, 1)
        event.remove(conn, "before_cursor_execute", keep)
    for statement, parameters in seen:
        cost.plan += [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]


def fill(conn: Connection, idle: int) -> None:
    """Idle targets with a finished run each, ended sweeps, and a few targets that are due, asked for, running."""
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :last)"
    numbers = {"last": idle, "soon": at(3600).timestamp(), "now": at(0).timestamp()}
    conn.execute(
        text(
            f"INSERT INTO targets (source, handle, url, host, schedule, state, token, due_at, added_at) {many} "
            "SELECT 'feed', 'h' || i, 'u', 'host' || (i % 1000), 'every 1h', 'COMPLETED', i, :soon + i, :now FROM n"
        ),
        numbers,
    )
    conn.execute(
        text(
            f"INSERT INTO runs (id, target_id, token, boot_id, state, started_at, deadline_at, ended_at) {many} "
            "SELECT i, i, i, 1, 'COMPLETED', :now - i, :now, :now - i FROM n"
        ),
        numbers,
    )
    conn.execute(
        text(
            f"INSERT INTO sweeps (kind, state, active, created_at, ended_at, total, open) {many} "
            "SELECT 'refresh', 'COMPLETED', 0, :now - i, :now - i, 1, 0 FROM n"
        ),
        numbers | {"last": idle // 1000},
    )
    conn.execute(
        text(
            f"INSERT INTO sweep_members (sweep_id, target_id, outcome) {many} "
            "SELECT w.id, n.i, 'COMPLETED' FROM n, sweeps w"
        ),
        numbers | {"last": MEMBERS},
    )
    conn.execute(
        text(
            f"INSERT INTO hosts (host, next_allowed_at, reason) {many} "
            "SELECT 'host' || i, :now + CASE WHEN i <= 5 THEN 60 ELSE -60 END, 'test' FROM n"
        ),
        numbers | {"last": 1000},
    )
    for kind, columns in (
        ("due", "due_at = :now - id"),
        ("asked", "requested_at = :now, due_at = NULL"),
        ("running", "state = 'RUNNING', due_at = NULL, deadline_at = :now"),
    ):
        first = {"due": 1, "asked": 101, "running": 201}[kind]
        ids = {"now": numbers["now"], "first": first, "last": first + SOME - 1}
        conn.execute(text(f"UPDATE targets SET {columns} WHERE id BETWEEN :first AND :last"), ids)
    conn.execute(
        text("INSERT INTO sweeps (kind, state, active, created_at, total, open) VALUES ('add', 'RUNNING', 1, 0, 1, 1)")
    )
    conn.execute(text("INSERT INTO sweep_members (sweep_id, target_id) SELECT max(id), 201 FROM sweeps"))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Engine]]:
    """One with few idle targets, one with many."""
    opened = []
    with open_store(tmp_path_factory.mktemp("few")) as few, open_store(tmp_path_factory.mktemp("many")) as many:
        for engine, idle in ((few, 1000), (many, IDLE)):
            with engine.begin() as conn:
                fill(conn, idle)
            opened.append(engine)
        yield opened


def costs(stores: list[Engine], ask: Callable[[Connection], object]) -> tuple[Cost, Cost]:
    found = []
    for engine in stores:
        with engine.connect() as conn:
            ask(conn)  # compiled, and the schema read
            with measured(conn) as cost:
                ask(conn)
            found.append(cost)
    return found[0], found[1]


def due(conn: Connection, limit: int = 100) -> list[int]:
    return [row.id for row in queries.waiting(conn, now=at(0), skip={3}, limit=limit)]


ASKED_OFTEN: dict[str, Callable[[Connection], object]] = {
    "due": due,
    "hosts asked lately": lambda conn: conn.execute(queries.LAST_ENDED, {"b_since": at(-5)}).all(),
    "robots.txt": lambda conn: conn.execute(queries.ROBOTS_OF, {"b_hosts": ["host7", "host8"]}).all(),
    "next due": lambda conn: conn.execute(queries.NEXT_DUE).scalar(),
    "running": lambda conn: conn.execute(queries.RUNNING).all(),
    "one target": lambda conn: conn.execute(queries.TARGET, {"b_id": 500}).all(),
    "last run of a target": lambda conn: conn.execute(queries.LAST_RUN_OF, {"b_id": 500}).all(),
    "last run": lambda conn: conn.execute(queries.LAST_RUN).all(),
    "active sweeps": lambda conn: conn.execute(queries.ACTIVE_SWEEPS).all(),
    "last sweep": lambda conn: conn.execute(queries.LAST_SWEEP).all(),
    "sweeps of targets": lambda conn: conn.execute(queries.SWEEPS_OF, {"b_ids": [1, 2, 201]}).all(),
}


@pytest.mark.parametrize("name", list(ASKED_OFTEN))
def test_what_is_asked_often_does_not_scan_and_costs_the_same_among_many(stores: list[Engine], name: str) -> None:
    few, many = costs(stores, ASKED_OFTEN[name])
    scans = [line for line in many.plan if line.startswith("SCAN") and "USING" not in line and " anon" not in line]
    assert not scans, many.plan
    assert many.steps <= 2 * few.steps + 100, (few, many)


def test_the_answers_are_right_too(stores: list[Engine]) -> None:
    for engine in stores:
        with engine.connect() as conn:
            late = [n for n in range(20, 0, -1) if n != 3]
            assert due(conn) == [*range(101, 121), *late]
            assert [row.id for row in conn.execute(queries.RUNNING)] == list(range(201, 221))
            assert conn.execute(queries.NEXT_DUE).scalar() == at(-20)
            assert [row.target_id for row in conn.execute(queries.SWEEPS_OF, {"b_ids": [1, 201]})] == [201]


@pytest.mark.parametrize("limit", [1, 5])
def test_fewer_wanted_cost_less(stores: list[Engine], limit: int) -> None:
    _, all_ = costs(stores, due)
    _, some = costs(stores, lambda conn: due(conn, limit))
    assert some.steps < all_.steps / 2


def test_folding_a_refusal_does_not_read_the_whole_journal_of_a_target(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        target = house.track("good:a")
        many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)"
        costs: list[int] = []

        def refuse(tx: Tx) -> None:
            row = house.core.row(tx, target)
            refusal = Refused("no", refused_by="not_queued")
            house.core.refuse(tx, row, Trigger.START, refusal, actor="api")
            with measured(tx.conn) as cost:
                house.core.refuse(tx, row, Trigger.START, refusal, actor="api")
            costs.append(cost.steps)

        house.writer.run(refuse)
        columns = "target_id, label, at, trigger, from_state, to_state, actor"
        story = (
            f"INSERT INTO journal ({columns}) {many} SELECT {target}, 'x', i, 'start', 'IDLE', 'RUNNING', 'x' FROM n"
        )
        house.writer.run(lambda tx: tx.conn.execute(text(story)))
        house.writer.run(refuse)
        assert costs[1] < costs[0] + 100
        with house.engine.connect() as conn:
            assert conn.execute(text("SELECT times FROM journal WHERE refused_by IS NOT NULL")).scalars().all() == [4]


def test_one_step_of_one_target_costs_the_same_among_many(stores: list[Engine]) -> None:
    def step(conn: Connection) -> None:
        values = {"b_id": 999, "b_state": "COMPLETED", "b_token": 999, "state": "RUNNING"}
        assert conn.execute(queries.STEP, values).rowcount == 1
        conn.rollback()

    few, many = costs(stores, step)
    assert many.steps <= 2 * few.steps
    assert not [line for line in many.plan if line.startswith("SCAN")]
