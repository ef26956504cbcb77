"""Runs that ask for more than their first turn: pages, redirects, each other's hosts, turns that are not given back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, family, send
from tests.support.feeds import RSS, Gate, rss
from tests.support.guests import check_manners, sites, wait_over
from tests.support.settings import scrapers
from tests.support.sites import Reply, Site
from tests.support.waiting import wait_until

DELAY_S = 0.3


@contextmanager
def guest(home: Path, **more: object) -> Iterator[Daemon]:
    given = {"host_delay_s": DELAY_S, "workers": 8, "default_schedule": "manual", "stop_grace_s": 0.5}
    with Daemon(home, **(given | scrapers() | more)) as daemon:
        yield daemon


def is_waiting(daemon: Daemon, host: str) -> bool:
    """One run waits for a turn there."""
    return any(row["host"] == host and row["waiting"] == 1 for row in daemon.get("/api/hosts")["hosts"])


def feed(site: Site, *paths: str, after_s: float = 0.0) -> list[str]:
    """Feeds that take so long (seconds); their addresses."""
    for path in paths:
        site.answer_with(path, lambda _: Reply(body=rss("one"), headers={"Content-Type": RSS}, after_s=after_s))
    return [site.url(path) for path in paths]


def ended(daemon: Daemon, *answers: dict[str, Any], within_s: float = 15) -> list[dict[str, Any]]:
    """Statuses of what was asked for, at their ends."""
    for answer in answers:
        wait_over(daemon, answer["sweep_id"], within_s=within_s)
    return [daemon.status(int(answer["user"]["id"])) for answer in answers]


def test_a_source_that_asks_a_host_again_waits_like_anybody_else(tmp_path: Path) -> None:
    with sites(1) as (site,), guest(tmp_path / "data") as daemon:
        pages = feed(site, "/1", "/2", "/3")
        both = [daemon.add(f"fetches_all:|{'|'.join(pages)}"), daemon.add(f"fetches_all:|{'|'.join(pages[::-1])}")]
        assert {status["state"] for status in ended(daemon, *both)} == {"COMPLETED"}
    check_manners(site, delay_s=DELAY_S)
    assert len(site.visits) == 6


def test_runs_that_are_redirected_to_one_host_wait_for_each_other(tmp_path: Path) -> None:
    with sites(4) as (one, other, third, shared), guest(tmp_path / "data") as daemon:
        feed(shared, "/feed", after_s=0.5)
        for site in (one, other, third):
            site.answer("/feed", status=302, Location=shared.url("/feed"))
        answers = [daemon.add(site.url("/feed")) for site in (one, other, third)]
        assert {status["state"] for status in ended(daemon, *answers)} == {"COMPLETED"}
    check_manners(shared, delay_s=DELAY_S)
    assert len(shared.visits) == 3


def test_a_host_that_is_led_to_waits_for_its_own_targets_and_they_for_it(tmp_path: Path) -> None:
    with sites(2) as (one, shared), guest(tmp_path / "data") as daemon:
        own = feed(shared, "/1", "/2", "/3", after_s=0.3)
        one.answer("/feed", status=302, Location=own[0])
        answers = [daemon.add(url) for url in (*own, one.url("/feed"))]
        assert {status["state"] for status in ended(daemon, *answers)} == {"COMPLETED"}
    check_manners(shared, delay_s=DELAY_S)
    assert len(shared.visits) == 4


def test_runs_that_want_each_others_hosts_come_to_an_end(tmp_path: Path) -> None:
    with sites(2) as (one, other), guest(tmp_path / "data") as daemon:
        (a,), (b,) = feed(one, "/feed", after_s=0.3), feed(other, "/feed", after_s=0.3)
        one.answer("/over", status=302, Location=b)
        other.answer("/over", status=302, Location=a)
        answers = [daemon.add(one.url("/over")), daemon.add(other.url("/over"))]
        answers += [daemon.add(f"fetches_all:|{'|'.join(urls)}") for urls in ([a, b, a, b], [b, a, b, a])]
        assert {status["state"] for status in ended(daemon, *answers)} == {"COMPLETED"}
    for site in (one, other):
        check_manners(site, delay_s=DELAY_S)


def test_a_run_that_waits_for_a_turn_dies_at_its_deadline_and_leaves_no_place_in_the_line(tmp_path: Path) -> None:
    with sites(1) as (site,), guest(tmp_path / "data", stall_timeout_s=60) as daemon:
        gate = Gate(site, "/hangs", rss("late"))
        (url,) = feed(site, "/feed")
        holder = daemon.add(f"fetches_all:|{gate.url}")
        assert gate.asked.wait(10)
        waiter = daemon.create(f"fetches_all:|{url}", timeout_s=3)
        daemon.pull(waiter, "start")
        wait_until(lambda: is_waiting(daemon, site.host))
        assert daemon.wait_state(waiter, "TIMEOUT", within_s=5)["error"] == "the scrape ran longer than 3 s"
        wait_until(lambda: daemon.status(waiter)["worker"] == "none")
        (host,) = daemon.get("/api/hosts")["hosts"]
        assert (host["host"], host["waiting"]) == (site.host, 0)
        gate.open()
        assert ended(daemon, holder)[0]["state"] == "COMPLETED"
        assert (
            ended(daemon, daemon.add(f"fetches_all:|{site.url('/feed')}|{site.url('/feed')}"))[0]["state"]
            == "COMPLETED"
        )
    check_manners(site, delay_s=DELAY_S)


@pytest.mark.parametrize("how", ["stalls", "is killed"])
def test_a_worker_that_dies_with_a_turn_in_hand_frees_it(tmp_path: Path, how: str) -> None:
    with sites(1) as (site,), guest(tmp_path / "data", stall_timeout_s=2 if how == "stalls" else 20) as daemon:
        first, second = feed(site, "/1", "/2")
        target, worker = daemon.scraping(f"fetches_and_stops:|{first}")
        wait_until(lambda: site.visits)
        waiter = daemon.add(f"fetches_all:|{second}")
        wait_until(lambda: is_waiting(daemon, site.host))
        assert len(site.visits) == 1
        if how == "is killed":
            send(worker, signal.SIGKILL)
        assert ended(daemon, waiter)[0]["state"] == "COMPLETED"
        assert daemon.status(target)["state"] == ("TIMEOUT" if how == "stalls" else "FAILED")
        assert not family(worker)
    check_manners(site, delay_s=DELAY_S)


def test_more_runs_than_may_wait_for_one_host_come_again_and_are_not_to_blame(tmp_path: Path) -> None:
    with sites(1) as (site,), guest(tmp_path / "data", workers=6, default_schedule="every 1h") as daemon:
        gate = Gate(site, "/hangs", rss("late"))
        feed(site, "/feed")
        holder = daemon.add(f"fetches_all:|{gate.url}")
        assert gate.asked.wait(10)
        waiter = daemon.add(f"fetches_all:|{site.url('/feed')}")
        wait_until(lambda: is_waiting(daemon, site.host))
        (refused,) = ended(daemon, daemon.add(f"fetches_all:|{site.url('/feed')}|{site.url('/feed')}"))
        assert (refused["state"], refused["error"]) == ("FAILED", f"{site.host} is busy with other runs")
        assert refused["attempt"] == 0
        gate.open()
        assert {status["state"] for status in ended(daemon, holder, waiter)} == {"COMPLETED"}


def test_a_limit_of_a_host_that_a_scraper_came_to_is_not_its_own_hosts(tmp_path: Path) -> None:
    with sites(2) as (own, limited), guest(tmp_path / "data") as daemon:
        (url,) = feed(own, "/feed")
        limited.answer("/busy", status=429, Retry_After="60")
        (status,) = ended(daemon, daemon.add(f"fetches_all:{url}|{limited.url('/busy')}"))
        assert (status["state"], len(own.visits), len(limited.visits)) == ("FAILED", 1, 1)
        waits = {row["host"]: row["reason"] for row in daemon.get("/api/hosts")["hosts"] if row["reason"][:3] == "the"}
        assert waits == {limited.host: "the host asked to wait (Retry-After)"}
        assert ended(daemon, daemon.add(url))[0]["state"] == "COMPLETED"
