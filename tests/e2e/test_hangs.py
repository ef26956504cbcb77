"""Every kind of hang ends in TIMEOUT, visible at the deadline, with nothing of the run left alive."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from tests.support.daemon import Daemon
from tests.support.settings import scrapers
from tests.support.waiting import wait_until

#: Promised: visible this long after the deadline, and gone this long after that (seconds).
VISIBLE_S, GONE_S, GRACE_S = 0.5, 0.5, 2.0
POLITE = [
    "sleeps",
    "spins",
    "holds_gil",
    "swallows",
    "has_grandchild",
    "daemonizes",
]
STUBBORN = ["ignores_sigterm", "has_stubborn_grandchild"]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("hangs") / "data"
    with Daemon(home, scrape_timeout_s=3, stop_grace_s=GRACE_S, workers=3, **scrapers()) as daemon:
        yield daemon


def end_of(daemon: Daemon, source: str) -> tuple[float, float, dict]:
    """Run a hang; seconds from its deadline to TIMEOUT, from TIMEOUT to nothing left, and its last status."""
    target = daemon.add(f"{source}:x")["user"]["id"]
    running = daemon.wait_state(target, "RUNNING")
    wait_until(lambda: running["state"] == "RUNNING" and daemon.status(target)["worker"] == "running")
    deadline = datetime.fromisoformat(running["deadline_at"]).timestamp()
    status = wait_until(lambda: (s := daemon.status(target))["state"] != "RUNNING" and s, within_s=6)
    seen = time.time()
    wait_until(lambda: daemon.status(target)["worker"] == "none", within_s=8)
    wait_until(lambda: not daemon.descendants(), within_s=8)
    return seen - deadline, time.time() - seen, status


@pytest.mark.parametrize("source", POLITE)
def test_a_hang_is_timeout_at_its_deadline_and_leaves_nothing(daemon: Daemon, source: str) -> None:
    late, left, status = end_of(daemon, source)
    assert status["state"] == "TIMEOUT"
    assert "ran longer than 3 s" in status["error"]
    assert 0 <= late <= VISIBLE_S
    assert left <= GONE_S


@pytest.mark.parametrize("source", STUBBORN)
def test_what_ignores_sigterm_is_killed_after_the_grace(daemon: Daemon, source: str) -> None:
    late, left, status = end_of(daemon, source)
    assert status["state"] == "TIMEOUT"
    assert 0 <= late <= VISIBLE_S
    assert left <= GONE_S + GRACE_S
