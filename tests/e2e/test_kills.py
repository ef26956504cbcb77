"""A worker, or the nursery, that dies or breaks costs its own run at most, says why, and leaves nothing behind."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import Daemon, descendants, ignores_sigterm, is_alive, is_worker, open_files, send, zombies
from tests.support.settings import scrapers
from tests.support.waiting import wait_until

#: Promised: a death is visible this soon (seconds).
SEEN_S = 0.5
MEMORY = 128 * 1024 * 1024


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("kills") / "data"
    more = {"scrape_timeout_s": 20, "stop_grace_s": 1, "worker_memory_bytes": MEMORY}
    with Daemon(home, default_schedule="manual", **more, **scrapers()) as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """One for all, and every test must leave it as it should be: no process but idle workers, no zombie."""
    yield shared
    for target in shared.get("/api/targets?state=RUNNING")["targets"]:
        shared.pull(target["id"], "reset", force=True, reason="the test is over")
    wait_until(lambda: set(shared.descendants()) == shared.workers(), within_s=10)
    wait_until(lambda: not zombies(shared.pid))
    assert shared.get("/healthz")["status"] == "ok"


def outcome(daemon: Daemon, username: str) -> dict[str, Any]:
    """Scrape it; its status once it has ended and nothing of it is left."""
    answer = daemon.add(username)
    wait_until(lambda: not daemon.get(f"/api/scrape-status?sweep_id={answer['sweep_id']}")["running"], within_s=10)
    target = answer["user"]["id"]
    return wait_until(lambda: (status := daemon.status(target))["worker"] == "none" and status)


def worker_of(path: Path) -> int:
    """The pid that `waits:PATH` told."""
    wait_until(path.exists)
    return int(path.read_text())


# -- workers that die ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGXCPU])
def test_a_killed_worker_is_a_failed_run_that_names_the_signal(
    daemon: Daemon, tmp_path: Path, number: signal.Signals
) -> None:
    target = daemon.add(f"waits:{tmp_path}/pid")["user"]["id"]
    pid = worker_of(tmp_path / "pid")
    assert daemon.status(target)["state"] == "RUNNING"
    began = time.monotonic()
    send(pid, number)
    status = daemon.wait_state(target, "FAILED", "TIMEOUT", "COMPLETED")
    took = time.monotonic() - began
    assert status["state"] == "FAILED"
    assert status["error"] == f"the worker process was killed by {number.name} (signal {int(number)})"
    assert took <= SEEN_S
    assert outcome(daemon, "good:next")["state"] == "COMPLETED"


def test_a_killed_worker_takes_its_grandchildren_along(daemon: Daemon) -> None:
    idle = daemon.workers()
    target = daemon.add("has_stubborn_grandchild:x")["user"]["id"]
    (grandchild,) = wait_until(lambda: [p for p, line in daemon.descendants().items() if "# grandchild" in line])
    (worker,) = [pid for pid in daemon.workers() if grandchild in descendants(pid)]
    send(worker, signal.SIGKILL)
    daemon.wait_state(target, "FAILED")
    wait_until(lambda: not is_alive(grandchild), within_s=SEEN_S)
    wait_until(lambda: daemon.status(target)["worker"] == "none")
    assert daemon.workers() <= idle - {worker}


def test_the_death_of_an_idle_worker_costs_nobody_anything(daemon: Daemon) -> None:
    outcome(daemon, "good:idle")
    for pid in daemon.workers():
        send(pid, signal.SIGKILL)
    wait_until(lambda: not daemon.workers())
    assert outcome(daemon, "good:idle")["state"] == "COMPLETED"


def test_orders_given_while_workers_are_killed_are_scraped_or_fail_with_a_reason(daemon: Daemon) -> None:
    target = daemon.create("brisk:storm")
    for _ in range(10):
        daemon.pull(target, "start")
        wait_until(lambda: daemon.status(target)["state"] != "COMPLETED")
        for pid in daemon.workers():
            send(pid, signal.SIGKILL)
        status = daemon.wait_state(target, "COMPLETED", "FAILED", within_s=5)
        assert status["state"] == "COMPLETED" or "SIGKILL" in status["error"]
        wait_until(lambda: daemon.status(target)["worker"] == "none")
    assert outcome(daemon, "brisk:storm")["state"] == "COMPLETED"
    assert sorted(daemon.posts(target)) == ["0", "1", "2", "3", "4"]


# -- scrapers that break their worker --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source, says",
    [
        ("raises", "ValueError: <b>no</b> such luck"),
        ("exits", "the worker process exited with status 3"),
        ("calls_exit", "SystemExit: enough"),
        ("killed", "the worker process was killed by SIGKILL (signal 9)"),
        ("segfaults", "the worker process was killed by SIGSEGV (signal 11)"),
        ("eats_memory", f"the scrape used more memory than the limit of {MEMORY} bytes"),
        ("eats_slowly", f"the scrape used more memory than the limit of {MEMORY} bytes"),
        ("writes_garbage", "the worker broke the protocol: a message of 4294967295 bytes was announced"),
        ("closes_files", "the worker closed its pipe"),
    ],
)
def test_a_scraper_that_breaks_is_a_failed_run_with_a_clear_error(daemon: Daemon, source: str, says: str) -> None:
    status = outcome(daemon, f"{source}:x")
    assert status["state"] == "FAILED"
    assert status["error"] == says
    assert status["last_run"]["error"] == says
    assert outcome(daemon, "good:next")["state"] == "COMPLETED"


def test_words_of_a_scraper_do_not_reach_the_status_that_old_clients_put_into_html(daemon: Daemon) -> None:
    outcome(daemon, "raises:x")
    status = daemon.status()
    assert status["state"] == "FAILED"
    assert "luck" not in status["error"] and "<" not in status["error"]


def test_a_flood_is_cut_and_says_so(daemon: Daemon) -> None:
    status = outcome(daemon, "floods:x")
    assert status["state"] == "COMPLETED"
    assert status["last_run"]["truncated"] is True
    assert status["last_run"]["posts_seen"] == 5000


@pytest.mark.parametrize("source", ["leaves_child", "leaves_daemon"])
def test_what_a_scrape_leaves_behind_is_gone_after_its_success(daemon: Daemon, source: str) -> None:
    status = outcome(daemon, f"{source}:x")
    assert status["state"] == "COMPLETED"
    assert set(daemon.descendants()) == daemon.workers()


def test_a_worker_with_a_thread_left_behind_is_not_used_again(daemon: Daemon) -> None:
    status = outcome(daemon, "leaves_thread:x")
    assert status["state"] == "COMPLETED"
    assert not is_alive(int(daemon.posts(status["id"])[0]))


def test_only_one_of_two_that_go_on_after_a_fork_reports(daemon: Daemon) -> None:
    status = outcome(daemon, "forks:x")
    assert status["state"] == "COMPLETED"
    assert len(daemon.posts(status["id"])) == 1


def test_a_process_that_hid_from_everyone_is_reaped_when_it_ends(daemon: Daemon) -> None:
    status = outcome(daemon, "leaves_stranger:x")
    assert status["state"] == "COMPLETED"
    wait_until(lambda: not any("sleep" in line for line in descendants(daemon.pid).values()))
    wait_until(lambda: not zombies(daemon.pid), within_s=3)


# -- late reports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [False, True])
def test_a_report_after_the_timeout_changes_nothing_and_is_journalled(
    daemon: Daemon, tmp_path: Path, stopped: bool
) -> None:
    handle = tmp_path / "was-here"
    target = daemon.create(f"late_once:{handle}", timeout_s=1)
    daemon.pull(target, "start")
    wait_until(handle.exists)
    old = daemon.status(target)
    if stopped:  # the daemon's SIGCONT, which lets a stopped process hear its SIGTERM, wakes it up
        (pid,) = [pid for pid in daemon.workers() if Path(f"/proc/{pid}/fd").exists() and ignores_sigterm(pid)]
        send(pid, signal.SIGSTOP)
    status = daemon.wait_state(target, "TIMEOUT", within_s=3)
    assert (status["run_id"], status["token"]) == (old["run_id"], old["token"] + 1)
    daemon.pull(target, "start")
    assert daemon.status(target)["phase"] == "stopping"
    late = wait_until(lambda: [e for e in daemon.journal(target) if e["refused_by"]], within_s=3)
    assert [(e["trigger"], e["actor"], e["to"], e["run_id"]) for e in late] == [
        ("complete", "worker", None, old["run_id"])
    ]
    new = daemon.wait_state(target, "COMPLETED", within_s=5)
    assert daemon.posts(target) == ["fresh"]
    assert [run["state"] for run in daemon.runs(target)] == ["COMPLETED", "TIMEOUT"]
    assert daemon.get(f"/api/runs/{old['run_id']}")["posts_new"] == 0
    assert new["run_id"] > old["run_id"]


# -- the nursery -----------------------------------------------------------------------------------------------------


def nursery_of(daemon: Daemon) -> int:
    """Its pid."""
    found = wait_until(
        lambda: [p for p, line in descendants(daemon.pid).items() if "nursery" in line and not is_worker(p)]
    )
    assert len(found) == 1
    return found[0]


def test_runs_go_on_when_the_nursery_is_killed(daemon: Daemon) -> None:
    target = daemon.add("slow:2")["user"]["id"]
    wait_until(lambda: daemon.status(target)["phase"] == "fetching")
    send(nursery_of(daemon), signal.SIGKILL)
    status = daemon.wait_state(target, "COMPLETED", "FAILED", "TIMEOUT")
    assert status["state"] == "COMPLETED"
    assert len(daemon.posts(target)) == 2


def test_new_workers_are_born_soon_after_the_nursery_was_killed(daemon: Daemon, tmp_path: Path) -> None:
    old = nursery_of(daemon)
    send(old, signal.SIGKILL)
    wait_until(lambda: not is_alive(old) and nursery_of(daemon) != old, within_s=2)
    targets = [daemon.add(f"waits:{tmp_path}/{n}")["user"]["id"] for n in range(4)]
    for n in range(4):
        assert is_alive(worker_of(tmp_path / str(n)))
    assert {daemon.status(target)["state"] for target in targets} == {"RUNNING"}


def test_a_worker_that_was_being_born_when_the_nursery_died_costs_its_run_only(daemon: Daemon) -> None:
    for pid in daemon.workers():
        send(pid, signal.SIGKILL)
    wait_until(lambda: not daemon.workers())
    nursery = nursery_of(daemon)
    send(nursery, signal.SIGSTOP)
    target = daemon.add("brisk:unborn")["user"]["id"]
    daemon.wait_state(target, "RUNNING")
    send(nursery, signal.SIGKILL)
    status = daemon.wait_state(target, "FAILED")
    assert status["error"] == "the worker process could not be started: the nursery died"
    assert outcome(daemon, "brisk:unborn")["state"] == "COMPLETED"


# -- wear ------------------------------------------------------------------------------------------------------------


def test_a_worker_is_replaced_after_its_number_of_scrapes(tmp_path: Path) -> None:
    with Daemon(tmp_path / "data", workers=1, worker_max_scrapes=3, **scrapers()) as daemon:
        target = daemon.create("tells_pid:x")
        pids = []
        for _ in range(7):
            assert outcome(daemon, "tells_pid:x")["state"] == "COMPLETED"
            pids.append(daemon.posts(target)[0])
        assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]
        wait_until(lambda: len(daemon.workers()) == 1)


def test_two_hundred_scrapes_leave_no_descriptor_no_zombie_and_no_process(tmp_path: Path) -> None:
    more = {"workers": 4, "worker_max_scrapes": 10, "stop_grace_s": 0.2}
    kinds = ("good", "raises", "exits", "killed", "leaves_child", "leaves_daemon", "calls_exit", "forks", "tells_pid")
    with Daemon(tmp_path / "data", **more, **scrapers()) as daemon:
        targets = [daemon.create(f"{kind}:{n}") for n in range(3) for kind in kinds]

        def sweep() -> None:
            assert daemon.call("POST", "/api/users/refresh-all").status_code == 200
            wait_until(lambda: not daemon.status()["running"], within_s=30)
            wait_until(lambda: set(daemon.descendants()) == daemon.workers(), within_s=5)

        sweep()
        before = open_files(daemon.pid) - 4 * len(daemon.workers())
        for _ in range(8):
            sweep()
        assert sum(len(daemon.runs(target)) for target in targets) == 9 * len(targets) >= 200
        wait_until(lambda: open_files(daemon.pid) - 4 * len(daemon.workers()) <= before)
        wait_until(lambda: not zombies(daemon.pid))
