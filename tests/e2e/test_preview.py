"""A preview: one scrape in a worker that keeps nothing, and says what would be kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.settings import scrapers
from tests.support.sites import Asked, Reply, Site
from tests.support.waiting import wait_until

ITEM = "<item><title>{0}</title><link>https://a.example/{0}</link><guid>{1}</guid></item>"
FEED = "<rss version='2.0'><channel><title>Ann</title>{}</channel></rss>"
#: How much later than its deadline a preview may end (seconds): as every run.
LATE_S = 0.5


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "data", workers=4, scrape_timeout_s=2, default_schedule="manual", **scrapers()) as daemon:
        yield daemon


def preview(daemon: Daemon, target: str, **more: Any) -> Any:
    answer = daemon.call("POST", "/api/targets/preview", {"target": target} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def hanging(site: Site) -> threading.Event:
    """A path that answers when the site is closed; the event says that it was asked."""
    asked = threading.Event()

    def reply(_: Asked) -> Reply:
        asked.set()
        site.closing.wait()
        return Reply(status=404)

    site.answer_with("/hangs", reply)
    return asked


def test_what_would_be_kept_is_shown_and_nothing_is_kept(daemon: Daemon, site: Site) -> None:
    site.answer("/feed", FEED.format(ITEM.format("one", 1) + ITEM.format("two", 2)).encode())
    view = preview(daemon, site.url())
    assert (view["outcome"], view["error"], view["display_name"], view["posts_found"]) == ("COMPLETED", None, "Ann", 2)
    assert [(post["title"], post["native_id"]) for post in view["posts"]] == [("one", "1"), ("two", "2")]
    assert view["notes"] == ["2 of 2 have no time"]
    assert daemon.get("/api/targets")["targets"] == [] and daemon.get("/api/posts")["posts"] == []
    assert daemon.get("/api/scrape-status")["running"] is False


def test_a_target_that_is_tracked_is_told(daemon: Daemon, site: Site) -> None:
    site.answer("/feed", FEED.format(ITEM.format("one", 1)).encode())
    target = daemon.add(site.url())["user"]["id"]
    wait_until(lambda: daemon.get(f"/api/targets/{target}")["state"] == "COMPLETED")
    journal = daemon.get(f"/api/targets/{target}/journal")
    view = preview(daemon, site.url())
    assert f"it is tracked already, as target {target}: 1 of these are kept" in view["notes"]
    assert daemon.get(f"/api/targets/{target}/journal") == journal


def test_a_failed_scrape_is_an_answer(daemon: Daemon, site: Site) -> None:
    view = preview(daemon, site.url("/gone"))
    assert (view["outcome"], view["error"], view["posts"]) == ("FAILED", "the server answered with status 404", [])


def test_a_scraper_of_ones_own_and_one_that_dies(daemon: Daemon) -> None:
    assert preview(daemon, "good:ann")["outcome"] == "COMPLETED"
    view = preview(daemon, "exits:x")
    assert view["outcome"] == "FAILED" and "exited" in view["error"]


def test_one_that_hangs_ends_at_its_deadline_and_its_worker_is_gone(daemon: Daemon, site: Site) -> None:
    hanging(site)
    view = preview(daemon, site.url("/hangs"))
    assert (view["outcome"], view["error"]) == ("TIMEOUT", "the scrape ran longer than 2 s")
    assert 2 <= view["duration_s"] <= 2 + LATE_S
    wait_until(lambda: not daemon.workers(), within_s=3)
    assert preview(daemon, "good:ann")["outcome"] == "COMPLETED"


def test_only_two_at_once(daemon: Daemon, site: Site) -> None:
    with ThreadPoolExecutor(3) as threads:
        under_way = [threads.submit(preview, daemon, f"sleeps:{n}") for n in range(2)]
        wait_until(lambda: len(daemon.workers()) == 2)
        refused = daemon.call("POST", "/api/targets/preview", {"target": "good:ann"})
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many")
        assert refused.headers["Retry-After"]
        assert [one.result()["outcome"] for one in under_way] == ["TIMEOUT", "TIMEOUT"]


def test_what_cannot_be_a_target_is_refused_as_everywhere(daemon: Daemon) -> None:
    for body, status in (({"target": "ftp://a.example/"}, 422), ({}, 400), ({"target": "a", "start": True}, 400)):
        assert daemon.call("POST", "/api/targets/preview", body).status_code == status


def test_a_stop_does_not_wait_for_one_for_long(daemon: Daemon, site: Site) -> None:
    asked = hanging(site)
    daemon.settings |= {"scrape_timeout_s": 60, "drain_timeout_s": 0}
    daemon.stop()
    daemon.start()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(daemon.call, "POST", "/api/targets/preview", {"target": site.url("/hangs")})
        assert asked.wait(5)
        daemon.stop()
    assert not daemon.descendants()
