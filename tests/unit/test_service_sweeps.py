"""Sweeps: what one request asked for together, from its commit until its last member is done."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from errors import AlreadyRunning, BadRequest, NotFound, Refused
from model import Post
from tests.support.fake_pool import House

FEED = "http://{host}.example/{path}"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        yield house


def refresh(house: House) -> int:
    return int(house.service.refresh_all()["sweep_id"])


def members(house: House, sweep: int) -> dict[str, str | None]:
    """Outcomes by handle."""
    names = {user["id"]: user["username"] for user in house.service.users()["users"]}
    return {names.get(m["target_id"], "gone"): m["outcome"] for m in house.service.sweep(sweep)["members"]}


def pause(house: House, target: int) -> None:
    house.service.patch(target, {"paused_until": house.clock.now() + timedelta(hours=1)})


# -- running without a gap -------------------------------------------------------------------------------------------


def test_a_sweep_runs_from_its_commit_until_the_last_member_is_done(house: House) -> None:
    house.pool.size = 1
    for name in "abc":
        house.track(f"good:{name}")
    sweep = refresh(house)
    for done, name in enumerate("abc"):
        for view in (house.shown(), house.shown(sweep)):
            assert (view["running"], view["state"], view["completed_users"]) == (True, "RUNNING", done)
            assert view["current_user"] is None
        assert house.round() == [name]
        assert house.shown()["current_user"] == name
        assert house.shown()["running"]
        house.finish(name)
    view = house.shown()
    assert (view["running"], view["state"], view["completed_users"], view["total_users"]) == (False, "COMPLETED", 3, 3)


def test_the_newest_active_sweep_is_shown_and_then_the_one_that_ended_last(house: House) -> None:
    house.track("good:a")
    all_ = refresh(house)
    house.round()
    one = house.ask("good:b")["sweep_id"]
    assert house.shown()["sweep_id"] == one
    house.round()
    house.finish("b")
    assert house.shown()["sweep_id"] == all_
    assert house.shown()["running"]
    house.finish("a")
    assert house.shown()["sweep_id"] == all_
    assert house.shown(one)["state"] == "COMPLETED"


def test_an_older_sweep_can_be_asked_for_and_an_unknown_one_is_not_found(house: House) -> None:
    first = house.ask("good:a")["sweep_id"]
    house.round()
    house.fail("a")
    house.run("good:b")
    assert house.shown(first)["state"] == "FAILED"
    assert house.shown()["state"] == "COMPLETED"
    with pytest.raises(NotFound):
        house.shown(99)


def test_a_sweep_that_ended_after_the_clock_was_set_back_is_the_one_shown(house: House) -> None:
    house.run("good:a")
    house.clock.jump(-3600)
    sweep = house.ask("good:b")["sweep_id"]
    house.round()
    house.fail("b")
    assert house.shown()["sweep_id"] == sweep
    house.service.reset_sweeps()
    assert (house.shown()["sweep_id"], house.shown()["state"]) == (sweep, "IDLE")


# -- joining ---------------------------------------------------------------------------------------------------------


def test_a_refresh_of_all_joins_what_runs_and_what_is_queued(house: House) -> None:
    house.pool.size = 1
    house.track("good:scheduled", due_in_s=0)
    assert house.round() == ["scheduled"]
    house.add("good:asked")
    house.track("good:idle")
    sweep = refresh(house)
    assert house.shown(sweep)["total_users"] == 3
    house.finish("scheduled")
    assert house.shown(sweep)["completed_users"] == 1
    assert house.round() == ["asked"]
    house.finish("asked")
    assert house.round() == ["idle"]
    house.finish("idle")
    assert house.shown(sweep)["state"] == "COMPLETED"
    assert len(house.pool.orders) == 3


def test_paused_targets_are_no_part_of_a_refresh(house: House) -> None:
    house.track("good:a")
    pause(house, house.track("good:b"))
    assert house.service.refresh_all()["total_users"] == 1


def test_nothing_that_could_run_is_refused(house: House) -> None:
    with pytest.raises(BadRequest):
        refresh(house)
    pause(house, house.track("good:a"))
    with pytest.raises(BadRequest):
        refresh(house)
    assert house.count("sweeps") == 0


def test_one_refresh_of_all_at_a_time(house: House) -> None:
    house.track("good:a")
    first = refresh(house)
    with pytest.raises(AlreadyRunning) as refusal:
        refresh(house)
    assert refusal.value.details == {"sweep_id": first, "refused_by": "one_refresh_at_a_time"}
    house.round()
    house.finish("a")
    assert refresh(house) != first


def test_the_range_of_a_refresh_reaches_every_worker(house: House) -> None:
    for name in "ab":
        house.track(f"good:{name}")
    house.service.refresh_all(range_=3)
    house.round()
    assert [house.order(name).target.range for name in "ab"] == [3, 3]


def test_a_member_is_done_at_its_first_outcome(house: House) -> None:
    house.track("good:a", schedule="every 1m")
    house.track("good:b")
    sweep = refresh(house)
    house.round()
    house.fail("a")
    house.clock.advance(600)
    assert house.round() == ["a"]  # a retry, which belongs to the schedule
    house.finish("a")
    view = house.shown(sweep)
    assert (view["running"], view["failed_users"], view["completed_users"]) == (True, 1, 0)


def test_scheduled_runs_belong_to_no_sweep(house: House) -> None:
    house.track("good:a", due_in_s=0)
    house.round()
    assert house.shown()["sweep_id"] is None
    assert not house.shown()["running"]
    house.finish("a")
    assert house.count("sweeps") == 0


# -- members that end otherwise --------------------------------------------------------------------------------------


@pytest.mark.parametrize("running", [False, True])
@pytest.mark.parametrize("verb", ["remove", "reset", "pause"])
def test_a_member_that_is_removed_reset_or_paused_is_done(house: House, verb: str, running: bool) -> None:
    targets = {name: house.track(f"good:{name}") for name in "ab"}
    house.pool.size = 2 if running else 0
    sweep = refresh(house)
    house.round()
    if verb == "remove":
        house.service.remove(target_id=targets["a"])
    elif verb == "reset":
        house.service.transition(targets["a"], trigger="reset", force=True, reason="test")
    else:
        pause(house, targets["a"])
        if running:  # it goes on, and its outcome counts
            house.finish("a")
    view = house.shown(sweep)
    assert (view["running"], view["completed_users"]) == (True, int(verb == "pause" and running))
    house.pool.size = 2
    house.round()
    house.finish("b")
    assert house.shown(sweep)["state"] == "COMPLETED"
    assert "a" not in [o.target.handle for o in house.pool.orders] or running


def test_a_sweep_whose_members_were_all_reset_or_removed_is_idle(house: House) -> None:
    first, second = (house.track(f"good:{name}") for name in "ab")
    sweep = refresh(house)
    house.service.remove(target_id=first)
    house.service.transition(second, trigger="reset")
    view = house.shown(sweep)
    assert (view["running"], view["state"], view["error"], view["progress"]) == (False, "IDLE", None, "Idle")


def test_an_operators_fail_and_expire_are_outcomes(house: House) -> None:
    targets = {name: house.track(f"good:{name}") for name in "ab"}
    sweep = refresh(house)
    house.round()
    house.service.transition(targets["a"], trigger="fail", force=True, reason="wrong site")
    house.service.transition(targets["b"], trigger="expire", force=True, reason="too slow")
    assert members(house, sweep) == {"a": "FAILED", "b": "TIMEOUT"}
    assert house.shown(sweep)["state"] == "TIMEOUT"


def test_a_member_whose_host_says_wait_for_too_long_is_done_as_failed(house: House) -> None:
    house.pool.size = 4
    slow = [house.track(FEED.format(host="slow", path=n)) for n in range(3)]
    house.set(slow[1], due_at=None)
    house.track("good:a")
    sweep = refresh(house)
    house.round()
    house.fail(FEED.format(host="slow", path=0), retry_after_s=3600)
    assert list(members(house, sweep).values()) == ["FAILED"] * 3 + [None]
    house.finish("a")
    view = house.shown(sweep)
    assert (view["state"], view["failed_users"], view["completed_users"]) == ("COMPLETED", 3, 1)
    reasons = {m["error"] for m in house.service.sweep(sweep)["members"][1:3]}
    until = (house.clock.now() + timedelta(hours=1)).isoformat(timespec="milliseconds")
    assert reasons == {f"the host asked to be left alone until {until}"}
    assert house.status(slow[1])["phase"] is None
    assert house.status(slow[1])["next_due_at"] == until


def test_each_of_several_hosts_gives_its_own_reason(house: House) -> None:
    house.block("one.example:80", 3600)
    house.block("two.example:80", 7200)
    for host in ("one", "two"):
        house.track(FEED.format(host=host, path=1))
    sweep = refresh(house)
    ends = [(house.clock.now() + timedelta(hours=n)).isoformat(timespec="milliseconds") for n in (1, 2)]
    errors = [m["error"] for m in house.service.sweep(sweep)["members"]]
    assert errors == [f"the host asked to be left alone until {end}" for end in ends]


def test_asking_for_a_target_whose_host_says_wait_ends_at_once_with_why(house: House) -> None:
    house.block("slow.example:80", 3600)
    sweep = house.ask(FEED.format(host="slow", path=1))["sweep_id"]
    view = house.shown(sweep)
    assert (view["running"], view["state"]) == (False, "FAILED")
    assert "asked to be left alone" in view["error"]


def test_a_host_that_asks_for_a_short_rest_is_waited_for(house: House) -> None:
    house.block("slow.example:80", 30)
    sweep = house.ask(FEED.format(host="slow", path=1))["sweep_id"]
    assert house.shown(sweep)["running"]
    house.clock.advance(30)
    assert house.round() == [FEED.format(host="slow", path=1)]


# -- how it ends -----------------------------------------------------------------------------------------------------


def end(house: House, name: str, how: str) -> None:
    {"ok": house.finish, "failed": house.fail, "timeout": house.overdue}[how](name)


@pytest.mark.parametrize(
    ("outcomes", "state", "error"),
    [
        (["ok", "ok"], "COMPLETED", None),
        (["failed", "timeout", "ok"], "COMPLETED", None),
        (["failed", "timeout", "failed"], "TIMEOUT", "2 failed and 1 timed out, of 3: no luck"),
        (["failed", "failed"], "FAILED", "2 failed, of 2: no luck"),
        (["timeout"], "TIMEOUT", "1 timed out, of 1: the scrape ran longer than 60 s"),
    ],
)
def test_a_sweep_is_completed_if_one_was_else_timeout_else_failed(
    house: House, outcomes: list[str], state: str, error: str | None
) -> None:
    house.pool.size = 4
    for n in range(len(outcomes)):
        house.track(f"good:{n}")
    sweep = refresh(house)
    house.round()
    for n, how in enumerate(outcomes):
        end(house, str(n), how)
    view = house.shown(sweep)
    assert (view["state"], view["running"], view["error"]) == (state, False, error)
    counts = [outcomes.count(word) for word in ("ok", "failed", "timeout")]
    assert [view[f"{word}_users"] for word in ("completed", "failed", "timed_out")] == counts
    assert view["progress"].endswith(f"{counts[0]} of {len(outcomes)} scraped")


def test_an_error_of_one_of_two_overlapping_sweeps_is_still_said_at_the_end(house: House) -> None:
    house.track("good:a")
    all_ = refresh(house)
    house.round()
    one = house.ask("good:b")["sweep_id"]
    house.round()
    house.fail("b")
    assert house.shown(one)["error"] == "1 failed, of 1: no luck"
    assert house.shown()["error"] is None  # that of a sweep which is still running is not known
    house.finish("a")
    view = house.shown()
    assert (view["sweep_id"], view["state"], view["error"]) == (all_, "COMPLETED", "1 failed, of 1: no luck")


def test_an_error_is_carried_on_over_more_than_one_overlap_and_then_forgotten(house: House) -> None:
    house.pool.size = 4
    for name in "abc":
        house.add(f"good:{name}")
    house.round()
    house.fail("a")
    house.finish("b")
    house.finish("c")
    assert house.shown()["error"] == "1 failed, of 1: no luck"
    house.run("good:d")
    assert house.shown()["error"] is None


@pytest.mark.parametrize("text", ["<script>alert(1)</script> & more", "line\x1b[2J"])
def test_no_text_of_a_scraper_reaches_the_older_status(house: House, text: str) -> None:
    target = house.add("good:a")
    house.round()
    house.progress("a", text)
    for view in (house.shown(), house.status(target)):
        assert not set("<>&\x1b") & set(view["progress"])
    house.fail("a", text, ours=False)
    view = house.shown()
    assert view["error"] == "1 failed, of 1: the scraper reported an error"
    assert "alert" not in view["progress"]


def test_a_name_of_a_target_is_shown_without_markup(house: House) -> None:
    house.add("http://a.example/?x=1&y=2")
    house.round()
    view = house.shown()
    assert view["current_user"] == "http://a.example/?x=1y=2"
    assert "&" not in view["progress"]


# -- the older reset -------------------------------------------------------------------------------------------------


def test_reset_is_refused_while_a_sweep_is_active_and_says_for_how_long(house: House) -> None:
    target = house.add("good:a")
    house.round()
    house.clock.advance(12)
    with pytest.raises(Refused) as refusal:
        house.service.reset_sweeps()
    details: dict[str, Any] = refusal.value.details
    assert (details["refused_by"], details["running_for_s"]) == ("overdue", 12)
    assert "force" in str(refusal.value.hint)
    assert house.status(target)["state"] == "RUNNING"


def test_reset_looks_at_sweeps_only_and_leaves_scheduled_runs_alone(house: House) -> None:
    target = house.track("good:a", due_in_s=0)
    house.round()
    house.service.reset_sweeps()
    assert house.status(target)["state"] == "RUNNING"


def test_a_forced_reset_ends_everything_and_keeps_the_regular_schedule(house: House) -> None:
    scheduled = house.track("good:scheduled", due_in_s=0)
    house.round()
    asked, queued = house.add("good:asked"), house.add("good:queued", schedule="every 10m")
    house.round()
    house.track("good:idle")
    sweep = refresh(house)
    house.service.reset_sweeps(force=True)
    view = house.shown()
    assert (view["running"], view["state"], view["error"], view["current_user"]) == (False, "IDLE", None, None)
    assert view["counts"] == {"IDLE": 4, "RUNNING": 0, "COMPLETED": 0, "FAILED": 0, "TIMEOUT": 0}
    assert view["sweep_id"] == sweep
    assert house.pool.running == {}
    assert set(members(house, sweep).values()) == {"IDLE"}
    assert [house.status(t)["state"] for t in (scheduled, asked, queued)] == ["IDLE"] * 3
    assert house.round() == []
    assert house.status(queued)["next_due_at"] is not None
    row = house.journal(asked)[0]
    assert (row["trigger"], row["forced"], row["reason"], row["actor"]) == ("reset", True, "older API", "api")
    house.clock.advance(631)
    assert house.round()


def test_after_a_reset_everything_can_be_asked_for_again(house: House) -> None:
    house.add("good:a")
    house.round()
    house.service.reset_sweeps(force=True, reason="")
    refresh(house)
    assert house.round() == ["a"]


def test_reset_clears_an_error_that_is_shown(house: House) -> None:
    house.add("good:a")
    house.round()
    house.fail("a")
    house.service.reset_sweeps()
    view = house.shown()
    assert (view["state"], view["error"], view["progress"]) == ("IDLE", None, "Idle")


def test_reset_of_nothing_is_fine(house: House) -> None:
    assert house.service.reset_sweeps() == {"message": "Reset"}
    assert house.service.reset_sweeps(force=True) == {"message": "Reset"}


# -- restart ---------------------------------------------------------------------------------------------------------


def test_a_sweep_goes_on_after_a_restart(tmp_path: Path) -> None:
    with House(tmp_path, size=1) as house:
        for name in "abc":
            house.track(f"good:{name}", schedule="manual")
        sweep = refresh(house)
        house.round()
        house.finish("a", Post(native_id="1", title="kept"))
        house.round()
    with House(tmp_path, clock=house.clock) as again:
        view = again.shown()
        assert (view["running"], view["sweep_id"], view["completed_users"]) == (True, sweep, 1)
        assert view["counts"]["RUNNING"] == 0
        assert sorted(again.round()) == ["b", "c"]  # interrupted, and still queued
        again.finish("b")
        assert again.shown()["running"]
        again.finish("c")
        assert (again.shown()["state"], again.shown()["completed_users"]) == ("COMPLETED", 3)


@pytest.mark.parametrize("times", [1, 2])
def test_a_member_that_was_interrupted_and_then_paused_is_done(tmp_path: Path, times: int) -> None:
    with House(tmp_path) as house:
        target = house.add("good:a")
        house.round()
    for _ in range(times - 1):  # from the second on it is not on the queue, but due after a while
        with House(tmp_path, clock=house.clock) as house:
            assert house.round() == ["a"]
    with House(tmp_path, clock=house.clock) as again:
        assert again.shown()["running"]
        pause(again, target)
        assert (again.shown()["running"], again.shown()["state"]) == (False, "IDLE")


# -- the net ---------------------------------------------------------------------------------------------------------


def stuck(house: House) -> int:
    """A sweep of a target that nobody starts, since no test of these makes a round."""
    return house.add("good:a", schedule="every 1h")


def test_a_sweep_in_which_nothing_moves_is_ended_by_the_timeout_check(house: House) -> None:
    target = stuck(house)
    house.check()
    house.clock.advance(60 + 30)
    house.check()
    assert house.shown()["running"]
    house.clock.advance(0.1)
    house.check()
    view = house.shown()
    assert (view["running"], view["state"], view["timed_out_users"]) == (False, "TIMEOUT", 1)
    assert view["error"] == "1 timed out, of 1: nothing moved in this sweep for too long"
    status = house.status(target)
    assert status["phase"] is None and status["next_due_at"] is not None
    assert (status["state"], status["error"]) == ("IDLE", None)


def test_progress_of_one_member_keeps_a_sweep_alive(house: House) -> None:
    house.pool.size = 1
    for name in "ab":
        house.track(f"good:{name}")
    sweep = refresh(house)
    house.check()
    house.clock.advance(80)
    assert house.round() == ["a"]
    house.pool.size = 2  # one is free, and b is not started all the same
    house.clock.advance(50)
    house.progress("a")
    house.clock.advance(9)
    house.check()
    assert house.shown(sweep)["running"]


def test_while_no_worker_is_free_nothing_is_ended(house: House) -> None:
    house.pool.size = 0
    house.add("good:a")
    for _ in range(10):
        house.clock.advance(60)
        house.check()
    assert house.shown()["running"]


def test_the_longest_time_limit_of_a_member_counts(house: House) -> None:
    target = stuck(house)
    house.set(target, timeout_s=500)
    house.check()
    house.clock.advance(520)
    house.check()
    assert house.shown()["running"]
    house.clock.advance(11)
    house.check()
    assert not house.shown()["running"]


def test_a_sweep_whose_members_are_all_done_is_ended_by_the_check(house: House) -> None:
    from sqlalchemy import text

    sweep = house.ask("good:a")["sweep_id"]
    house.writer.run(lambda tx: tx.conn.execute(text("UPDATE sweep_members SET outcome = 'FAILED'")))
    house.check()
    assert not house.shown(sweep)["running"]
