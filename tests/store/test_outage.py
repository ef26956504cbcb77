"""The service on a store that refuses: what waits, what is shown, what comes back. With real processes: e2e."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import event

from errors import StoreUnavailable
from model import Post
from tests.support.fake_pool import House
from tests.support.store import needs_sqlite
from tests.support.waiting import wait_until

pytestmark = needs_sqlite


class Lock:
    """Another process's write lock on the database of a house; waits for it are short."""

    def __init__(self, house: House) -> None:
        event.listen(house.engine, "checkout", lambda raw, *_: raw.execute("PRAGMA busy_timeout=50"))
        self._raw = sqlite3.connect(house.settings.data_dir / "gleand.db", isolation_level=None)

    def __enter__(self) -> Lock:
        self._raw.execute("BEGIN IMMEDIATE")
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.execute("ROLLBACK")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        yield house


def page(house: House, target_id: int) -> dict[str, object]:
    """What the door answers from."""
    found = house.service.board.target(target_id)
    assert found is not None
    return dict(json.loads(found.body))


def test_a_claim_that_is_not_stored_gives_its_workers_back(house: House) -> None:
    house.add("good:a")
    with Lock(house), pytest.raises(StoreUnavailable):
        house.round()
    assert house.pool.free() == 2
    wait_until(lambda: house.service.round())
    assert [order.target.handle for order in house.pool.orders] == ["a"]


def test_a_claim_that_fails_at_the_commit_gives_its_workers_back(house: House) -> None:
    house.add("good:a")

    def no_commit(_conn: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    event.listen(house.engine, "commit", no_commit)
    with pytest.raises(StoreUnavailable):
        house.round()
    event.remove(house.engine, "commit", no_commit)
    assert house.pool.free() == 2, "what was to be handed over keeps its place for ever"
    wait_until(lambda: house.service.round() or house.pool.orders)
    assert [order.target.handle for order in house.pool.orders] == ["a"]


def test_an_ending_waits_and_is_shown_as_unsaved(house: House) -> None:
    target = house.add("good:a")
    house.round()
    house.service.board.pin(target)
    with Lock(house):
        order = house.order("a")
        del house.pool.running[order.token]
        house.service.runs.finished(order, outcome("kept"))
        wait_until(lambda: house.service.runs.backlog)
        assert page(house, target)["unsaved"] is True  # without a commit, and without asking the database
        ready, good = house.service.ready()
        assert not good and ready["unsaved"] == 1
    wait_until(lambda: house.service.round() or not house.service.runs.backlog)
    assert house.status(target)["state"] == "COMPLETED"
    assert page(house, target)["unsaved"] is False
    feed = house.service.feed(username=None, limit=10, cursor=None)
    assert [post["title"] for post in feed["posts"]] == ["kept"]
    wait_until(lambda: house.service.ready()[1])


def outcome(title: str):  # type: ignore[no-untyped-def]
    from model import Outcome

    return Outcome(ok=True, posts=(Post(native_id=title, title=title),))


def test_endings_are_stored_in_the_order_in_which_they_came(house: House) -> None:
    for name in ("good:a", "good:b"):
        house.add(name)
    assert sorted(house.round()) == ["a", "b"]
    with Lock(house):
        for handle in "ab":
            order = house.order(handle)
            del house.pool.running[order.token]
            house.service.runs.finished(order, outcome(handle))
        wait_until(lambda: len(house.service.runs.backlog) == 2)
    wait_until(lambda: house.service.round() or not house.service.runs.backlog)
    feed = house.service.feed(username=None, limit=10, cursor=None)
    assert [post["title"] for post in feed["posts"]] == ["b", "a"]


def test_nothing_is_claimed_while_an_ending_waits(house: House) -> None:
    house.add("good:a")
    house.round()
    house.add("good:b")
    with Lock(house):
        order = house.order("a")
        del house.pool.running[order.token]
        house.service.runs.finished(order, outcome("a"))
        wait_until(lambda: house.service.runs.backlog)
        assert house.service.round() == 0
        assert len(house.pool.orders) == 1
    wait_until(lambda: house.service.round())
    assert len(house.pool.orders) == 2


def test_a_request_during_an_outage_leaves_nothing_behind(house: House) -> None:
    kept = house.track("good:kept")
    with Lock(house):
        for verb in (
            lambda: house.add("good:new"),
            lambda: house.service.refresh_all(),
            lambda: house.service.patch(kept, {"display_name": "new"}),
            lambda: house.service.transition(kept, trigger="start"),
            lambda: house.service.reset_sweeps(force=True),
            lambda: house.service.remove(target_id=kept),
        ):
            with pytest.raises(StoreUnavailable):
                verb()
    wait_until(lambda: house.service.ready()[1])
    assert [user["username"] for user in house.service.users()["users"]] == ["kept"]
    assert house.status(kept)["requested_at"] is None
    assert house.service.target(kept)["display_name"] == "kept"
    assert house.count("sweeps") == 0
    assert house.add("good:new")  # and it works again
    assert house.service.transition(kept, trigger="start")[1] == 200  # also what was being removed


def test_a_store_that_refuses_is_tried_again_about_once_a_second_and_not_at_every_round(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    house.add("good:a")
    tries: list[object] = []
    with Lock(house):
        with pytest.raises(StoreUnavailable):
            house.round()
        event.listen(house.engine, "begin", tries.append)
        caplog.clear()
        caplog.set_level(logging.INFO)
        for _ in range(50):
            house.service.round()
        assert len(tries) <= 3
        assert [r.getMessage() for r in caplog.records] == []
    wait_until(lambda: house.service.round())


def test_a_daemon_that_is_not_ready_answers_nothing_of_an_earlier_boot(tmp_path: Path) -> None:
    with House(tmp_path) as before:
        target = before.add("good:a")
        before.round()
        assert before.status(target)["state"] == "RUNNING"
    after = House(tmp_path)
    after.writer.start()
    try:
        with Lock(after):
            with pytest.raises(StoreUnavailable):
                after.service.boot()
            for read in (
                lambda: after.service.target_status(target),
                lambda: after.service.board.pin(target),
                lambda: after.service.board.show(target),
                lambda: after.service.users(),
                lambda: after.service.sweep(1),
            ):
                with pytest.raises(StoreUnavailable):
                    read()
            shown = after.shown()
            assert shown["running"] is True  # the sweep was promised, and goes on
            assert shown["counts"] == {}
            assert shown["last_run"] is None
        after.service.boot()
        assert after.shown()["counts"] == {"IDLE": 0, "RUNNING": 0, "COMPLETED": 0, "FAILED": 1, "TIMEOUT": 0}
        assert after.shown()["running"] is True
        assert after.status(target)["state"] == "FAILED"
    finally:
        after.writer.stop()
        after.engine.dispose()


def test_boot_that_failed_half_way_can_be_called_again(tmp_path: Path) -> None:
    with House(tmp_path) as before:
        before.add("good:a")
        before.round()
    after = House(tmp_path)
    after.writer.start()
    try:
        with Lock(after):
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    after.service.boot()
        assert after.service.boot() == 1
        assert after.shown()["counts"]["RUNNING"] == 0
        assert after.shown()["counts"]["FAILED"] == 1
    finally:
        after.writer.stop()
        after.engine.dispose()
