"""What real answers lead to: a pause, a wait, another address; and what silence everywhere does."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.feeds import RSS, rss
from tests.support.guests import refresh, sites, wait_over
from tests.support.sites import Site
from tests.support.waiting import wait_until


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        site.answer("/feed", rss("one"), Content_Type=RSS)
        yield site


@contextmanager
def guest(home: Path, **more: object) -> Iterator[Daemon]:
    with Daemon(home, **({"default_schedule": "every 1h", "stop_grace_s": 0.5} | more)) as daemon:
        yield daemon


def scraped(daemon: Daemon, url: str) -> dict[str, Any]:
    """Ask for it; its status at the end."""
    answer = daemon.add(url)
    wait_over(daemon, answer["sweep_id"], within_s=15)
    return daemon.status(int(answer["user"]["id"]))


def test_a_site_that_does_not_let_us_in_is_left_alone_until_somebody_asks(tmp_path: Path, site: Site) -> None:
    site.answer("/private", status=403)
    with guest(tmp_path / "data") as daemon:
        shut, fine = scraped(daemon, site.url("/private")), scraped(daemon, site.url("/feed"))
        assert (shut["state"], shut["error"]) == ("FAILED", "the server answered with status 403")
        assert shut["paused_why"] == "the site does not let us in (status 403)"
        assert shut["triggers"]["start"] == {"possible": False, "refused_by": "not_paused"}
        assert wait_over(daemon, refresh(daemon), within_s=10)["total_users"] == 1
        assert [asked.path for asked in site.asked] == ["/private", "/feed", "/feed"]
        site.answer("/private", rss("in"), Content_Type=RSS)
        assert daemon.pull(shut["id"], "start").status_code == 200
        wait_until(lambda: daemon.status(shut["id"])["state"] == "COMPLETED")
        assert daemon.status(shut["id"])["paused_until"] is None
        assert wait_over(daemon, refresh(daemon), within_s=10)["total_users"] == 2
        assert fine["state"] == "COMPLETED"


@pytest.mark.parametrize(
    "headers", [{"Retry_After": "5"}, {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "5"}], ids=["wait", "limit"]
)
def test_a_403_that_says_until_when_is_a_limit_for_all_of_the_host(
    tmp_path: Path, site: Site, headers: dict[str, str]
) -> None:
    site.answer("/busy", status=403, **headers)
    with guest(tmp_path / "data") as daemon:
        status = scraped(daemon, site.url("/busy"))
        assert (status["state"], status["paused_why"], status["attempt"]) == ("FAILED", None, 1)
        (host,) = daemon.get("/api/hosts")["hosts"]
        assert (host["host"], host["running"]) == (site.host, 0)
        daemon.add(site.url("/feed"))
        wait_until(lambda: len(site.visits) == 2, within_s=10)
    assert site.visits[1].began - site.visits[0].ended >= 5


@pytest.mark.parametrize(("status", "moves"), [(301, True), (308, True), (302, False), (307, False)])
def test_three_permanent_redirects_in_a_row_move_a_target(tmp_path: Path, status: int, moves: bool) -> None:
    with sites(2) as (old, new), guest(tmp_path / "data") as daemon:
        old.answer("/feed", status=status, Location=new.url("/feed"))
        new.answer("/feed", rss("one"), Content_Type=RSS)
        for _ in range(4):
            shown = scraped(daemon, old.url("/feed"))
            assert shown["state"] == "COMPLETED"
        target = daemon.get(f"/api/targets/{shown['id']}")
        assert (target["handle"], target["url"]) == (old.url("/feed"), (new if moves else old).url("/feed"))
        assert (len(old.visits), len(new.visits)) == (3 if moves else 4, 4)


class Silent:
    """Takes no connection: its queue is full, so what asks for one hears nothing."""

    def __init__(self, address: str) -> None:
        self._sockets = [socket.socket()]
        self._sockets[0].bind((address, 0))
        self._sockets[0].listen(0)
        self.url = f"http://{address}:{self._sockets[0].getsockname()[1]}/feed"

    def __enter__(self) -> Silent:
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(self._sockets[0].getsockname())
            self._sockets.append(filler)
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()


def test_when_nobody_answers_anywhere_it_is_our_network_until_somebody_does(tmp_path: Path, site: Site) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(Silent(f"127.0.0.{n}")) for n in (11, 12, 13, 14)]
        daemon = stack.enter_context(guest(tmp_path / "data", connect_timeout_s=0.3))
        assert daemon.get("/readyz")["network"] == "ok"
        ended = [scraped(daemon, one.url) for one in silent]
        assert all("took longer than 0.3 s" in status["error"] for status in ended)
        assert [status["attempt"] for status in ended] == [1, 1, 0, 0]
        assert (daemon.get("/readyz")["status"], daemon.get("/readyz")["network"]) == ("ready", "down")
        assert scraped(daemon, site.url())["state"] == "COMPLETED"
        assert daemon.get("/readyz")["network"] == "ok"
        assert scraped(daemon, silent[3].url)["attempt"] == 1


def test_a_machine_that_refuses_is_an_answer_and_not_our_network(tmp_path: Path) -> None:
    with sites(4) as closed:
        urls = [site.url() for site in closed]
    with guest(tmp_path / "data") as daemon:
        ended = [scraped(daemon, url) for url in urls]
        assert all("refused the connection" in status["error"] for status in ended)
        assert {status["attempt"] for status in ended} == {1}
        assert daemon.get("/readyz")["network"] == "ok"
