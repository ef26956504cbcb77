"""A full disk and a locked database, for real: nothing announced is lost, runs end in time, and it recovers by itself.

The disk is a tmpfs of a few megabytes in a mount namespace of its own. The lock is another connection's transaction.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.daemon import Daemon, family, is_alive
from tests.support.disk import Disk, FullDisk, Locked
from tests.support.settings import scrapers
from tests.support.waiting import wait_until

#: How soon after an outage the daemon is to be ready (seconds), on a machine that others use too.
RECOVERED_S = 5.0
#: After a deadline that cannot be stored: the pool's patience, and the promise of test_hangs.py (seconds).
KILLED_S = 1.0 + 0.5


@dataclass(frozen=True)
class Place:
    """A daemon, and the outage its store can have; entered anew each time."""

    daemon: Daemon
    outage: Callable[[], AbstractContextManager[object]]


@contextmanager
def place(tmp_path: Path, kind: str, **settings: Any) -> Iterator[Place]:
    """A daemon that was not started, on a disk of its own if that is to be full."""
    home, given = tmp_path / "data", {"workers": 4, "check_interval_s": 1, "drain_timeout_s": 0.5} | settings
    with ExitStack() as stack:
        prefix: tuple[str, ...] = ()
        outage: Callable[[], AbstractContextManager[object]] = partial(Locked, home / "gleand.db", kind)
        if kind == "full":
            disk = stack.enter_context(Disk(home, size_kb=24 * 1024))
            prefix, outage = disk.prefix, partial(FullDisk, disk)
        daemon = Daemon(home, prefix=prefix, **given, **scrapers())
        stack.callback(daemon.session.close)
        try:
            yield Place(daemon, outage)
        finally:
            if daemon.process is not None:
                daemon.stop()


def ready(daemon: Daemon) -> dict[str, Any] | None:
    """What /readyz says, once it is 200."""
    answer = daemon.call("GET", "/readyz")
    return dict(answer.json()) if answer.status_code == 200 else None


def together(daemon: Daemon, *calls: tuple[Any, ...]) -> list[requests.Response]:
    """All at once."""
    with ThreadPoolExecutor(len(calls)) as many:
        return list(many.map(lambda call: requests.request(call[0], daemon.url + call[1], json=call[2]), calls))


def titles(daemon: Daemon) -> list[str]:
    return sorted(post["title"] for post in daemon.get("/api/feed?limit=100")["posts"])


@pytest.mark.parametrize("kind", ["full", "IMMEDIATE"])
def test_an_outage_ends_no_promise(tmp_path: Path, kind: str) -> None:
    with place(tmp_path, kind, scrape_timeout_s=4, stop_grace_s=1) as at:
        daemon = at.daemon.start()
        hangs, worker = daemon.scraping("sleeps:x")
        deadline = datetime.fromisoformat(daemon.wait_state(hangs, "RUNNING")["deadline_at"]).timestamp()
        kept = daemon.add("good:before")["user"]["id"]
        daemon.wait_state(kept, "COMPLETED")
        ends = daemon.add("slow:2")["user"]["id"]
        daemon.wait_state(ends, "RUNNING")
        with at.outage():
            began = time.monotonic()
            answers = together(
                daemon,
                ("POST", "/api/users/add", {"username": "good:refused"}),
                ("POST", "/api/targets", {"target": "good:refused2"}),
                ("POST", "/api/users/refresh-all", {}),
                ("POST", "/api/users/remove", {"username": "good:before"}),
                ("POST", "/api/scrape-status/reset", {"force": True}),
                ("PATCH", f"/api/targets/{kept}", {"display_name": "refused"}),
                ("DELETE", f"/api/targets/{kept}", None),
                ("POST", f"/api/targets/{kept}/transitions", {"trigger": "start"}),
                ("POST", f"/api/targets/{hangs}/transitions", {"trigger": "reset", "force": True, "reason": "test"}),
            )
            assert time.monotonic() - began < 6  # together, not one after the other
            assert [a.status_code for a in answers] == [503] * len(answers), [a.text for a in answers]
            assert {a.json()["code"] for a in answers} == {"store_unavailable"}
            assert daemon.get("/healthz")["status"] == "ok"
            not_ready = daemon.call("GET", "/readyz")
            assert (not_ready.status_code, not_ready.json()["reason"]) == (503, "store")
            status = daemon.status()
            assert status["running"] is True and status["state"] == "RUNNING"
            assert titles(daemon) == ["hello from before"]
            assert daemon.get("/api/users")["count"] == 3

            wait_until(lambda: not is_alive(worker), within_s=deadline - time.time() + 5)
            gone = time.time()
            assert not family(worker)
            assert deadline < gone < deadline + KILLED_S
            wait_until(lambda: daemon.status(ends)["unsaved"] and daemon.status(hangs)["unsaved"])
            assert daemon.call("GET", "/readyz").json()["unsaved"] == 2
            assert daemon.status()["running"] is True  # what is not stored is not announced
            assert titles(daemon) == ["hello from before"]
            assert daemon.get("/healthz")["status"] == "ok"
        back = time.monotonic()
        wait_until(lambda: ready(daemon), within_s=RECOVERED_S)
        print(f"{kind}: killed {gone - deadline:.2f} s after the deadline, ready {time.monotonic() - back:.2f} s after")

        def check() -> None:
            assert daemon.status(hangs)["state"] == "TIMEOUT"
            assert "ran longer than 4 s" in daemon.status(hangs)["error"]
            assert daemon.status(ends)["state"] == "COMPLETED"
            assert titles(daemon) == ["hello from before", "post 0", "post 1"]
            users = {user["username"]: user["display_name"] for user in daemon.get("/api/users")["users"]}
            assert users == {"x": "x", "before": "before", "2": "2"}
            assert [len(daemon.runs(target)) for target in (kept, hangs, ends)] == [1, 1, 1]
            assert daemon.status(ends)["unsaved"] is False

        check()
        assert daemon.status()["running"] is False
        again = daemon.add("good:after")["user"]["id"]
        daemon.wait_state(again, "COMPLETED")
        daemon.call("DELETE", f"/api/targets/{again}")
        daemon.kill()
        daemon.start()
        check()


def test_what_was_answered_and_what_was_shown_is_there_afterwards(tmp_path: Path) -> None:
    """Clients add without a pause while the disk fills and empties; then the daemon is killed."""
    with place(tmp_path, "full", workers=2) as at:
        daemon = at.daemon.start()
        said: dict[str, int] = {}
        shown: set[int] = set()
        over = threading.Event()

        def adds(who: int) -> None:
            with requests.Session() as session:
                for n in range(100_000):
                    if over.is_set():
                        return
                    name = f"c{who}n{n}"
                    body = {"username": f"good:{name}", "schedule": "manual"}
                    said[name] = session.post(f"{daemon.url}/api/users/add", json=body, timeout=30).status_code

        def reads() -> None:
            with requests.Session() as session:
                while not over.is_set():
                    posts = session.get(f"{daemon.url}/api/feed?limit=100", timeout=30).json()["posts"]
                    shown.update(post["id"] for post in posts)

        threads = [threading.Thread(target=adds, args=[who]) for who in range(3)] + [threading.Thread(target=reads)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                enough = len(shown) + 20
                wait_until(lambda: len(shown) > enough, within_s=20)  # noqa: B023
                with at.outage():
                    wait_until(lambda: daemon.call("GET", "/readyz").status_code == 503, within_s=10)
                    time.sleep(0.5)  # let them meet it
                wait_until(lambda: ready(daemon), within_s=RECOVERED_S)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        daemon.kill()
        daemon.start()
        assert set(said.values()) == {200, 503}
        there = {user["username"] for user in daemon.get("/api/users")["users"]}
        assert {name for name, code in said.items() if code == 200} == there
        posts, cursor = set(), ""
        while cursor is not None:
            page = daemon.get(f"/api/feed?limit=100{cursor and f'&cursor={cursor}'}")
            posts |= {post["id"] for post in page["posts"]}
            cursor = page["next_cursor"]
        assert shown <= posts
        print(f"{len(there)} added, {len(said) - len(there)} refused, {len(shown)} posts shown")


@pytest.mark.parametrize("kind", ["full", "EXCLUSIVE"])
def test_a_start_that_cannot_write_waits_with_the_port_open(tmp_path: Path, kind: str) -> None:
    with place(tmp_path, kind) as at:
        daemon = at.daemon.start()
        target = daemon.add("sleeps:x")["user"]["id"]
        old = daemon.wait_state(target, "RUNNING")["run_id"]
        workers = wait_until(daemon.workers)
        daemon.kill()
        wait_until(lambda: not [pid for pid in workers if is_alive(pid)])
        with at.outage():
            daemon.start()
            assert daemon.get("/healthz")["status"] == "ok"
            assert daemon.call("GET", "/readyz").status_code == 503
            refused = together(
                daemon,
                ("POST", "/api/users/add", {"username": "good:refused"}),
                ("GET", f"/api/targets/{target}/status", None),
                ("GET", f"/api/targets/{target}", None),
                ("GET", f"/api/targets/{target}/runs", None),
                ("GET", "/api/targets?state=RUNNING", None),
                ("GET", "/api/users", None),
                ("GET", f"/api/runs/{old}", None),
            )
            assert [a.status_code for a in refused] == [503] * len(refused), [a.text for a in refused]
            status = daemon.status()
            assert status["running"] is True  # add was answered: the sweep goes on
            assert status["counts"] == {} and status["last_run"] is None
            assert daemon.log.count("store_not_ready") == 1
        lies: list[Any] = []

        def truthful() -> bool:
            answer = daemon.call("GET", f"/api/targets/{target}/status")
            if answer.status_code == 200 and answer.json()["state"] == "RUNNING" and answer.json()["run_id"] == old:
                lies.append(answer.json())
            return bool(ready(daemon))

        wait_until(truthful, within_s=RECOVERED_S)
        assert not lies
        wait_until(lambda: daemon.status(target)["run_id"] != old)  # it was due again
        first = daemon.runs(target)[-1]
        assert (first["id"], first["state"], first["reason"]) == (old, "FAILED", "interrupted")
        assert daemon.status()["running"] is True


@pytest.mark.parametrize("kind", ["full", "EXCLUSIVE"])
def test_a_first_start_that_cannot_write_waits_with_the_port_open(tmp_path: Path, kind: str) -> None:
    with place(tmp_path, kind) as at:
        daemon = at.daemon
        with at.outage():
            daemon.start()
            status = daemon.status()
            assert (status["running"], status["state"]) == (False, "IDLE")
            assert status["error"] == "the database is not ready yet"
            assert daemon.call("POST", "/api/users/add", {"username": "good:x"}).status_code == 503
            assert daemon.call("GET", "/readyz").status_code == 503
        wait_until(lambda: ready(daemon), within_s=RECOVERED_S)
        assert daemon.status()["error"] is None
        daemon.wait_state(daemon.add("good:x")["user"]["id"], "COMPLETED")


def test_a_stop_during_an_outage_is_bounded_and_the_next_start_recovers(tmp_path: Path) -> None:
    with place(tmp_path, "full") as at:
        daemon = at.daemon.start()
        target = daemon.add("sleeps:x")["user"]["id"]
        daemon.wait_state(target, "RUNNING")
        with at.outage():
            began = time.monotonic()
            assert daemon.stop() == 0
            assert time.monotonic() - began < 8
        daemon.start()
        assert daemon.runs(target)[-1]["reason"] == "interrupted"


def test_an_idle_daemon_notices_a_full_disk_by_itself(tmp_path: Path) -> None:
    with place(tmp_path, "full") as at:
        daemon = at.daemon.start()
        with at.outage():
            wait_until(lambda: daemon.call("GET", "/readyz").status_code == 503, within_s=15)
            assert daemon.get("/healthz")["status"] == "ok"
        wait_until(lambda: ready(daemon), within_s=RECOVERED_S)
