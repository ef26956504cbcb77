"""Conformance of the statements: what each database that gleand runs on must do. See tests/support/store.py."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from store import queries
from store import schema as s
from tests.support.store import add_target, at, needs_sqlite, open_store, row


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with open_store(tmp_path_factory.mktemp("store")) as engine:
        yield engine


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    """A transaction that is rolled back: tests do not meet."""
    with engine.connect() as conn:
        yield conn
        conn.rollback()


def due(conn: Connection, **how: Any) -> list[int]:
    given = {"now": at(0), "skip": set(), "limit": 100} | how
    return [one.id for one in queries.waiting(conn, **given)]


def block(conn: Connection, host: str, seconds: float, reason: str = "test") -> None:
    queries.block_host(conn, host, until=at(seconds), reason=reason)


# -- what may be claimed, and in which order -------------------------------------------------------------------------


def test_asked_goes_before_a_refresh_before_the_schedule_and_older_before_newer(conn: Connection) -> None:
    late = add_target(conn, due_at=at(-10))
    later = add_target(conn, due_at=at(-20))
    swept = add_target(conn, requested_at=at(-90), request_rank=1)
    swept_later = add_target(conn, requested_at=at(-80), request_rank=1, due_at=at(-99))
    asked = add_target(conn, requested_at=at(-1))
    asked_before = add_target(conn, requested_at=at(-2))
    assert due(conn) == [asked_before, asked, swept, swept_later, later, late]


def test_those_asked_for_in_the_same_instant_go_in_the_order_of_their_ids(conn: Connection) -> None:
    ids = [add_target(conn, requested_at=at(0), request_rank=1) for _ in range(5)]
    assert due(conn) == ids


def test_a_target_that_is_asked_for_and_due_comes_once(conn: Connection) -> None:
    both = add_target(conn, requested_at=at(-1), due_at=at(-1))
    assert due(conn) == [both]


def test_what_is_due_now_is_due_and_what_is_due_later_is_not(conn: Connection) -> None:
    now = add_target(conn, due_at=at(0))
    add_target(conn, due_at=at(0.001))
    add_target(conn)
    assert due(conn) == [now]


def test_the_limit_counts_each_kind(conn: Connection) -> None:
    asked = [add_target(conn, requested_at=at(-9 + n)) for n in range(3)]
    late = [add_target(conn, due_at=at(-9 + n)) for n in range(3)]
    assert due(conn, limit=2) == asked[:2] + late[:2]


@pytest.mark.parametrize("how", [{"requested_at": at(-1)}, {"due_at": at(-1)}])
def test_what_is_to_be_skipped_is_left_out(conn: Connection, how: dict[str, Any]) -> None:
    may, skipped = add_target(conn, **how), add_target(conn, **how)
    assert due(conn, skip={skipped, 999_999}) == [may]


@pytest.mark.parametrize("how", [{"requested_at": at(-1)}, {"due_at": at(-1)}])
def test_what_is_deferred_comes_at_its_time_and_in_that_order(conn: Connection, how: dict[str, Any]) -> None:
    first, second = add_target(conn, **how), add_target(conn, **how)
    conn.execute(queries.DEFER, [{"b_id": first, "b_until": at(10)}, {"b_id": second, "b_until": at(5)}])
    assert [due(conn, now=at(t)) for t in (4.9, 5, 10)] == [[], [second], [second, first]]


def test_a_deferral_that_is_over_does_not_bring_anything_forward(conn: Connection) -> None:
    target = add_target(conn, due_at=at(5))
    conn.execute(queries.DEFER, {"b_id": target, "b_until": at(-10)})
    assert [due(conn, now=at(t)) for t in (0, 5)] == [[], [target]]


def test_what_waits_says_what_the_claim_looks_at(conn: Connection) -> None:
    add_target(conn, requested_at=at(-1), request_forced=True, paused_until=at(9), host="a.example")
    (one,) = queries.waiting(conn, now=at(0), skip=[], limit=1)
    assert (one.host, one.lane, one.paused_until, one.request_forced) == ("a.example", 0, at(9), True)


def test_ten_thousand_to_skip_fit_into_one_statement(conn: Connection) -> None:
    target = add_target(conn, due_at=at(-1))
    assert due(conn, skip=set(range(10**6, 10**6 + 10_000))) == [target]


def test_the_next_due_is_the_least(conn: Connection) -> None:
    assert conn.execute(queries.NEXT_DUE).scalar() is None
    for seconds in (30, 10, 20):
        add_target(conn, due_at=at(seconds))
    add_target(conn)
    assert conn.execute(queries.NEXT_DUE).scalar() == at(10)


# -- steps -----------------------------------------------------------------------------------------------------------


def test_the_first_closer_wins_and_the_second_is_told(conn: Connection) -> None:
    target = add_target(conn, state="RUNNING", token=7)
    seen = row(conn, target)
    assert queries.step(conn, [seen], [{"state": "TIMEOUT", "token": 8}])
    assert not queries.step(conn, [seen], [{"state": "COMPLETED", "token": 8}])
    assert (row(conn, target).state, row(conn, target).token) == ("TIMEOUT", 8)


@pytest.mark.parametrize("seen", [{"state": "IDLE"}, {"token": 6}, {"id": 10**9}])
def test_a_step_is_conditional_on_id_state_and_token(conn: Connection, seen: dict[str, Any]) -> None:
    target = add_target(conn, state="RUNNING", token=7)
    values = {"b_id": target, "b_state": "RUNNING", "b_token": 7} | {f"b_{k}": v for k, v in seen.items()}
    assert conn.execute(queries.STEP, values | {"state": "FAILED"}).rowcount == 0
    assert row(conn, target).state == "RUNNING"


def test_a_batch_of_steps_says_when_one_of_them_was_too_late(conn: Connection) -> None:
    rows = [row(conn, add_target(conn, due_at=at(-n))) for n in range(5)]
    values = [{"state": "RUNNING", "token": 100 + n} for n in range(5)]
    conn.execute(update(s.targets).where(s.targets.c.id == rows[3].id).values(token=99))
    assert not queries.step(conn, rows, values)


def test_a_batch_of_steps_gives_each_its_own_values(conn: Connection) -> None:
    rows = [row(conn, add_target(conn)) for _ in range(5)]
    assert queries.step(conn, rows, [{"state": "RUNNING", "token": 100 + n} for n in range(5)])
    assert [row(conn, one.id).token for one in rows] == [100, 101, 102, 103, 104]


def test_tokens_only_grow_and_are_given_once(conn: Connection) -> None:
    first = queries.take_tokens(conn, 3)
    assert queries.take_tokens(conn, 1) == first + 3
    assert queries.take_tokens(conn, 10) == first + 4
    assert queries.take_tokens(conn, 1) == first + 14


def test_tokens_that_were_rolled_back_were_given_to_nobody(engine: Engine) -> None:
    with engine.begin() as conn:
        first = queries.take_tokens(conn, 5)
    with engine.connect() as conn:
        queries.take_tokens(conn, 5)
        conn.rollback()
    with engine.begin() as conn:
        assert queries.take_tokens(conn, 1) == first + 5


def test_tokens_taken_at_once_never_meet(engine: Engine) -> None:
    taken: list[int] = []
    writing = engine.execution_options(gleand_writer=True)

    def take() -> None:
        for _ in range(20):
            with writing.begin() as conn:
                taken.append(queries.take_tokens(conn, 2))

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(min(taken), min(taken) + 120, 2))


# -- hosts -----------------------------------------------------------------------------------------------------------


def test_a_host_never_waits_for_less_than_it_did(conn: Connection) -> None:
    def held() -> tuple[Any, ...]:
        return tuple(conn.execute(select(s.hosts.c.next_allowed_at, s.hosts.c.reason)).one())

    block(conn, "a.example", 60, "asked")
    block(conn, "a.example", 1, "delay")
    assert held() == (at(60), "asked")
    block(conn, "a.example", 90, "asked again")
    assert held() == (at(90), "asked again")


def test_hosts_are_told_apart(conn: Connection) -> None:
    for host in ("a.example", "A.example", "a.example:8080"):
        block(conn, host, 1)
    assert len(conn.execute(select(s.hosts)).all()) == 3


# -- sweeps ----------------------------------------------------------------------------------------------------------


def sweep(conn: Connection, kind: str, *, active: bool = True) -> int:
    values = {"kind": kind, "state": "RUNNING", "active": active, "created_at": at(0), "total": 3, "open": 3}
    return int(conn.execute(insert(s.sweeps).values(values).returning(s.sweeps.c.id)).scalar_one())


def test_only_one_refresh_of_all_is_active(conn: Connection) -> None:
    first = sweep(conn, "refresh")
    sweep(conn, "add")
    sweep(conn, "add")
    sweep(conn, "refresh", active=False)
    with pytest.raises(IntegrityError), conn.begin_nested():
        sweep(conn, "refresh")
    conn.execute(update(s.sweeps).where(s.sweeps.c.id == first).values(active=False))
    sweep(conn, "refresh")


def test_members_are_done_once_and_counted(conn: Connection) -> None:
    ids = [sweep(conn, "add"), sweep(conn, "add")]
    for sweep_id in ids:
        conn.execute(insert(s.sweep_members), [{"sweep_id": sweep_id, "target_id": n} for n in (1, 2, 3)])
    found = conn.execute(queries.SWEEPS_OF, {"b_ids": [2]}).all()
    assert sorted(one.sweep_id for one in found) == ids
    done = {"b_sweep": ids[0], "b_target": 2, "b_outcome": "FAILED", "b_error": "no"}
    assert conn.execute(queries.MEMBER_DONE, done).rowcount == 1
    assert conn.execute(queries.MEMBER_DONE, done).rowcount == 0
    assert [one.sweep_id for one in conn.execute(queries.SWEEPS_OF, {"b_ids": [2]})] == ids[1:]
    counts = {"b_sweep": ids[0], "b_n": 2, "b_completed": 1, "b_failed": 1, "b_timed_out": 0}
    assert conn.execute(queries.COUNT_MEMBERS, counts).scalar_one() == 1
    counted = conn.execute(queries.SWEEP, {"b_id": ids[0]}).one()
    assert (counted.open, counted.completed, counted.failed, counted.timed_out) == (1, 1, 1, 0)


def test_the_active_ones_and_the_last_one(conn: Connection) -> None:
    ended = [sweep(conn, "add", active=False) for _ in range(3)]
    going = [sweep(conn, "add") for _ in range(2)]
    for sweep_id, seconds in zip(ended, (2, 3, 1), strict=True):
        conn.execute(update(s.sweeps).where(s.sweeps.c.id == sweep_id).values(ended_at=at(seconds)))
    assert [one.id for one in conn.execute(queries.ACTIVE_SWEEPS)] == going
    assert conn.execute(queries.LAST_SWEEP).one().id == ended[1]


# -- runs, and what constraints hold ---------------------------------------------------------------------------------


def add_run(conn: Connection, number: int, target_id: int, **values: Any) -> None:
    known = {"id": number, "target_id": target_id, "token": number, "boot_id": 1, "state": "RUNNING"}
    conn.execute(queries.ADD_RUN, known | {"started_at": at(0), "deadline_at": at(60)} | values)


def test_the_last_run_of_a_target_is_the_newest_that_ended(conn: Connection) -> None:
    for number, ended in ((1, at(9)), (2, at(5)), (3, None)):
        add_run(conn, number, 1, ended_at=ended)
    add_run(conn, 4, 2, ended_at=at(20))
    assert conn.execute(queries.LAST_RUN_OF, {"b_id": 1}).one().id == 2  # by token: clocks are set
    assert conn.execute(queries.LAST_RUN_OF, {"b_id": 3}).one_or_none() is None
    assert conn.execute(queries.LAST_RUN).one().id == 4


def test_constraints_hold_what_a_race_could_break(conn: Connection) -> None:
    add_target(conn, source="feed", handle="same")
    add_target(conn, source="other", handle="same")
    add_run(conn, 1, 1)
    for broken in (
        lambda: add_target(conn, source="feed", handle="same"),
        lambda: add_target(conn, state="STUCK"),
        lambda: add_run(conn, 2, 1, token=1),
        lambda: add_run(conn, 3, 1, state="STUCK"),
        lambda: add_run(conn, 1, 2, token=9),
    ):
        with pytest.raises(IntegrityError), conn.begin_nested():
            broken()


def test_ids_are_never_given_twice(conn: Connection) -> None:
    last = add_target(conn)
    conn.execute(delete(s.targets).where(s.targets.c.id == last))
    assert add_target(conn) > last
    last = sweep(conn, "add")
    conn.execute(delete(s.sweeps).where(s.sweeps.c.id == last))
    assert sweep(conn, "add") > last


def test_times_come_back_as_they_went_in(conn: Connection) -> None:
    for time in (
        datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC),
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime(9999, 1, 1, tzinfo=UTC),
        datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    ):
        got = row(conn, add_target(conn, due_at=time)).due_at
        assert abs(got - time) < timedelta(microseconds=2) or time.year == 9999
        assert got.tzinfo == UTC
        assert abs(got - time) < timedelta(milliseconds=1)


def test_text_comes_back_as_it_went_in(conn: Connection) -> None:
    for text in ("", "ünïcødé \N{PILE OF POO}", "a\nb\t'\"\\%_;--", "x" * 100_000):
        assert row(conn, add_target(conn, error=text)).error == text
    remember = {"etag": 'W/"ä"', "cursor": "x" * 5000}
    assert row(conn, add_target(conn, remember=remember)).remember == remember


@needs_sqlite
def test_sqlite_is_opened_as_the_decisions_say(engine: Engine) -> None:
    """docs/adr/0003: WAL, foreign keys, synchronous FULL, a bounded wait for others."""
    with engine.connect() as conn:
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1), ("busy_timeout", 2000)):
            assert conn.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value


@needs_sqlite
def test_a_writing_transaction_takes_the_lock_when_it_begins(tmp_path: Path) -> None:
    with open_store(tmp_path, busy_timeout_s=0) as engine:
        writing = engine.execution_options(gleand_writer=True)
        with writing.begin(), pytest.raises(Exception, match="locked"), writing.begin():
            pass
        with writing.begin(), engine.begin() as reader:
            assert reader.execute(queries.NEXT_DUE).scalar() is None  # who reads does not wait


def test_a_robots_txt_is_kept_beside_what_the_host_asked_for(conn: Connection) -> None:
    block(conn, "a.example", 60, "asked")
    for status in (503, 200):
        queries.keep_robots(conn, "a.example", at=at(1), status=status, text="User-agent: *", crawl_delay_s=4)
    queries.keep_robots(conn, "b.example", at=at(2), status=404, text="", crawl_delay_s=0)
    found = conn.execute(queries.ROBOTS_OF, {"b_hosts": ["a.example", "b.example", "c.example"]}).all()
    assert [tuple(one) for one in found] == [
        ("a.example", 200, "User-agent: *", at(1)),
        ("b.example", 404, "", at(2)),
    ]
    held = conn.execute(queries.HOSTS, {"b_now": at(30)}).all()
    assert [tuple(one) for one in held] == [("a.example", at(60), "asked", 4.0)]
    assert [one.host for one in conn.execute(queries.HOSTS, {"b_now": at(90)})] == ["a.example"]  # for its delay


def test_when_runs_on_hosts_ended_last(conn: Connection) -> None:
    for host, *ended in (("a.example", -5, -3), ("b.example", -100), ("", -1)):
        target = add_target(conn, host=host)
        for number, seconds in enumerate(ended):
            own = {"id": 1000 * target + number, "target_id": target, "token": number, "boot_id": 1}
            conn.execute(
                queries.ADD_RUN,
                own | {"state": "FAILED", "started_at": at(-200), "deadline_at": at(0), "ended_at": at(seconds)},
            )
    assert [tuple(one) for one in conn.execute(queries.LAST_ENDED, {"b_since": at(-50)})] == [("a.example", at(-3))]
