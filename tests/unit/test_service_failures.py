"""What follows a failure: when it is tried again, what pauses a target, what moves it, what is our own network's."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from errors import BadRequest, Refused
from jobs.backoff import DAY_S, PAUSE_MOST_S
from jobs.network import RETRY_S
from model import Outcome
from tests.support.fake_pool import House

FEED = "http://{host}.example/feed"
URL = FEED.format(host="a")


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path) as house:
        yield house


def wait_s(house: House, target: int) -> float:
    """Until it is due (seconds)."""
    due = datetime.fromisoformat(house.status(target)["next_due_at"])
    return (due - house.clock.now()).total_seconds()


def again(house: House, target: int) -> None:
    """Let time pass until it is due, and claim it."""
    house.clock.advance(wait_s(house, target) + 0.01)
    assert house.round()


def running(house: House, url: str = URL, **more: Any) -> int:
    target = house.add(url, **({"schedule": "every 10m"} | more))
    assert house.round() == [url]
    return target


# -- how soon again --------------------------------------------------------------------------------------------------


def test_what_is_not_found_three_times_is_looked_for_once_a_day(house: House) -> None:
    target = running(house)
    for _ in range(2):
        house.fail(URL, status=404)
        assert wait_s(house, target) < 0.1 * DAY_S
        again(house, target)
    for _ in range(3):
        house.fail(URL, status=404)
        assert 0.7 * DAY_S < wait_s(house, target) < 1.3 * DAY_S
        again(house, target)
    house.finish(URL)
    assert wait_s(house, target) < 700


def test_what_is_gone_is_looked_for_once_a_day_from_the_first_time(house: House) -> None:
    target = running(house)
    house.fail(URL, status=410)
    assert 0.7 * DAY_S < wait_s(house, target) < 1.3 * DAY_S
    assert house.service.target(target)["paused_until"] is None


def test_other_statuses_back_off_to_the_cap_and_no_further(tmp_path: Path) -> None:
    with House(tmp_path, backoff_cap_s=1000) as house:
        target = running(house)
        for _ in range(12):
            house.fail(URL, status=500)
            again(house, target)
        house.fail(URL, status=500)
        assert 700 <= wait_s(house, target) <= 1300


def test_a_run_without_a_turn_comes_again_soon_and_is_not_counted(house: House) -> None:
    target = running(house)
    house._tell(URL, Outcome(ok=False, error="b.example:80 is busy", no_turn=True, retry_after_s=60))
    assert house.status(target)["attempt"] == 0
    assert 40 <= wait_s(house, target) <= 80  # sooner than its schedule
    assert [row["host"] for row in house.service.hosts(limit=9, cursor=None)["hosts"]] == []


@pytest.mark.parametrize("ours", [True, False])
def test_a_wait_that_only_a_scraper_heard_is_its_hosts(house: House, ours: bool) -> None:
    running(house)
    house._tell(URL, Outcome(ok=False, error="busy", retry_after_s=60, untold=not ours))
    assert house.core.hosts.wait_s("a.example:80") == (0 if ours else 60)


# -- not let in ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 403])
def test_a_site_that_does_not_let_us_in_pauses_the_target_and_says_why(house: House, status: int) -> None:
    target = running(house)
    house.fail(URL, "the server answered with 403", status=status)
    shown = house.service.target(target)
    assert shown["paused_why"] == f"the site does not let us in (status {status})"
    paused = datetime.fromisoformat(shown["paused_until"]) - house.clock.now()
    assert timedelta(days=1) <= paused < timedelta(days=1.1)
    house.clock.advance(DAY_S - 1)
    assert house.round() == []
    house.clock.advance(0.1 * DAY_S)
    assert house.round() == [URL]


def test_each_time_the_pause_is_twice_as_long_up_to_a_week(house: House) -> None:
    target, waits = running(house), []
    for _ in range(6):
        house.fail(URL, status=403)
        waits.append(round(wait_s(house, target) / DAY_S))
        again(house, target)
    assert waits == [1, 2, 4, 7, 7, 7] and max(waits) * DAY_S == PAUSE_MOST_S


def test_a_refresh_of_all_does_not_lift_such_a_pause(house: House) -> None:
    running(house)
    house.fail(URL, status=403)
    with pytest.raises(BadRequest, match="all are paused"):
        house.service.refresh_all()
    other = house.track("good:b")
    house.service.refresh_all()
    assert house.round() == ["b"]
    assert house.shown()["total_users"] == 1
    assert house.service.target(other)["paused_why"] is None


@pytest.mark.parametrize("how", ["add", "start"])
def test_who_asks_for_the_target_lifts_it(house: House, how: str) -> None:
    target = running(house)
    house.fail(URL, status=403)
    if how == "add":
        house.add(URL)
    else:
        house.service.transition(target, trigger="start")
    shown = house.service.target(target)
    assert (shown["paused_until"], shown["paused_why"]) == (None, None)
    assert house.round() == [URL]
    house.finish(URL)
    house.clock.advance(700)
    assert house.round() == [URL]


def test_a_manual_target_is_paused_too_or_every_refresh_of_all_would_ask(house: House) -> None:
    target = running(house, schedule="manual")
    house.fail(URL, status=403)
    with pytest.raises(BadRequest):
        house.service.refresh_all()
    house.add(URL)
    assert house.round() == [URL]
    assert house.service.target(target)["paused_why"] is None


@pytest.mark.parametrize("retry_after_s", [0.0, 30.0])
def test_a_rate_limit_is_no_pause(house: House, retry_after_s: float) -> None:
    target = running(house)
    house.fail(URL, status=403, retry_after_s=retry_after_s)
    shown = house.service.target(target)
    assert (shown["paused_until"], shown["paused_why"]) == (None, None)
    assert wait_s(house, target) < 700


def test_an_operators_pause_stays_the_operators(house: House) -> None:
    target = running(house)
    until = house.clock.now() + timedelta(days=30)
    house.service.patch(target, {"paused_until": until})
    house.fail(URL, status=403)
    shown = house.service.target(target)
    assert (shown["paused_until"], shown["paused_why"]) == (until.isoformat(timespec="milliseconds"), None)
    with pytest.raises(Refused):
        house.service.transition(target, trigger="start")


def test_the_reason_goes_with_the_pause(house: House) -> None:
    target = running(house)
    house.fail(URL, status=403)
    again(house, target)
    house.fail(URL, status=500)
    assert house.service.target(target)["paused_why"] is None


# -- moved -----------------------------------------------------------------------------------------------------------

NEW = "http://new.example/feed"


def scraped(house: House, target: int, moved_to: str = "", **more: Any) -> str:
    """One run that completed; the address the target has after it."""
    house.service.transition(target, trigger="start")
    assert house.round()
    house.finish(URL, **({"moved_to": moved_to, "reached": True} | more))
    url: str = house.service.target(target)["url"]
    return url


def test_an_address_that_leads_elsewhere_for_ever_is_believed_the_third_time(house: House) -> None:
    target = house.track(URL)
    assert [scraped(house, target, NEW) for _ in range(3)] == [URL, URL, NEW]
    shown = house.service.target(target)
    assert (shown["handle"], house.column(target, "host")) == (URL, "new.example:80")
    house.service.transition(target, trigger="start")
    house.round()
    assert house.order(URL).target.url == NEW


@pytest.mark.parametrize("between", ["", "http://other.example/feed"])
def test_a_change_of_mind_starts_anew(house: House, between: str) -> None:
    target = house.track(URL)
    moves = [NEW, NEW, between, NEW, NEW, NEW]
    assert [scraped(house, target, move) for move in moves] == [URL] * 5 + [NEW]


def test_a_run_that_asked_for_nothing_and_one_that_failed_say_nothing_of_it(house: House) -> None:
    target = house.track(URL)
    for _ in range(2):
        scraped(house, target, NEW)
    scraped(house, target, reached=False)
    house.service.transition(target, trigger="start")
    house.round()
    house.fail(URL, status=500)
    assert scraped(house, target, NEW) == NEW


@pytest.mark.parametrize("where", ["ftp://new.example/", "http://u:p@new.example/", "http://new example/"])
def test_a_place_where_we_do_not_go_is_not_believed(house: House, where: str) -> None:
    target = house.track(URL)
    assert [scraped(house, target, where) for _ in range(4)] == [URL] * 4


def test_the_address_of_an_account_is_its_sources_to_know(house: House) -> None:
    target = house.track("github:ann")
    before = house.service.target(target)["url"]
    for _ in range(4):
        house.service.transition(target, trigger="start")
        house.round()
        house.finish("ann", moved_to=NEW, reached=True)
    assert house.service.target(target)["url"] == before


# -- our own network -------------------------------------------------------------------------------------------------


def down(house: House) -> list[int]:
    """Targets on three hosts at which nobody answers."""
    house.pool.size = 8
    urls = [FEED.format(host=host) for host in "abc"]
    targets = [house.add(url, schedule="every 2m") for url in urls]
    house.round()
    for url in urls:
        house.fail(url, "the name cannot be resolved", unreachable=True)
    return targets


def network(house: House) -> str:
    shown, good = house.service.ready()
    assert good
    return str(shown["network"])


def test_nobody_answering_at_three_hosts_is_our_own_fault_and_the_next_answer_ends_it(house: House) -> None:
    targets = down(house)
    assert network(house) == "down"
    assert house.status(targets[2])["attempt"] == 0
    assert 0.7 * RETRY_S <= wait_s(house, targets[2]) <= 1.3 * RETRY_S  # sooner than its schedule
    for _ in range(3):
        house.clock.advance(5 * RETRY_S)
        before = [house.status(target)["attempt"] for target in targets]
        for handle in house.round():
            house.fail(handle, unreachable=True)
        assert [house.status(target)["attempt"] for target in targets] == before
    house.clock.advance(5 * RETRY_S)
    assert len(house.round()) == 3
    house.fail(URL, status=500)
    assert network(house) == "ok"
    house.fail(FEED.format(host="b"), unreachable=True)
    assert house.status(targets[1])["attempt"] == 2


def test_an_answer_between_says_that_it_is_theirs(house: House) -> None:
    house.pool.size = 8
    for host in "abcd":
        house.add(FEED.format(host=host))
    house.round()
    house.fail(FEED.format(host="a"), unreachable=True)
    house.fail(FEED.format(host="b"), unreachable=True)
    house.finish(FEED.format(host="d"), reached=True)
    house.fail(FEED.format(host="c"), unreachable=True)
    assert network(house) == "ok"


def test_three_failures_at_one_host_are_its_own(house: House) -> None:
    target = running(house)
    for _ in range(3):
        house.fail(URL, unreachable=True)
        assert network(house) == "ok"
        again(house, target)
    house.fail(URL, unreachable=True)
    assert house.status(target)["attempt"] == 4


# -- fresh -----------------------------------------------------------------------------------------------------------


def test_what_is_not_remembered_is_not_fresh(house: House) -> None:
    target = house.track(URL)
    scraped(house, target, fresh_s=3600)
    assert house.column(target, "fresh_until") is None
    scraped(house, target, fresh_s=3600, remember={"url": URL})
    assert house.column(target, "fresh_until") == house.clock.now() + timedelta(hours=1)
    scraped(house, target, fresh_s=3600, reached=False)
    assert house.pool.orders[-1].fresh_s == 3600


def test_a_fresh_target_holds_no_host_and_waits_for_none(house: House) -> None:
    house.pool.size = 8
    target = house.track(URL)
    scraped(house, target, fresh_s=3600, remember={"url": URL})
    other = "http://a.example/other"
    house.add(other)
    assert house.round() == [other]
    house.service.transition(target, trigger="start")
    third = "http://a.example/third"
    house.add(third)
    assert house.round() == [URL]
    house.finish(URL, fresh_s=3000)
    assert house.round() == []
    house.finish(other)
    assert house.round() == [third]


def test_a_forced_start_asks_although_it_is_fresh(house: House) -> None:
    target = house.track(URL)
    scraped(house, target, fresh_s=3600, remember={"url": URL})
    house.service.transition(target, trigger="start", force=True, reason="look now")
    house.round()
    assert house.pool.orders[-1].fresh_s == 0
