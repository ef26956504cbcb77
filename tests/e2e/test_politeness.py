"""The daemon as a guest of sites, by their own logs: one request at a time, with a pause, and away when told so."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.guests import check_manners, ordered, refresh, serve, sites, track, wait_over
from tests.support.sites import Site
from tests.support.waiting import wait_until

DELAY_S = 0.1
#: Feeds of each fast site, and of the two others.
FAST, FEW = 60, 10


@contextmanager
def guest(home: Path, **more: object) -> Iterator[Daemon]:
    """A daemon that is stopped however the test ends, also when the test has killed it."""
    given = {"host_delay_s": DELAY_S, "workers": 8, "default_schedule": "manual", "stop_grace_s": 0.5}
    with Daemon(home, **(given | more)) as daemon:
        yield daemon


def took_s(fast: list[Site]) -> float:
    """From the first request to the last answer of these sites (seconds)."""
    visits = [visit for site in fast for visit in site.visits]
    return max(visit.ended for visit in visits) - min(visit.began for visit in visits)


@pytest.fixture(scope="module")
def alone_s(tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long the three fast sites take where there are no others (seconds)."""
    with sites(3) as fast, guest(tmp_path_factory.mktemp("alone") / "data") as daemon:
        for site in fast:
            track(daemon, serve(site, FAST))
        wait_over(daemon, refresh(daemon), within_s=20)
        for site in fast:
            check_manners(site, delay_s=DELAY_S)
        return took_s(fast)


def test_five_sites_are_each_asked_at_their_own_pace(tmp_path: Path, alone_s: float) -> None:
    with sites(5) as (slow, limited, *fast), guest(tmp_path / "data") as daemon:
        track(daemon, serve(slow, FEW, after_s=1.0))
        track(daemon, serve(limited, FEW, busy=lambda number: {0: 2, 5: 3}.get(number)))
        for site in fast:
            track(daemon, serve(site, FAST))
        status = wait_over(daemon, refresh(daemon), within_s=20)
    for site in (slow, limited, *fast):
        check_manners(site, delay_s=DELAY_S)
    assert (status["total_users"], status["completed_users"], status["failed_users"]) == (200, 198, 2)
    assert [len(site.visits) for site in (slow, limited, *fast)] == [FEW, FEW, FAST, FAST, FAST]
    assert took_s(fast) <= 1.5 * alone_s + 1.0, f"alone it took {alone_s:.1f} s"


def keeps(daemon: Daemon, host: str) -> bool:
    """Whether what a host asked for is in the database."""
    with sqlite3.connect(daemon.home / "gleand.db") as conn:
        query = "SELECT count(*) FROM hosts WHERE host = ? AND next_allowed_at > ?"
        return bool(conn.execute(query, (host, time.time())).fetchone()[0])


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_and_a_refresh_of_all_change_nothing_of_it(tmp_path: Path, how: str) -> None:
    with sites(4) as (slow, limited, *fast), guest(tmp_path / "data") as daemon:
        urls = serve(slow, 4, after_s=1.0) + serve(limited, 4, busy=lambda number: 5 if number == 0 else None)
        for site in fast:
            urls += serve(site, 20)
        for url in urls:
            daemon.add(url)
        wait_until(lambda: keeps(daemon, limited.host))
        wait_until(lambda: all(len(site.visits) > 5 for site in fast) and len(slow.visits) == 2, within_s=10)
        assert ordered(slow)[-1].ended > time.monotonic()  # an answer is on its way
        getattr(daemon, how)()
        daemon.start()
        assert len(limited.visits) == 1
        sweep = refresh(daemon)
        status = wait_over(daemon, sweep, within_s=20)
    for site in (slow, limited, *fast):
        check_manners(site, delay_s=DELAY_S)
    assert (status["total_users"], status["completed_users"]) == (len(urls), len(urls))
    assert len(limited.visits) == 5


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_pause_longer_than_a_restart_is_kept_over_it(tmp_path: Path, how: str) -> None:
    with sites(1) as (site,), guest(tmp_path / "data", host_delay_s=3) as daemon:
        for url in serve(site, 2):
            daemon.add(url)
        wait_until(lambda: site.visits and site.visits[0].ended < time.monotonic())
        getattr(daemon, how)()
        daemon.start()
        wait_until(lambda: len(site.visits) >= 2, within_s=10)
    check_manners(site, delay_s=3)
