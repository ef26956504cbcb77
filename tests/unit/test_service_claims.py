"""Who is started, in which order, and who is not: the claim, the gate per host, pauses."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from errors import AlreadyRunning, Draining, Refused
from tests.support.fake_pool import House

FEED = "http://{host}.example/{path}"


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        yield house


def one_by_one(house: House, most: int = 20) -> list[str]:
    """Let a single worker do what there is; the handles, in order."""
    house.pool.size = 1
    handles: list[str] = []
    while (started := house.round()) and len(handles) < most:
        handles += started
        house.finish(started[0])
    return handles


# -- order -----------------------------------------------------------------------------------------------------------


def test_a_single_request_goes_before_a_refresh_all_and_that_before_the_schedule(house: House) -> None:
    house.track("good:paused-then-due")
    for name in ("old", "new"):
        house.track(f"good:{name}")
    house.service.refresh_all()
    house.track("good:due", due_in_s=-3600)
    house.clock.advance(1)
    house.add("good:asked")
    assert one_by_one(house) == ["asked", "paused-then-due", "old", "new", "due"]


def test_among_equals_the_oldest_goes_first(house: House) -> None:
    for name, due_in_s in (("b", -20), ("c", -10), ("a", -30)):
        house.track(f"good:{name}", due_in_s=due_in_s)
    for name in ("y", "x"):
        house.clock.advance(1)
        house.add(f"good:{name}")
    assert one_by_one(house) == ["y", "x", "a", "b", "c"]


def test_no_more_are_claimed_than_workers_are_free(house: House) -> None:
    for name in "abc":
        house.add(f"good:{name}")
    assert house.round() == ["a", "b"]
    assert house.round() == []
    house.finish("b")
    assert house.round() == ["c"]


def test_what_is_not_due_yet_is_not_claimed(house: House) -> None:
    house.track("good:a", due_in_s=10)
    assert house.round() == []
    house.clock.advance(10)
    assert house.round() == ["a"]


def test_an_added_target_that_is_not_to_start_waits_for_its_schedule(house: House) -> None:
    target = house.track("good:a", schedule="every 10m")
    assert house.round() == []
    assert house.service.target(target)["phase"] is None
    house.clock.advance(631)
    assert house.round() == ["a"]


def test_a_scheduled_target_comes_again_and_missed_turns_are_one(house: House) -> None:
    house.run("good:a", schedule="every 10m")
    house.clock.advance(10 * 3600)
    assert house.round() == ["a"]
    house.finish("a")
    assert house.round() == []


def test_a_manual_target_is_only_started_by_request(house: House) -> None:
    target = house.run("good:a", schedule="manual")
    house.clock.advance(1e7)
    assert house.round() == []
    assert house.status(target)["next_due_at"] is None
    house.add("good:a")
    assert house.round() == ["a"]


def test_every_target_that_is_due_comes_once_however_many_there_are(house: House) -> None:
    house.pool.size = 8
    for n in range(40):
        house.track(f"good:{n}", due_in_s=-n)
    handles: list[str] = []
    while started := house.round():
        handles += started
        for handle in started:
            house.finish(handle)
    assert handles == [str(n) for n in reversed(range(40))]


# -- what the order says ---------------------------------------------------------------------------------------------


def test_a_target_may_have_a_time_limit_of_its_own(house: House) -> None:
    house.add("good:a", timeout_s=7.5)
    house.add("good:b")
    house.round()
    assert [house.order(handle).timeout_s for handle in "ab"] == [7.5, 60]


def test_the_range_that_was_asked_for_reaches_the_worker(house: House) -> None:
    house.run("good:a", range_=5)
    house.add("good:a", range_=7)
    house.round()
    assert house.order("a").target.range == 7


def test_what_a_scraper_wants_remembered_is_handed_back(house: House) -> None:
    target = house.run("good:a")
    house.set(target, remember={"cursor": "9"})
    house.add("good:a")
    house.round()
    assert house.order("a").target.remember == {"cursor": "9"}


def test_tokens_only_grow_and_the_run_is_the_token(house: House) -> None:
    seen = []
    for _ in range(3):
        target = house.run("good:a")
        seen += [house.pool.orders[-1].token, house.status(target)["token"]]
    assert seen == sorted(set(seen))
    assert all(order.run_id == order.token for order in house.pool.orders)


# -- asking ----------------------------------------------------------------------------------------------------------


def test_who_asks_for_what_is_queued_is_refused(house: House) -> None:
    house.add("good:a")
    with pytest.raises(AlreadyRunning) as refusal:
        house.add("good:a")
    assert refusal.value.details["refused_by"] == "not_queued"


def test_who_asks_for_what_was_asked_for_and_runs_is_refused(house: House) -> None:
    house.add("good:a")
    house.round()
    with pytest.raises(AlreadyRunning) as refusal:
        house.add("good:a")
    assert refusal.value.details["refused_by"] == "not_running"


def test_who_asks_for_a_scheduled_run_joins_it_once(house: House) -> None:
    house.track("good:a", due_in_s=0)
    house.round()
    sweep = house.ask("good:a")["sweep_id"]
    with pytest.raises(AlreadyRunning):
        house.add("good:a")
    assert house.shown(sweep)["running"]
    house.finish("a")
    assert house.shown(sweep)["state"] == "COMPLETED"
    assert len(house.pool.orders) == 1


def test_a_scheduled_run_that_a_refresh_joined_was_asked_for(house: House) -> None:
    house.track("good:a", due_in_s=0)
    house.round()
    house.service.refresh_all()
    with pytest.raises(AlreadyRunning):
        house.add("good:a")


def test_a_refused_request_changes_nothing_of_the_target(house: House) -> None:
    target = house.add("good:a", schedule="every 1h", range_=5)
    with pytest.raises(AlreadyRunning):
        house.add("good:a", schedule="every 2h", range_=9)
    assert house.service.target(target)["schedule"] == "every 1h"
    assert house.column(target, "range") == 5
    assert house.count("sweeps") == 1


def test_adding_again_may_change_the_schedule(house: House) -> None:
    target = house.run("good:a")
    house.add("good:a", schedule="every 2h")
    assert house.service.target(target)["schedule"] == "every 2h"


def test_tracking_what_is_tracked_is_refused(house: House) -> None:
    house.track("good:a")
    with pytest.raises(Refused) as refusal:
        house.add("good:a", again=False)
    assert refusal.value.details["refused_by"] == "not_tracked"


def test_asking_for_an_overdue_run_ends_it_and_queues_behind_it(house: House) -> None:
    target = house.add("good:a")
    house.round()
    house.pool.dies_at_once = False
    house.clock.advance(61)
    house.add("good:a")
    status = house.status(target)
    assert (status["state"], status["worker"], status["triggers"]["start"]["refused_by"]) == (
        "TIMEOUT",
        "stopping",
        "worker_gone",
    )
    assert house.round() == []  # its old worker is not gone
    house.pool.bury()
    assert house.status(target)["phase"] == "queued"
    assert house.round() == ["a"]


def test_a_target_whose_worker_is_stopping_is_passed_over_without_a_refusal(house: House) -> None:
    target = house.add("good:a")
    house.round()
    house.pool.dies_at_once = False
    house.service.transition(target, trigger="reset", force=True, reason="test")
    house.add("good:a")
    rows = len(house.journal(target))
    assert [house.round() for _ in range(5)] == [[]] * 5
    assert len(house.journal(target)) == rows


def test_while_the_daemon_drains_nothing_is_asked_for_or_claimed(house: House) -> None:
    house.track("good:a", due_in_s=0)
    house.core.draining = True
    assert house.round() == []
    with pytest.raises(Draining):
        house.add("good:b")


# -- pauses ----------------------------------------------------------------------------------------------------------


def pause(house: House, target: int, seconds: float = 3600) -> None:
    house.service.patch(target, {"paused_until": house.clock.now() + timedelta(seconds=seconds)})


def test_a_paused_target_is_not_claimed_until_the_pause_ends(house: House) -> None:
    target = house.track("good:a", due_in_s=0)
    pause(house, target)
    house.clock.advance(3599)
    assert house.round() == []
    house.clock.advance(1)
    assert house.round() == ["a"]


def test_a_pause_takes_a_request_off_the_queue(house: House) -> None:
    target = house.add("good:a")
    pause(house, target)
    assert house.round() == []
    assert house.status(target)["phase"] is None
    assert house.status(target)["next_due_at"] is not None
    assert not house.shown()["running"]


def test_resuming_lets_the_schedule_go_on(house: House) -> None:
    target = house.track("good:a", due_in_s=0)
    pause(house, target)
    house.service.patch(target, {"paused_until": None})
    assert house.round() == ["a"]


def test_asking_for_a_paused_target_is_refused_and_names_the_guard(house: House) -> None:
    target = house.track("good:a")
    pause(house, target)
    with pytest.raises(Refused) as refusal:
        house.service.transition(target, trigger="start")
    assert refusal.value.details["refused_by"] == "not_paused"
    assert house.status(target)["triggers"]["start"] == {"possible": False, "refused_by": "not_paused"}


def test_a_forced_start_runs_a_paused_target_once(house: House) -> None:
    target = house.track("good:a", schedule="every 1m")
    pause(house, target)
    house.service.transition(target, trigger="start", force=True, reason="look now")
    assert house.round() == ["a"]
    house.finish("a")
    house.clock.advance(600)
    assert house.round() == []
    started = next(row for row in house.journal(target) if row["trigger"] == "start")
    assert started["forced"]


def test_a_pause_does_not_end_what_runs(house: House) -> None:
    target = house.add("good:a")
    house.round()
    pause(house, target)
    assert house.status(target)["state"] == "RUNNING"
    house.finish("a")
    assert house.status(target)["state"] == "COMPLETED"


# -- the gate per host -----------------------------------------------------------------------------------------------


def feeds(house: House, host: str, count: int) -> list[str]:
    urls = [FEED.format(host=host, path=n) for n in range(count)]
    for url in urls:
        house.add(url)
    return urls


def test_one_run_at_a_time_on_one_host_and_no_wait_for_others(house: House) -> None:
    house.pool.size = 8
    slow, quick = feeds(house, "slow", 5), feeds(house, "quick", 1)
    assert house.round() == [slow[0], *quick]
    house.finish(quick[0])
    assert house.round() == []
    house.finish(slow[0])
    assert house.round() == [slow[1]]


def test_a_host_may_be_allowed_more_runs_at_once(tmp_path: Path) -> None:
    with House(tmp_path, size=8, host_concurrency=3) as house:
        urls = feeds(house, "slow", 5)
        assert house.round() == urls[:3]
        house.finish(urls[1])
        assert house.round() == urls[3:4]


def test_the_same_name_with_another_port_is_another_host(house: House) -> None:
    house.pool.size = 8
    for url in ("http://a.example/1", "http://a.example:8080/1", "http://A.example:80/2"):
        house.add(url)
    assert house.round() == ["http://a.example/1", "http://a.example:8080/1"]


def test_targets_without_a_host_do_not_wait_for_each_other(house: House) -> None:
    house.pool.size = 8
    for n in range(5):
        house.add(f"good:{n}")
    assert len(house.round()) == 5


def test_a_host_rests_between_two_runs(tmp_path: Path) -> None:
    with House(tmp_path, host_delay_s=5) as house:
        urls = feeds(house, "slow", 2)
        assert house.round() == urls[:1]
        house.finish(urls[0])
        assert house.round() == []
        assert house.service.hosts(limit=10, cursor=None)["hosts"][0]["host"] == "slow.example:80"
        house.clock.advance(5)
        assert house.round() == urls[1:]


def test_a_host_that_says_wait_is_waited_for_and_no_other(house: House) -> None:
    slow, quick = feeds(house, "slow", 2), feeds(house, "quick", 1)
    house.round()
    house.fail(slow[0], retry_after_s=30)
    house.finish(quick[0])
    more = feeds(house, "other", 1)
    assert house.round() == more
    house.clock.advance(29)
    assert house.round() == []
    hosts = house.service.hosts(limit=10, cursor=None)["hosts"]
    assert [(h["host"], "Retry-After" in h["reason"]) for h in hosts if not h["running"]] == [("slow.example:80", True)]
    house.clock.advance(1)
    assert house.round() == slow[1:]


def test_a_shorter_wait_does_not_shorten_a_longer_one(tmp_path: Path) -> None:
    with House(tmp_path, host_delay_s=1, host_concurrency=2) as house:
        urls = feeds(house, "slow", 3)
        assert house.round() == urls[:1]
        house.clock.advance(1)
        assert house.round() == urls[1:2]
        house.fail(urls[0], retry_after_s=30)
        house.finish(urls[1])
        house.clock.advance(2)
        assert house.round() == []


def test_a_rest_that_a_host_asked_for_outlives_a_restart(tmp_path: Path) -> None:
    with House(tmp_path) as house:
        house.run(FEED.format(host="slow", path=0))
        house.add(FEED.format(host="slow", path=0))
        house.round()
        house.fail(FEED.format(host="slow", path=0), retry_after_s=45)
    with House(tmp_path, clock=house.clock) as again:
        again.add(FEED.format(host="slow", path=1))
        assert again.round() == []
        again.clock.advance(45)
        assert again.round() == [FEED.format(host="slow", path=1)]


def test_a_thousand_targets_on_a_busy_host_do_not_hide_the_others(house: House) -> None:
    for n in range(60):
        house.track(FEED.format(host="slow", path=n), due_in_s=-1000)
    house.track("good:a", due_in_s=0)
    assert house.round() == [FEED.format(host="slow", path=0), "a"]
