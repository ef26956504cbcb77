"""How runs end, when the next turn is, and what an operator may do about it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from errors import BadRequest, NotFound, Refused, Unusable
from model import Outcome, Post
from tests.support.fake_pool import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        yield house


def wait_s(house: House, target: int) -> float:
    """Seconds until it is due."""
    due = house.status(target)["next_due_at"]
    return (datetime.fromisoformat(due) - house.clock.now()).total_seconds()


def running(house: House, name: str = "a", **more: Any) -> int:
    target = house.add(f"good:{name}", **more)
    assert house.round() == [name]
    return target


# -- outcomes --------------------------------------------------------------------------------------------------------


def test_completed_keeps_the_posts_and_counts_them(house: House) -> None:
    target = running(house)
    house.finish("a", Post(native_id="1", title="one"), Post(native_id="2", title="two"))
    status = house.status(target)
    assert (status["state"], status["error"], status["progress"]) == ("COMPLETED", None, None)
    assert house.service.target(target)["post_count"] == 2
    run = status["last_run"]
    assert (run["state"], run["posts_seen"], run["posts_new"]) == ("COMPLETED", 2, 2)
    assert house.shown()["last_run"]["id"] == run["id"]


def test_a_failed_run_keeps_the_posts_there_are(house: House) -> None:
    target = house.run("good:a")
    house.add("good:a")
    house.round()
    house.fail("a", "the site is gone")
    status = house.status(target)
    assert (status["state"], status["error"], status["attempt"]) == ("FAILED", "the site is gone", 1)
    assert house.service.target(target)["post_count"] == 1


@pytest.mark.parametrize(
    ("kind", "error"),
    [("deadline", "the scrape ran longer than 60 s"), ("stalled", "the scrape made no progress for 60 s")],
)
def test_an_overdue_run_is_timeout_and_says_which_limit(house: House, kind: str, error: str) -> None:
    target = running(house)
    house.overdue("a", kind)
    status = house.status(target)
    assert (status["state"], status["error"], status["reason"]) == ("TIMEOUT", error, kind)
    assert house.pool.running == {}


def test_a_death_without_a_result_is_failed_and_says_how(house: House) -> None:
    target = running(house)
    order = house.order("a")
    house.service.runs.died(order, "the worker was killed by SIGKILL")
    house.flush()
    assert house.status(target)["error"] == "the worker was killed by SIGKILL"
    assert house.status(target)["state"] == "FAILED"


def test_the_duration_of_a_run_is_measured_with_the_monotonic_clock(house: House) -> None:
    target = running(house)
    house.clock.advance(4)
    house.clock.jump(-3600)
    house.finish("a")
    assert house.status(target)["last_run"]["duration_s"] == 4


# -- late reports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["expire", "reset", "fail"])
def test_a_result_after_the_run_was_ended_changes_nothing_and_is_journalled(house: House, how: str) -> None:
    target = running(house)
    order = house.order("a")
    house.service.transition(target, trigger=how, force=True, reason="test")
    before = house.status(target)
    house.service.runs.finished(order, Outcome(ok=True, posts=(Post(native_id="late", title="late"),)))
    house.flush()
    after = house.status(target)
    assert (after["state"], after["token"], after["last_run"]) == (before["state"], before["token"], before["last_run"])
    assert house.service.target(target)["post_count"] == 0
    row = house.journal(target)[0]
    assert (row["trigger"], row["to"]) == ("complete", None)
    assert row["refused_by"] in ("holds_token", "no_such_edge")


def test_a_result_of_an_old_run_does_not_touch_the_next_one(house: House) -> None:
    target = running(house)
    old = house.order("a")
    house.service.transition(target, trigger="reset", force=True, reason="test")
    running(house)
    house.service.runs.finished(old, Outcome(ok=True, posts=(Post(native_id="late", title="late"),)))
    house.service.runs.overdue(old, "deadline")
    house.service.runs.died(old, "died")
    house.flush()
    assert house.status(target)["state"] == "RUNNING"
    house.finish("a")
    assert [p["native_id"] for p in house.service.posts(
        target=target, source=None, since=None, q=None, limit=9, cursor=None)["posts"]] == ["1"]  # fmt: skip


def test_a_result_of_a_removed_target_is_dropped(house: House) -> None:
    target = running(house)
    order = house.order("a")
    house.service.remove(target_id=target)
    new = house.add("good:a")
    assert new > target
    house.service.runs.finished(order, Outcome(ok=True, posts=(Post(native_id="late", title="late"),)))
    house.flush()
    assert house.count("posts") == 0
    assert house.status(new)["state"] == "IDLE"


# -- the next turn ---------------------------------------------------------------------------------------------------


def test_failures_are_asked_again_later_and_later_and_a_success_forgets_them(house: House) -> None:
    target = house.add("good:a", schedule="every 1s")
    waits = []
    for _ in range(5):
        house.round()
        house.fail("a")
        waits.append(wait_s(house, target))
        house.clock.advance(waits[-1] + 0.01)
    for wait, middle in zip(waits, (60, 120, 240, 480, 960), strict=True):
        assert 0.75 * middle <= wait <= 1.25 * middle
    house.round()
    house.finish("a")
    assert wait_s(house, target) <= 1.05
    assert house.status(target)["attempt"] == 0


def test_backoff_never_asks_sooner_than_the_schedule(house: House) -> None:
    target = running(house, schedule="every 1d")
    house.fail("a")
    assert wait_s(house, target) >= 0.95 * 86400


def test_a_timeout_backs_off_too(house: House) -> None:
    target = running(house, schedule="every 1s")
    house.overdue("a")
    assert wait_s(house, target) >= 45


def test_retry_after_is_when_it_is_asked_again(house: House) -> None:
    target = running(house, schedule="every 1s")
    house.fail("a", retry_after_s=5000)
    assert wait_s(house, target) == 5000


def test_a_manual_target_is_not_asked_again(house: House) -> None:
    target = running(house, schedule="manual")
    house.fail("a", retry_after_s=5000)
    assert house.status(target)["next_due_at"] is None


# -- interruptions ---------------------------------------------------------------------------------------------------


def test_a_run_of_an_earlier_boot_is_failed_and_due_at_once(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        target = running(house, schedule="manual")
        run = house.status(target)["run_id"]
    with House(tmp_path, clock=house.clock) as again:
        status = again.status(target)
        assert (status["state"], status["reason"], status["run_id"]) == ("FAILED", "interrupted", run)
        assert status["last_run"]["state"] == "FAILED"
        assert again.journal(target)[0]["actor"] == "recovery"
        assert again.round() == ["a"]


def test_what_is_interrupted_twice_in_a_row_backs_off(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        target = running(house)
    with House(tmp_path, clock=house.clock) as house:
        assert wait_s(house, target) == 0
        assert house.round() == ["a"]
    with House(tmp_path, clock=house.clock) as house:
        assert 45 <= wait_s(house, target) <= 75
        assert house.round() == []


def test_a_good_end_interrupts_what_runs_and_the_next_boot_finds_nothing(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        target = running(house)
        house.core.draining = True
        assert house.service.end_boot() == 1
        assert house.status(target)["error"] == "interrupted: the daemon was stopped"
    with House(tmp_path, clock=house.clock) as again:
        assert again.journal(target)[0]["actor"] == "shutdown"
        assert again.round() == ["a"]


# -- the timeout check -----------------------------------------------------------------------------------------------


def test_the_check_expires_what_the_pool_missed(house: House) -> None:
    target = running(house)
    house.clock.advance(59.9)
    house.progress("a")
    assert house.check() == []
    house.clock.advance(0.1)
    assert house.check() == [target]
    status = house.status(target)
    assert (status["state"], status["reason"]) == ("TIMEOUT", "deadline")
    assert house.journal(target)[0]["actor"] == "timeout-check"


def test_the_check_expires_what_stalls(tmp_path: Path) -> None:
    with House(tmp_path, stall_timeout_s=20) as house:
        target = running(house)
        house.clock.advance(19)
        house.progress("a")
        house.clock.advance(19)
        assert house.check() == []
        assert not house.status(target)["stalled"]
        house.clock.advance(1)
        assert house.status(target)["stalled"]
        assert house.shown()["stalled"]
        assert house.check() == [target]
        assert house.status(target)["reason"] == "stalled"


def test_the_check_interrupts_a_run_that_no_worker_holds(house: House) -> None:
    target = running(house)
    house.pool.running.clear()
    assert house.check() == []  # its hand-over may be under way
    house.clock.advance(5.1)
    assert house.check() == [target]
    assert house.status(target)["error"] == "interrupted: no worker holds this run"
    assert house.round() == ["a"]
    assert house.shown()["running"]


def test_the_check_leaves_healthy_runs_alone(house: House) -> None:
    running(house)
    rows = house.count("journal")
    for _ in range(5):
        house.clock.advance(10)
        house.progress("a")
        assert house.check() == []
    assert house.count("journal") == rows


# -- an operator -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trigger", "refused_by"), [("reset", "overdue"), ("expire", "overdue"), ("fail", "holds_token")]
)
def test_what_runs_well_is_ended_only_by_force(house: House, trigger: str, refused_by: str) -> None:
    target = running(house)
    with pytest.raises(Refused) as refusal:
        house.service.transition(target, trigger=trigger)
    assert refusal.value.details["refused_by"] == refused_by
    assert house.status(target)["triggers"][trigger] == {"possible": False, "refused_by": refused_by}
    assert house.status(target)["state"] == "RUNNING"
    row = house.journal(target)[0]
    assert (row["trigger"], row["refused_by"], row["from"], row["to"]) == (trigger, refused_by, "RUNNING", None)


@pytest.mark.parametrize(("trigger", "state"), [("reset", "IDLE"), ("expire", "TIMEOUT"), ("fail", "FAILED")])
def test_force_ends_a_run_stops_its_worker_and_keeps_who_and_why(house: House, trigger: str, state: str) -> None:
    target = running(house)
    view, code = house.service.transition(target, trigger=trigger, force=True, reason="it hangs")
    assert (view["state"], view["worker"], code) == (state, "none", 200)
    assert house.pool.running == {}
    row = house.journal(target)[0]
    assert (row["to"], row["forced"], row["reason"], row["actor"]) == (state, True, "it hangs", "api")


def test_force_needs_a_reason(house: House) -> None:
    target = running(house)
    with pytest.raises(BadRequest):
        house.service.transition(target, trigger="reset", force=True, reason="  ")


def test_an_overdue_run_can_be_reset_without_force(house: House) -> None:
    target = running(house)
    house.clock.advance(60)
    assert house.status(target)["triggers"]["reset"]["possible"]
    house.service.transition(target, trigger="reset")
    assert house.status(target)["state"] == "IDLE"


def test_force_does_not_start_beside_a_worker_that_is_still_stopping(house: House) -> None:
    house.pool.dies_at_once = False
    target = running(house)
    _, code = house.service.transition(target, trigger="reset", force=True, reason="x")
    assert code == 202
    view, _ = house.service.transition(target, trigger="start", force=True, reason="x")
    assert view["phase"] == "stopping"
    assert house.round() == []
    house.pool.bury()
    assert house.round() == ["a"]


def test_reset_clears_what_the_run_left_and_keeps_runs_and_posts(house: House) -> None:
    target = house.run("good:a")
    running(house)
    house.fail("a", "no luck")
    house.service.transition(target, trigger="reset")
    status = house.status(target)
    cleared = ("started_at", "deadline_at", "last_heartbeat", "last_progress_at", "error", "reason", "progress")
    assert [status[name] for name in cleared] == [None] * len(cleared)
    assert (status["state"], status["attempt"]) == ("IDLE", 0)
    assert status["last_run"]["error"] == "no luck"
    assert house.service.target(target)["post_count"] == 1


def test_an_edge_that_is_not_there_cannot_be_forced(house: House) -> None:
    target = house.run("good:a")
    for trigger in ("expire", "fail"):
        with pytest.raises(Refused) as refusal:
            house.service.transition(target, trigger=trigger, force=True, reason="x")
        assert refusal.value.details["refused_by"] == "no_such_edge"
    assert house.status(target)["state"] == "COMPLETED"


def test_a_stale_button_does_not_stop_the_next_run(house: House) -> None:
    target = house.run("good:a")
    old = house.status(target)["run_id"]
    running(house)
    with pytest.raises(Refused) as refusal:
        house.service.transition(target, trigger="reset", force=True, reason="x", run_id=old)
    assert refusal.value.details["refused_by"] == "same_run"
    assert house.status(target)["state"] == "RUNNING"
    house.service.transition(target, trigger="reset", force=True, reason="x", run_id=house.status(target)["run_id"])
    assert house.status(target)["state"] == "IDLE"


def test_the_same_refusal_is_counted_within_a_minute_and_written_anew_after_it(house: House) -> None:
    target = house.run("good:a")
    for seconds in (0, 10, 40, 20):
        house.clock.advance(seconds)
        with pytest.raises(Refused):
            house.service.transition(target, trigger="fail")
    with pytest.raises(Refused):
        house.service.transition(target, trigger="expire")
    rows = [(row["trigger"], row["times"]) for row in house.journal(target) if row["refused_by"]]
    assert rows == [("expire", 1), ("fail", 1), ("fail", 3)]


def test_after_the_clock_was_set_back_a_refusal_is_not_counted_on_one_of_the_future(house: House) -> None:
    target = running(house)
    for jump in (0, -600):
        house.clock.jump(jump)
        with pytest.raises(Refused):
            house.service.transition(target, trigger="fail")
    assert [row["times"] for row in house.journal(target) if row["refused_by"]] == [1, 1]


# -- removing --------------------------------------------------------------------------------------------------------


def test_removing_ends_the_run_and_keeps_only_the_journal(house: House) -> None:
    target = house.run("good:a")
    running(house)
    assert house.service.remove(target_id=target) == {"message": "Removed a"}
    assert house.pool.running == {}
    with pytest.raises(NotFound):
        house.service.target(target)
    assert (house.count("posts"), house.count("runs"), house.count("targets")) == (0, 0, 0)
    assert house.journal(target)[0]["reason"] == "removed"
    assert house.shown()["counts"] == dict.fromkeys(["IDLE", "RUNNING", "COMPLETED", "FAILED", "TIMEOUT"], 0)


def test_removing_does_not_answer_before_the_worker_is_gone(house: House) -> None:
    house.pool.dies_at_once = False
    target = running(house)
    with pytest.raises(Refused) as refusal:
        house.service.remove(target_id=target)
    assert refusal.value.details["refused_by"] == "worker_gone"
    assert house.status(target)["state"] == "IDLE"
    house.pool.bury()
    house.service.remove(target_id=target)
    with pytest.raises(NotFound):
        house.service.target(target)


# -- changing --------------------------------------------------------------------------------------------------------


def test_a_new_schedule_counts_at_once(house: House) -> None:
    target = house.run("good:a", schedule="every 1d")
    house.service.patch(target, {"schedule": "every 1m"})
    assert wait_s(house, target) <= 63
    house.service.patch(target, {"schedule": "manual"})
    assert house.status(target)["next_due_at"] is None


def test_a_new_schedule_does_not_disturb_a_run(house: House) -> None:
    target = running(house)
    house.service.patch(target, {"schedule": "every 1m"})
    assert house.status(target)["state"] == "RUNNING"
    house.finish("a")
    assert wait_s(house, target) <= 63


def test_a_crontab_line_is_read_in_the_zone_of_the_settings(tmp_path: Path) -> None:
    with House(tmp_path, timezone="Asia/Tokyo") as house:
        target = house.run("good:a", schedule="0 6 * * *")  # it is 21:00 in Tokyo
        assert wait_s(house, target) == 9 * 3600


@pytest.mark.parametrize(
    "changes", [{"schedule": "0 0 30 2 *"}, {"schedule": "whenever"}, {"timeout_s": -1.0}, {"timeout_s": 1e9}]
)
def test_a_change_that_cannot_work_changes_nothing(house: House, changes: dict[str, Any]) -> None:
    target = house.track("good:a")
    before = house.service.target(target)
    with pytest.raises(Unusable):
        house.service.patch(target, {"display_name": "new"} | changes)
    assert house.service.target(target) == before


def test_a_name_a_limit_and_its_absence_can_be_set(house: House) -> None:
    target = house.track("good:a")
    view = house.service.patch(target, {"display_name": "Ann Lee", "timeout_s": 5.0})
    assert (view["display_name"], view["initials"], view["timeout_s"]) == ("Ann Lee", "AL", 5)
    view = house.service.patch(target, {"display_name": None, "timeout_s": None})
    assert (view["display_name"], view["timeout_s"]) == ("a", None)


def test_a_pause_in_the_past_is_none(house: House) -> None:
    target = house.track("good:a", due_in_s=0)
    house.service.patch(target, {"paused_until": house.clock.now() - timedelta(seconds=1)})
    assert house.round() == ["a"]
