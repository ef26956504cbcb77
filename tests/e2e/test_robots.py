"""robots.txt, as real sites see the daemon obey it: asked once for each host, kept over a restart, in every run."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sources.manners import ROBOTS_RETRY_S
from tests.support.daemon import Daemon
from tests.support.feeds import RSS, rss
from tests.support.guests import check_manners, ordered, serve, sites, track, wait_over
from tests.support.sites import Site
from tests.support.waiting import wait_until


@contextmanager
def guest(home: Path, **more: object) -> Iterator[Daemon]:
    given = {"respect_robots": True, "default_schedule": "manual", "stop_grace_s": 0.5, "host_delay_s": 0.05}
    with Daemon(home, **(given | more)) as daemon:
        yield daemon


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def scraped(daemon: Daemon, url: str) -> dict[str, Any]:
    """Ask for it; its status at the end."""
    answer = daemon.add(url)
    wait_over(daemon, answer["sweep_id"], within_s=15)
    return daemon.status(int(answer["user"]["id"]))


def refreshed(daemon: Daemon, *, within_s: float = 15) -> dict[str, Any]:
    sweep = daemon.call("POST", "/api/users/refresh-all", {}).json()["sweep_id"]
    return wait_over(daemon, sweep, within_s=within_s)


def paths(site: Site) -> list[str]:
    return [asked.path for asked in site.asked]


def test_it_is_asked_once_for_all_targets_and_what_it_disallows_is_not_asked_at_all(tmp_path: Path, site: Site) -> None:
    site.answer("/robots.txt", b"User-agent: *\nDisallow: /1\nAllow: /12\n\nUser-agent: other\nDisallow: /\n")
    with guest(tmp_path / "data") as daemon:
        ids = track(daemon, serve(site, 20))
        status = refreshed(daemon)
        assert (status["completed_users"], status["failed_users"]) == (10, 10)
        assert sorted(paths(site)) == sorted(["/robots.txt", "/12", *(f"/{n}" for n in range(20) if str(n)[0] != "1")])
        refused = daemon.status(ids[1])
        assert (refused["state"], refused["error"]) == (
            "FAILED",
            f"the robots.txt of {site.host} does not allow this address",
        )
        refreshed(daemon)
        assert paths(site).count("/robots.txt") == 1
    check_manners(site, delay_s=0.05)


def test_it_knows_us_by_the_first_word_of_user_agent(tmp_path: Path, site: Site) -> None:
    site.answer("/robots.txt", b"User-agent: gleand\nDisallow: /\n\nUser-agent: my-reader\nDisallow: /private\n")
    site.answer("/feed", rss("one"), Content_Type=RSS)
    with guest(tmp_path / "data", user_agent="My-Reader/7", contact="mailto:a@example.org") as daemon:
        assert scraped(daemon, site.url("/feed"))["state"] == "COMPLETED"
        assert "does not allow" in scraped(daemon, site.url("/private"))["error"]
    assert {asked.headers["user-agent"] for asked in site.asked} == {"My-Reader/7 (+mailto:a@example.org)"}


def test_an_interface_for_programs_is_not_for_robots_txt_to_allow(tmp_path: Path, site: Site) -> None:
    site.answer("/robots.txt", b"User-agent: *\nDisallow: /\n")
    site.answer("/users/ann/events/public?per_page=100", json.dumps([]).encode(), Content_Type="application/json")
    with guest(tmp_path / "data", source_bases=f"github={site.url('')}") as daemon:
        assert scraped(daemon, "github:ann")["state"] == "COMPLETED"
    assert "/robots.txt" not in paths(site)


def test_while_it_cannot_be_read_nothing_is_fetched_and_it_is_asked_again_later(tmp_path: Path, site: Site) -> None:
    site.answer("/robots.txt", status=503)
    with guest(tmp_path / "data") as daemon:
        ids = track(daemon, serve(site, 5))
        assert refreshed(daemon)["failed_users"] == 5
        why = f"the robots.txt of {site.host} cannot be read (status 503), so nothing may be fetched there"
        assert {daemon.status(target)["error"] for target in ids} == {why}
        assert paths(site) == ["/robots.txt"]
        daemon.stop()
        site.answer("/robots.txt", b"User-agent: *\nDisallow: /1\n")
        daemon.start()
        assert refreshed(daemon)["failed_users"] == 5
        assert paths(site) == ["/robots.txt"]
        daemon.stop()
        with sqlite3.connect(daemon.home / "gleand.db") as conn:  # so much later
            conn.execute("UPDATE hosts SET robots_at = robots_at - ?", (ROBOTS_RETRY_S,))
        daemon.start()
        assert refreshed(daemon)["completed_users"] == 4
        assert paths(site).count("/robots.txt") == 2


def test_it_is_kept_over_a_restart_also_of_a_host_that_a_feed_only_leads_to(tmp_path: Path) -> None:
    with sites(2) as (first, second), guest(tmp_path / "data") as daemon:
        first.answer("/robots.txt", b"User-agent: *\nDisallow: /no\n")
        second.answer("/robots.txt", b"User-agent: *\nDisallow: /private\n")
        first.answer("/open", status=302, Location=second.url("/open"))
        first.answer("/closed", status=302, Location=second.url("/private"))
        second.answer("/open", rss("one"), Content_Type=RSS)
        for how in ("stop", "kill"):
            assert scraped(daemon, first.url("/open"))["state"] == "COMPLETED"
            said = f"the robots.txt of {second.host} does not allow this address"
            assert scraped(daemon, first.url("/closed"))["error"] == said
            assert [paths(site).count("/robots.txt") for site in (first, second)] == [1, 1]
            getattr(daemon, how)()
            daemon.start()
        assert scraped(daemon, first.url("/open"))["state"] == "COMPLETED"
        assert [paths(site).count("/robots.txt") for site in (first, second)] == [1, 1]
        assert "/private" not in paths(second)


def test_a_crawl_delay_is_kept_between_requests_and_by_no_other_host(tmp_path: Path) -> None:
    with sites(2) as (calm, quick), guest(tmp_path / "data") as daemon:
        calm.answer("/robots.txt", b"User-agent: *\nCrawl-delay: 1\n")
        track(daemon, serve(calm, 5) + serve(quick, 20))
        assert refreshed(daemon)["completed_users"] == 25
    check_manners(calm, delay_s=1.0)
    gaps = [other.began - one.ended for one, other in pairwise(ordered(calm))]
    assert max(gaps) < 2.5, "it does not wait for much longer either"
    assert ordered(quick)[-1].ended < ordered(calm)[3].began


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_crawl_delay_is_kept_over_a_restart(tmp_path: Path, site: Site, how: str) -> None:
    site.answer("/robots.txt", b"User-agent: *\nCrawl-delay: 3\n")
    with guest(tmp_path / "data") as daemon:
        for url in serve(site, 2):
            daemon.add(url)
        wait_until(lambda: len(site.visits) == 2 and site.visits[1].ended < float("inf"), within_s=10)
        getattr(daemon, how)()
        daemon.start()
        wait_until(lambda: len(site.visits) >= 3, within_s=10)
    check_manners(site, delay_s=3.0)
