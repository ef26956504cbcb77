"""Somebody sets the clock of the machine while the daemon runs: libfaketime does that to the daemon alone."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon
from tests.support.feeds import RSS, rss
from tests.support.settings import scrapers
from tests.support.sites import Site
from tests.support.waiting import wait_until

HOUR = 3600
#: Runs the daemon in a process that has the library, and keeps it from the workers: in them it breaks time.sleep().
ALONE = (
    "import os, runpy, sys; del os.environ['LD_PRELOAD']; sys.argv = sys.argv[2:];"
    "sys.path[0] = os.path.dirname(sys.argv[0]); runpy.run_path(sys.argv[0], run_name='__main__')"
)
LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), None)
TIMEOUT_S = 4


@pytest.fixture(scope="module", autouse=True)
def library() -> None:
    if LIBRARY is None:
        assert not os.environ.get("CI"), "libfaketime is missing: install the package faketime"
        pytest.skip("libfaketime is missing (Debian package faketime)")


class Turned:
    """A daemon whose clock a test turns."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self._shift = home.with_suffix(".shift")
        self.turn(0)
        env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._shift),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_RESET": "1",
        }
        own = {"scrape_timeout_s": TIMEOUT_S, "workers": 2, "stop_grace_s": 0.5, "host_delay_s": 1}
        prefix = (sys.executable, "-c", ALONE)
        self.daemon = Daemon(home, env=env, prefix=prefix, **(own | settings), **scrapers())

    def turn(self, seconds: int) -> None:
        """Set its clock to the true time and so many seconds."""
        new = self._shift.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n", encoding="ascii")
        new.rename(self._shift)

    def __enter__(self) -> Turned:
        self.daemon.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.daemon.stop()
        self.daemon.session.close()


@pytest.fixture
def turned(tmp_path: Path) -> Iterator[Turned]:
    with Turned(tmp_path / "data") as turned:
        yield turned


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def noticed(turned: Turned) -> bool:
    """The main loop has seen the jump."""
    return "clock_jumped" in turned.daemon.log


def when(status: dict[str, Any], name: str = "started_at") -> float:
    return datetime.fromisoformat(status[name]).timestamp()


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_jump_during_a_run_neither_expires_nor_saves_it(turned: Turned, jump: int) -> None:
    daemon = turned.daemon
    ends = int(daemon.add("slow:2", schedule="manual")["user"]["id"])
    hangs = int(daemon.add("sleeps:x", schedule="manual")["user"]["id"])
    for target in (ends, hangs):
        wait_until(lambda target=target: daemon.status(target)["worker"] == "running")
    turned.turn(jump)
    wait_until(lambda: noticed(turned))
    assert [daemon.status(target)["state"] for target in (ends, hangs)] == ["RUNNING", "RUNNING"]
    assert not daemon.status()["stalled"]

    ended = daemon.wait_state(ends, "COMPLETED", "TIMEOUT", "FAILED", within_s=8)
    assert (ended["state"], ended["error"]) == ("COMPLETED", None)
    assert 2 <= ended["last_run"]["duration_s"] < 3.5
    late = daemon.wait_state(hangs, "TIMEOUT", within_s=8)
    assert late["error"] == f"the scrape ran longer than {TIMEOUT_S} s"
    assert TIMEOUT_S <= late["last_run"]["duration_s"] <= TIMEOUT_S + 0.5
    assert abs(when(late["last_run"], "ended_at") - when(late["last_run"]) - TIMEOUT_S - jump) < 2  # it was turned
    wait_until(lambda: daemon.status()["state"] == "TIMEOUT")
    assert daemon.get("/healthz")["status"] == "ok"


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_after_a_jump_scheduled_targets_go_on_being_scraped(turned: Turned, site: Site, jump: int) -> None:
    """Its host is not waited for until the time that was, either."""
    daemon = turned.daemon
    site.answer("/feed", rss("one"), Content_Type=RSS)
    target = daemon.create(site.url(), schedule="every 1s")
    wait_until(lambda: daemon.status(target)["state"] == "COMPLETED", within_s=8)
    turned.turn(jump)
    wait_until(lambda: noticed(turned))
    before = len(daemon.runs(target))
    wait_until(lambda: len(daemon.runs(target)) >= before + 2, within_s=8)
    assert abs(when(daemon.runs(target)[0]) - when(daemon.runs(target)[-1]) - jump) < 60
    assert daemon.get("/healthz")["loops"]["scheduler"] < 5
    daemon.add("good:ben")  # and what is asked for, too
    wait_until(lambda: not daemon.status()["running"])
