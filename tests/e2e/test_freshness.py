"""What a site says of when it will have something new is believed: nothing is asked for before, whoever asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.feeds import RSS, rss
from tests.support.guests import refresh, track, wait_over
from tests.support.sites import Asked, Reply, Site
from tests.support.waiting import wait_until

HOUR_S = 3600


@contextmanager
def guest(home: Path, **more: object) -> Iterator[Daemon]:
    with Daemon(home, **({"default_schedule": "every 10m", "stop_grace_s": 0.5} | more)) as daemon:
        yield daemon


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def scraped(daemon: Daemon, url: str) -> dict[str, Any]:
    """Ask for it; its status at the end, and how long until its next turn (seconds)."""
    answer = daemon.add(url)
    wait_over(daemon, answer["sweep_id"], within_s=15)
    status = daemon.status(int(answer["user"]["id"]))
    due = datetime.fromisoformat(status["next_due_at"])
    return status | {"due_s": (due - datetime.now(UTC)).total_seconds()}


def feed(*, ttl_min: int = 0, **headers: str) -> Reply:
    """A feed with these headers; `Cache_Control="x"` names the header Cache-Control."""
    body = rss("one")
    if ttl_min:
        body = body.replace(b"<description>d</description>", f"<ttl>{ttl_min}</ttl>".encode())
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(body=body, headers={"Content-Type": RSS} | named)


def in_s(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("repeated", [{"Cache-Control": f"max-age={HOUR_S}"}, {}], ids=["said again", "not repeated"])
def test_inside_max_age_nothing_is_asked_for_unless_it_is_forced(
    tmp_path: Path, site: Site, repeated: dict[str, str]
) -> None:
    def reply(asked: Asked) -> Reply:
        if asked.headers.get("if-none-match") == '"1"':
            return Reply(status=304, headers=repeated)
        return feed(Cache_Control=f"max-age={HOUR_S}", ETag='"1"')

    site.answer_with("/feed", reply)
    with guest(tmp_path / "data") as daemon:
        first = scraped(daemon, site.url())
        assert (first["state"], HOUR_S - 60 < first["due_s"] <= HOUR_S) == ("COMPLETED", True)
        for _ in range(2):
            again = scraped(daemon, site.url())
            run = again["last_run"]
            assert (again["state"], run["posts_seen"], run["gap"]) == ("COMPLETED", 0, False)
            assert wait_over(daemon, refresh(daemon), within_s=10)["completed_users"] == 1
        assert HOUR_S - 60 < again["due_s"] <= HOUR_S  # it does not get further away
        daemon.stop()
        daemon.start()
        assert scraped(daemon, site.url())["state"] == "COMPLETED"
        assert len(site.asked) == 1

        number = len(daemon.runs(first["id"]))
        daemon.pull(first["id"], "start", force=True, reason="look now")
        wait_until(lambda: len(daemon.runs(first["id"])) > number and daemon.status(first["id"])["worker"] == "none")
        assert [asked.headers.get("if-none-match") for asked in site.asked] == [None, '"1"']
        assert scraped(daemon, site.url())["due_s"] > HOUR_S - 60  # not modified: right for as long again
        assert len(site.asked) == 2


SAYS = {
    "max-age": lambda: feed(Cache_Control="public, max-age=3600"),
    "max-age less its age": lambda: feed(Cache_Control="max-age=4000", Age="400"),
    "max-age over Expires": lambda: feed(Cache_Control="max-age=3600", Expires=in_s(9e4), Date=in_s(0)),
    "Expires": lambda: feed(Expires=in_s(HOUR_S), Date=in_s(0)),
    "X-Poll-Interval": lambda: feed(X_Poll_Interval="3600", Cache_Control="max-age=60"),
    "ttl": lambda: feed(ttl_min=60),
    "ttl over max-age": lambda: feed(ttl_min=60, Cache_Control="max-age=60"),
}
SAYS_NOTHING = {
    "no-cache": lambda: feed(Cache_Control="no-cache, max-age=3600"),
    "an age above it": lambda: feed(Cache_Control="max-age=3600", Age="3600"),
    "Expires: 0": lambda: feed(Expires="0"),
    "nothing": feed,
}


def test_every_way_to_say_so_is_heard_and_the_schedule_waits(tmp_path: Path, site: Site) -> None:
    for number, reply in enumerate([*SAYS.values(), *SAYS_NOTHING.values()]):
        site.answer_with(f"/{number}", lambda _, reply=reply: reply())
    with guest(tmp_path / "data") as daemon:
        urls = {name: site.url(f"/{number}") for number, name in enumerate([*SAYS, *SAYS_NOTHING])}
        due_s = {name: scraped(daemon, url)["due_s"] for name, url in urls.items()}
        assert {name for name in due_s if HOUR_S - 60 < due_s[name] <= HOUR_S} == set(SAYS), due_s
        assert all(due_s[name] < 700 for name in SAYS_NOTHING)
        assert wait_over(daemon, refresh(daemon), within_s=10)["completed_users"] == len(urls)
        times = {name: sum(asked.path == f"/{number}" for asked in site.asked) for number, name in enumerate(urls)}
        assert times == dict.fromkeys(SAYS, 1) | dict.fromkeys(SAYS_NOTHING, 2)


def test_what_has_not_changed_costs_one_304_each(tmp_path: Path, site: Site) -> None:
    def reply(asked: Asked) -> Reply:
        return Reply(status=304) if asked.headers.get("if-none-match") == '"1"' else feed(ETag='"1"')

    count = 40
    for n in range(count):
        site.answer_with(f"/{n}", reply)
    with guest(tmp_path / "data") as daemon:
        track(daemon, [site.url(f"/{n}") for n in range(count)])
        for _ in range(3):
            assert wait_over(daemon, refresh(daemon), within_s=15)["completed_users"] == count
    statuses = [visit.reply.status for visit in site.visits if visit.reply]
    assert (statuses.count(200), statuses.count(304)) == (count, 2 * count)


def test_what_is_fresh_does_not_wait_for_its_host(tmp_path: Path, site: Site) -> None:
    site.answer_with("/feed", lambda _: feed(Cache_Control=f"max-age={HOUR_S}"))
    with guest(tmp_path / "data", host_delay_s=60) as daemon:
        for _ in range(5):
            assert scraped(daemon, site.url())["state"] == "COMPLETED"
    assert len(site.asked) == 1
