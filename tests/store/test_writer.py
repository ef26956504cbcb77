"""The writer: groups, order, answers. How it meets a store that refuses is in test_writer_faults.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest
from sqlalchemy import Engine, event, text

from errors import StoreRejected, StoreUnavailable
from store.writer import Tx, Writer
from tests.support.store import open_store
from tests.support.waiting import wait_until
from tests.support.writing import Blocker, Room, adds


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with open_store(tmp_path) as engine:
        yield engine


@pytest.fixture
def room(engine: Engine) -> Iterator[Room]:
    room = Room(engine)
    yield room
    room.writer.stop()


def test_nobody_is_answered_before_the_commit_and_the_publication(room: Room) -> None:
    seen: list[object] = []
    blocker = Blocker(room.writer)
    future = room.writer.submit(adds("a"))
    room.look = lambda: seen.append((room.hosts(), future.done()))
    blocker.go.set()
    assert future.result(5) == "added a"
    assert seen[-1] == (["a"], False)


def test_operations_that_wait_share_one_commit(room: Room) -> None:
    commits: list[object] = []
    event.listen(room.engine, "commit", commits.append)
    blocker = Blocker(room.writer)
    futures = [room.writer.submit(adds(f"{n:03}")) for n in range(100)]
    commits.clear()
    blocker.go.set()
    assert [f.result(5) for f in futures] == [f"added {n:03}" for n in range(100)]
    assert len(commits) == 2  # the blocker's, and one for all
    assert room.said == ["published", "published"]


def test_effects_run_after_the_commit_in_order_and_before_the_answer(room: Room) -> None:
    def op(name: str) -> Callable[[Tx], None]:
        def run(tx: Tx) -> None:
            adds(name)(tx)
            tx.after(lambda: room.said.append(f"{name} {name in room.hosts()}"))
            tx.after(lambda: room.said.append(f"{name} again"))

        return run

    blocker = Blocker(room.writer)
    futures = [room.writer.submit(op(name)) for name in "ab"]
    futures[1].add_done_callback(lambda _: room.said.append("answered"))
    blocker.go.set()
    futures[1].result(5)
    wait_until(lambda: "answered" in room.said)
    assert room.said == ["published", "a True", "a again", "b True", "b again", "published", "answered"]


def test_an_operation_that_fails_undoes_only_itself(room: Room) -> None:
    def fails(tx: Tx) -> None:
        adds("half")(tx)
        tx.after(lambda: room.said.append("effect of what failed"))
        raise LookupError("no such thing")

    blocker = Blocker(room.writer)
    before, failed, after = (room.writer.submit(op) for op in (adds("a"), fails, adds("b")))
    blocker.go.set()
    assert before.result(5) and after.result(5)
    with pytest.raises(LookupError, match="no such thing"):
        failed.result(5)
    assert room.hosts() == ["a", "b"]
    assert "effect of what failed" not in room.said


def test_what_does_not_fit_the_database_is_rejected_alone(room: Room) -> None:
    blocker = Blocker(room.writer)
    first, twice, other = (room.writer.submit(op) for op in (adds("a"), adds("a"), adds("b")))
    blocker.go.set()
    assert first.result(5) and other.result(5)
    with pytest.raises(StoreRejected):
        twice.result(5)
    assert room.hosts() == ["a", "b"]
    assert room.writer.refusing is None  # nothing is wrong with the store


def test_a_word_in_an_error_does_not_make_it_an_outage(room: Room) -> None:
    def full(tx: Tx) -> None:
        tx.conn.execute(text("SELECT * FROM a_disk_that_is_full_and_locked"))

    blocker = Blocker(room.writer)
    failed, other = room.writer.submit(full), room.writer.submit(adds("a"))
    blocker.go.set()
    with pytest.raises(StoreRejected):
        failed.result(5)
    assert other.result(5)
    assert room.writer.refusing is None


def test_an_effect_or_a_publication_that_fails_stops_nothing(room: Room) -> None:
    def op(tx: Tx) -> str:
        tx.after(lambda: 1 // 0)  # type: ignore[arg-type, return-value]
        tx.after(lambda: room.said.append("next effect"))
        return "stored"

    room.look = lambda: 1 // 0  # type: ignore[assignment, return-value]
    assert room.writer.run(op) == "stored"
    assert "next effect" in room.said
    assert room.writer.run(adds("a"))


def test_ends_of_runs_go_before_what_was_queued_earlier(room: Room) -> None:
    order: list[str] = []
    blocker = Blocker(room.writer)
    futures = [room.writer.submit(lambda _tx, n=n: order.append(f"slow {n}")) for n in range(3)]  # type: ignore[misc]
    futures.append(room.writer.submit(lambda _tx: order.append("fast"), fast=True))
    blocker.go.set()
    for future in futures:
        future.result(5)
    assert order == ["fast", "slow 0", "slow 1", "slow 2"]


def test_what_timed_out_before_it_began_never_runs(room: Room) -> None:
    blocker = Blocker(room.writer)
    with pytest.raises(StoreUnavailable, match="did not answer in time"):
        room.writer.run(adds("late"), timeout_s=0.05)
    blocker.go.set()
    room.writer.run(adds("next"))
    assert room.hosts() == ["next"]


def test_what_has_begun_is_waited_for(room: Room) -> None:
    def takes_long(tx: Tx) -> str:
        time.sleep(0.3)  # the statement that is slow
        return adds("a")(tx)

    assert room.writer.run(takes_long, timeout_s=0.05) == "added a"


def test_stop_finishes_what_is_queued_and_takes_nothing_more(room: Room) -> None:
    blocker = Blocker(room.writer)
    futures = [room.writer.submit(adds(f"{n:03}")) for n in range(300)]
    stopper = threading.Thread(target=room.writer.stop)
    stopper.start()
    wait_until(lambda: room.writer._stopping)
    with pytest.raises(StoreUnavailable, match="closed"):
        room.writer.submit(adds("more")).result(5)
    blocker.go.set()
    stopper.join(10)
    assert [f.result(0) for f in futures] == [f"added {n:03}" for n in range(300)]
    room.writer.stop()


def test_a_writer_that_was_never_started_can_be_stopped(engine: Engine) -> None:
    writer = Writer(engine, on_commit=lambda: None)
    writer.stop()
    with pytest.raises(StoreUnavailable):
        writer.run(adds("a"), timeout_s=1)


def test_whoever_submits_while_it_stops_is_answered(engine: Engine) -> None:
    for _ in range(8):
        writer = Writer(engine, on_commit=lambda: None)
        writer.start()
        futures: list[Future[None]] = []
        go = threading.Event()

        def submits(writer: Writer, go: threading.Event, futures: list[Future[None]]) -> None:
            while not go.is_set():
                futures.append(writer.submit(lambda _tx: None))
                time.sleep(0.0001)

        threads = [threading.Thread(target=submits, args=[writer, go, futures]) for _ in range(3)]
        for thread in threads:
            thread.start()
        while len(futures) < 50:
            time.sleep(0)
        writer.stop(60)
        go.set()
        for thread in threads:
            thread.join()
        assert all(f.done() for f in futures)


def test_the_tick_grows_while_a_statement_does_not_return(room: Room) -> None:
    wait_until(lambda: room.writer.tick_age() < 0.6)
    blocker = Blocker(room.writer)
    wait_until(lambda: room.writer.tick_age() > 0.7)
    blocker.go.set()
    wait_until(lambda: room.writer.tick_age() < 0.6)


def test_eight_callers_are_served_fairly(room: Room) -> None:
    done = [0] * 8
    until = time.monotonic() + 1.0

    def calls(n: int) -> None:
        while time.monotonic() < until:
            room.writer.run(lambda tx: tx.conn.execute(text("SELECT 1")))
            done[n] += 1

    threads = [threading.Thread(target=calls, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert min(done) > 0.5 * max(done) > 5


def test_readers_that_hold_many_connections_do_not_keep_the_writer_waiting(room: Room) -> None:
    held = [room.engine.connect() for _ in range(30)]  # more than the threads that read
    try:
        for conn in held:
            conn.execute(text("SELECT 1"))
        assert room.writer.run(adds("a"), timeout_s=3) == "added a"
    finally:
        for conn in held:
            conn.close()
