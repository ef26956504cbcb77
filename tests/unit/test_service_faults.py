"""An ending that the database does not take is still an ending: no run stays RUNNING for a fault of ours.

The faults are real: triggers in the database that refuse what an ending writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fake_pool import House
from tests.support.waiting import wait_until

ADDRESS = "http://a.example/feed"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path, host_delay_s=1) as house:
        yield house


def refuse(house: House, what: str, name: str = "no") -> None:
    """Refuse these writes from now on."""
    sql = f"CREATE TRIGGER {name} BEFORE {what} BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
    house.writer.run(lambda tx: tx.conn.exec_driver_sql(sql) and None)


def allow(house: House, name: str = "no") -> None:
    house.writer.run(lambda tx: tx.conn.exec_driver_sql(f"DROP TRIGGER {name}") and None)


def running(house: House) -> int:
    target = house.add(ADDRESS)
    assert house.round() == [ADDRESS]
    return target


def ended(house: House, target: int, state: str) -> dict:
    return wait_until(lambda: (status := house.status(target))["state"] == state and status)


def test_posts_that_cannot_be_stored_make_a_failed_run(house: House) -> None:
    target = running(house)
    refuse(house, "INSERT ON posts")
    house.finish(ADDRESS)
    status = ended(house, target, "FAILED")
    assert status["error"] == "what the scrape found could not be stored"
    assert not house.shown()["running"]
    allow(house)
    assert house.service.posts(target=target, source=None, since=None, q=None, limit=9, cursor=None)["posts"] == []


def test_one_result_that_cannot_be_stored_does_not_touch_those_beside_it(house: House) -> None:
    bad, good = running(house), house.add("good:b")
    assert house.round() == ["b"]
    refuse(house, f"INSERT ON posts WHEN NEW.target_id = {bad}")
    orders = {o.target.id: o for o in house.pool.running.values()}
    house.finish(ADDRESS)
    house.finish("b")
    ended(house, bad, "FAILED")
    assert ended(house, good, "COMPLETED")["last_run"]["posts_new"] == 1
    assert len(orders) == 2


def test_an_ending_is_cut_down_when_what_belongs_to_it_cannot_be_stored(house: House) -> None:
    target = running(house)
    refuse(house, "INSERT ON hosts")
    house.fail(ADDRESS, "the site is gone")
    status = ended(house, target, "FAILED")
    assert (status["error"], status["last_run"]["error"]) == ("the site is gone", "the site is gone")
    assert status["next_due_at"] is not None
    assert not house.shown()["running"]
    assert house.journal(target)[0]["to"] == "FAILED"


def test_a_run_whose_ending_cannot_be_stored_at_all_is_ended_by_the_check_when_it_can(house: House) -> None:
    target = running(house)
    refuse(house, "UPDATE ON runs")
    house.fail(ADDRESS, "the site is gone")
    house.flush()
    house.clock.advance(61)
    assert house.check() == []
    assert house.status(target)["state"] == "RUNNING"
    allow(house)
    assert house.check() == [target]
    assert house.status(target)["state"] == "TIMEOUT"


def test_one_run_that_the_check_cannot_end_does_not_keep_it_from_the_others(house: House) -> None:
    bad, good = running(house), house.add("good:b")
    assert house.round() == ["b"]
    refuse(house, f"UPDATE ON runs WHEN NEW.target_id = {bad}")
    house.clock.advance(61)
    assert house.check() == [good]
    assert [house.status(t)["state"] for t in (bad, good)] == ["RUNNING", "TIMEOUT"]
