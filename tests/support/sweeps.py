"""Asking for every target at once, and waiting for the end of it."""

from __future__ import annotations

from tests.support.daemon import Daemon
from tests.support.waiting import wait_until


def refresh_all(daemon: Daemon, *, within_s: float = 30.0) -> None:
    """POST /api/users/refresh-all, and wait until the last of its targets is done."""
    answer = daemon.call("POST", "/api/users/refresh-all")
    assert answer.status_code == 200, answer.text
    which = {"sweep_id": answer.json()["sweep_id"]}
    wait_until(lambda: not daemon.get("/api/scrape-status", params=which)["running"], within_s=within_s)
