"""Somebody sets the wall clock: nothing that runs notices, and nothing waits for the time that was."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.support.fake_pool import House

HOUR = 3600.0
FEED = "http://slow.example/1"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        yield house


def jump(house: House, seconds: float) -> None:
    """As the main loop does it."""
    house.clock.jump(seconds)
    house.service.clamp_due(seconds)
    house.flush()


def wait_s(house: House, target: int) -> float:
    due = house.status(target)["next_due_at"]
    return (datetime.fromisoformat(due) - house.clock.now()).total_seconds()


@pytest.mark.parametrize("seconds", [HOUR, -HOUR, 365 * 24 * HOUR, -365 * 24 * HOUR])
def test_a_jump_expires_no_healthy_run(house: House, seconds: float) -> None:
    target = house.add("good:a")
    house.round()
    house.clock.advance(30)
    jump(house, seconds)
    assert house.check() == []
    status = house.status(target)
    assert (status["state"], status["stalled"], status["triggers"]["expire"]["possible"]) == ("RUNNING", False, False)
    house.finish("a")
    assert house.status(target)["state"] == "COMPLETED"


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_jump_saves_no_run_that_is_too_long(house: House, seconds: float) -> None:
    target = house.add("good:a")
    house.round()
    house.clock.advance(59)
    jump(house, seconds)
    house.clock.advance(1)
    assert house.check() == [target]
    assert house.status(target)["state"] == "TIMEOUT"


@pytest.mark.parametrize("seconds", [HOUR, -HOUR])
def test_a_sweep_is_neither_ended_nor_kept_by_a_jump(house: House, seconds: float) -> None:
    house.add("good:a")  # and nobody starts it
    house.check()
    house.clock.advance(89)
    jump(house, seconds)
    house.check()
    assert house.shown()["running"]
    house.clock.advance(1.1)
    house.check()
    assert house.shown()["state"] == "TIMEOUT"


@pytest.mark.parametrize("back_s", [HOUR, 10 * 365 * 24 * HOUR])
@pytest.mark.parametrize("schedule", ["every 10m", "*/10 * * * *"])
def test_after_a_jump_back_a_target_waits_for_at_most_one_interval(house: House, schedule: str, back_s: float) -> None:
    target = house.run("good:a", schedule=schedule)
    jump(house, -back_s)
    assert 0 <= wait_s(house, target) <= 630
    house.clock.advance(630)
    assert house.round() == ["a"]


def test_after_a_jump_back_a_failing_target_waits_no_longer_than_in_the_slow_lane(house: House) -> None:
    target = house.add("good:a", schedule="every 10m")
    house.round()
    house.fail("a")
    jump(house, -1000 * HOUR)
    assert wait_s(house, target) <= 30 * HOUR


def test_a_jump_that_changes_nothing_leaves_due_times_alone(house: House) -> None:
    targets = [house.track(f"good:{n}", schedule=plan) for n, plan in enumerate(("every 10m", "0 3 * * *", "every 1d"))]
    before = [house.status(target)["next_due_at"] for target in targets]
    house.service.clamp_due(0)
    house.flush()
    assert [house.status(target)["next_due_at"] for target in targets] == before


def test_after_a_jump_forward_what_was_due_meanwhile_comes_once(house: House) -> None:
    house.run("good:a", schedule="every 10m")
    jump(house, 5 * HOUR)
    assert house.round() == ["a"]
    house.finish("a")
    assert house.round() == []


def test_a_host_rests_after_a_jump_back_only_as_long_as_it_would_have(tmp_path: Path) -> None:
    with House(tmp_path, host_delay_s=5) as house:
        house.run(FEED, schedule="every 1s")
        jump(house, -HOUR)
        house.clock.advance(4)
        assert house.round() == []
        house.clock.advance(1)
        assert house.round() == [FEED]


def test_a_rest_that_a_host_asked_for_is_kept_through_a_jump_back(house: House) -> None:
    house.block("slow.example:80", 50)
    jump(house, -HOUR)
    house.add(FEED)
    house.clock.advance(49)
    assert house.round() == []
    house.clock.advance(1)
    assert house.round() == [FEED]


def test_a_long_rest_that_a_host_asked_for_is_kept_through_a_small_jump(house: House) -> None:
    house.block("slow.example:80", 3 * 24 * HOUR)
    for seconds in (-10, 10):
        jump(house, seconds)
    until = house.service.hosts(limit=1, cursor=None)["hosts"][0]["next_allowed_at"]
    assert datetime.fromisoformat(until) - house.clock.now() > timedelta(days=2.9)


def test_a_clock_that_was_set_back_while_the_daemon_was_down_stops_nothing(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        target = house.run(FEED, schedule="every 10m")
        house.block("slow.example:80", 5)
    house.clock.jump(-10 * 365 * 24 * HOUR)
    with House(tmp_path, clock=house.clock) as again:
        assert wait_s(again, target) <= 630
        again.clock.advance(630)
        assert again.round() == [FEED]


def test_a_pause_is_the_users_own_and_stays(house: House) -> None:
    target = house.track("good:a", due_in_s=0)
    until = house.clock.now() + timedelta(days=300)
    house.service.patch(target, {"paused_until": until})
    jump(house, -HOUR)
    assert house.service.target(target)["paused_until"] == until.isoformat(timespec="milliseconds")
