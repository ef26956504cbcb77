"""The daemon is killed, or told to stop, in mid-scrape: nothing is left alive, lost, doubled or for ever RUNNING."""

from __future__ import annotations

import http.client
import json
import random
import signal
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.daemon import Daemon, descendants, ignores_sigterm, is_alive, send
from tests.support.settings import scrapers
from tests.support.waiting import wait_until

#: Promised: after the daemon was killed nothing of it is alive this much later (seconds).
GONE_S = 1.0
EXIT_OK, EXIT_HARD = 0, 70


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Not started. Whatever a test left of it is killed."""
    one = Daemon(tmp_path / "data", scrape_timeout_s=60, workers=8, default_schedule="manual", **scrapers())
    yield one
    if one.process is not None and one.process.poll() is None:
        one.kill()
    one.session.close()


def busy(daemon: Daemon, *sources: str) -> dict[str, int]:
    """Targets that hang, one of each source, all in their workers; ids by source."""
    ids = {source: int(daemon.add(f"{source}:1000")["user"]["id"]) for source in sources}
    wait_until(lambda: all(daemon.status(target)["worker"] == "running" for target in ids.values()))
    wait_until(lambda: len(daemon.workers()) == len(ids))
    grandchildren = sum("grandchild" in source for source in sources)
    wait_until(lambda: sum("# grandchild" in line for line in daemon.descendants().values()) == grandchildren)
    return ids


def gone(pids: set[int]) -> float:
    """Wait until none of these is alive; seconds."""
    began = time.monotonic()
    wait_until(lambda: not any(is_alive(pid) for pid in pids), within_s=10)
    return time.monotonic() - began


def first_answers(daemon: Daemon, *paths: str) -> list[Any]:
    """Start it, and ask from the first instant at which it takes a connection; the answers, in order."""
    daemon.start(wait=False)

    def connected() -> http.client.HTTPConnection | None:
        assert daemon.process is not None and daemon.process.poll() is None, daemon.log[-2000:]
        connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=10)
        try:
            connection.connect()
        except OSError:
            return None
        return connection

    connection = wait_until(connected, within_s=30, every_s=0.001)
    answers = []
    for path in paths:
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200, (path, response.status)
        answers.append(json.loads(response.read()))
    connection.close()
    return answers


def rows(daemon: Daemon, query: str) -> list[tuple[Any, ...]]:
    """What the database says while no daemon has it."""
    with sqlite3.connect(daemon.home / "gleand.db") as connection:
        return connection.execute(query).fetchall()


# -- SIGKILL ---------------------------------------------------------------------------------------------------------


def test_no_worker_and_no_grandchild_outlives_a_killed_daemon(daemon: Daemon) -> None:
    daemon.start()
    kinds = ("has_grandchild", "has_stubborn_grandchild", "ignores_sigterm", "holds_gil", "spins", "swallows")
    busy(daemon, *kinds, "stops_itself")
    pids = set(descendants(daemon.pid))
    assert len(pids) == 1 + 7 + 2  # nursery, workers, grandchildren
    daemon.kill()
    assert gone(pids) <= GONE_S


def test_workers_that_are_being_stopped_do_not_outlive_a_killed_daemon(daemon: Daemon) -> None:
    daemon.settings["stop_grace_s"] = 30
    daemon.start()
    ids = busy(daemon, "ignores_sigterm", "late")
    wait_until(lambda: sum(ignores_sigterm(pid) for pid in descendants(daemon.pid)) == 2)
    for target in ids.values():
        assert daemon.pull(target, "reset", force=True, reason="x").status_code == 202
    pids = set(descendants(daemon.pid))
    assert len(pids) == 3
    daemon.kill()
    assert gone(pids) <= GONE_S


def test_what_left_its_session_before_the_daemon_was_killed_is_gone_when_the_next_one_answers(
    daemon: Daemon, tmp_path: Path
) -> None:
    other = Daemon(tmp_path / "other", default_schedule="manual", drain_timeout_s=0, **scrapers())
    with other:
        for one in (daemon, other):
            if one.process is None:
                one.start()
            busy(one, "has_far_grandchild")
        mine, theirs = (
            {pid for pid, line in one.descendants().items() if "# grandchild" in line} for one in (daemon, other)
        )
        daemon.kill()
        assert all(is_alive(pid) for pid in mine)  # nobody is left who could end it
        daemon.start()
        assert not any(is_alive(pid) for pid in mine)
        assert all(is_alive(pid) for pid in theirs)  # those of another database are none of ours
        assert "leftovers_killed count=1" in daemon.log


def test_no_run_of_the_earlier_boot_is_running_when_the_first_request_is_answered(daemon: Daemon) -> None:
    daemon.start()
    (target,) = busy(daemon, "sleeps").values()
    old = daemon.status(target)
    daemon.kill()
    assert rows(daemon, "select state from runs") == [("RUNNING",)]
    run, status, sweep = first_answers(
        daemon, f"/api/runs/{old['run_id']}", f"/api/targets/{target}/status", "/api/scrape-status"
    )
    assert (run["state"], run["reason"]) == ("FAILED", "interrupted")
    assert run["error"] == "interrupted: the daemon stopped during the scrape"
    assert status["run_id"] != old["run_id"] or status["state"] == "FAILED"
    assert status["token"] > old["token"]
    assert (sweep["running"], sweep["state"]) == (True, "RUNNING")
    assert [(e["trigger"], e["actor"], e["to"]) for e in run["timeline"]][1:] == [("interrupt", "recovery", "FAILED")]


def test_an_interrupted_target_is_scraped_again_at_once_and_its_sweep_ends(daemon: Daemon) -> None:
    daemon.start()
    answer = daemon.add("slow:2")
    target = answer["user"]["id"]
    wait_until(lambda: daemon.status(target)["phase"] == "fetching")
    daemon.kill()
    daemon.start()
    assert daemon.get(f"/api/scrape-status?sweep_id={answer['sweep_id']}")["running"] is True
    daemon.wait_state(target, "COMPLETED")
    sweep = daemon.get(f"/api/scrape-status?sweep_id={answer['sweep_id']}")
    assert (sweep["running"], sweep["state"], sweep["completed_users"]) == (False, "COMPLETED", 1)
    assert [run["state"] for run in daemon.runs(target)] == ["COMPLETED", "FAILED"]
    assert sorted(daemon.posts(target)) == ["0", "1"]


def test_what_was_queued_is_still_queued_after_a_kill(daemon: Daemon) -> None:
    daemon.settings["workers"] = 1
    daemon.start()
    busy(daemon, "sleeps")
    waiting = daemon.add("good:waits")
    target = waiting["user"]["id"]
    assert daemon.status(target)["phase"] == "queued"
    daemon.kill()
    daemon.settings["workers"] = 2
    daemon.start()
    assert daemon.wait_state(target, "COMPLETED")["last_run"]["posts_new"] == 1
    assert daemon.get(f"/api/scrape-status?sweep_id={waiting['sweep_id']}")["state"] == "COMPLETED"


def test_a_target_that_is_interrupted_again_and_again_backs_off(daemon: Daemon) -> None:
    daemon.start()
    (target,) = busy(daemon, "sleeps").values()
    daemon.kill()
    daemon.start()
    daemon.wait_state(target, "RUNNING")
    daemon.kill()
    daemon.start()
    status = daemon.status(target)
    wait_s = (datetime.fromisoformat(status["next_due_at"]) - datetime.now(UTC)).total_seconds()
    assert status["state"] == "FAILED"
    assert 30 < wait_s < 90


SEED = random.randrange(1_000_000)


@pytest.mark.parametrize("round_", list(range(5)))
def test_a_kill_at_any_moment_loses_nothing_and_doubles_nothing(daemon: Daemon, round_: int) -> None:
    dice = random.Random(f"{SEED}/{round_}")
    delay = dice.uniform(0.0, 0.9)
    print(f"SEED={SEED} round {round_}: killed {delay:.3f} s after the refresh")
    daemon.settings["workers"] = 2
    daemon.start()
    targets = [daemon.create(f"brisk:{n}") for n in range(4)]
    sweep_id = daemon.call("POST", "/api/users/refresh-all").json()["sweep_id"]
    until = time.monotonic() + delay
    seen: list[dict[str, Any]] = []
    wait_until(lambda: seen.append(daemon.get("/api/targets")) or time.monotonic() >= until)
    pids = set(descendants(daemon.pid))
    daemon.kill()
    assert gone(pids) <= GONE_S
    announced = {t["id"]: t for t in seen[-1]["targets"] if t["state"] == "COMPLETED"}
    earlier = [row[0] for row in rows(daemon, "select id from runs where state = 'RUNNING'")]
    answers = first_answers(daemon, *(f"/api/runs/{run}" for run in earlier), "/api/scrape-status")
    assert {run["state"] for run in answers[:-1]} <= {"FAILED"}
    wait_until(lambda: not daemon.get(f"/api/scrape-status?sweep_id={sweep_id}")["running"], within_s=10)
    sweep = daemon.get(f"/api/sweeps/{sweep_id}")
    assert (sweep["state"], sweep["completed_users"], sweep["total_users"]) == ("COMPLETED", 4, 4)
    for target in targets:
        runs = daemon.runs(target)
        assert sorted(daemon.posts(target)) == ["0", "1", "2", "3", "4"]
        assert daemon.get(f"/api/targets/{target}")["post_count"] == 5
        assert [run["state"] for run in runs].count("COMPLETED") == 1
        assert len(runs) == (1 if target in announced else len(runs)) <= 2
        assert sum(run["posts_new"] for run in runs) == 5


def test_a_daemon_that_is_killed_while_it_starts_recovers_at_the_next_start(daemon: Daemon) -> None:
    daemon.start()
    (target,) = busy(daemon, "sleeps").values()
    daemon.kill()
    dice = random.Random(SEED)
    for _ in range(5):
        daemon.start(wait=False)
        until = time.monotonic() + dice.uniform(0.0, 0.8)
        wait_until(lambda: time.monotonic() >= until)  # noqa: B023 - used at once
        pids = set(descendants(daemon.pid))
        daemon.kill()
        assert gone(pids) <= GONE_S, f"SEED={SEED}"
    daemon.start()
    running = [run for run in daemon.runs(target) if run["state"] == "RUNNING"]
    status = daemon.status(target)
    assert len(running) == (1 if status["state"] == "RUNNING" else 0), f"SEED={SEED}"
    assert {run["reason"] for run in daemon.runs(target) if run not in running} == {"interrupted"}


# -- SIGTERM ---------------------------------------------------------------------------------------------------------


def test_a_stop_is_bounded_answers_reads_and_closes_what_still_runs(daemon: Daemon) -> None:
    daemon.settings |= {"drain_timeout_s": 2.0, "stop_grace_s": 1.0}
    daemon.start()
    ids = busy(daemon, "sleeps", "has_grandchild")
    ending = daemon.add("slow:1")["user"]["id"]
    daemon.wait_state(ending, "RUNNING")
    queued = daemon.create("good:later")
    old = daemon.status(ids["sleeps"])["run_id"]
    pids = set(descendants(daemon.pid))
    began = time.monotonic()
    send(daemon.pid, signal.SIGTERM)
    wait_until(lambda: daemon.pull(queued, "expire").status_code == 503, within_s=1)
    answers = []

    def one_more() -> bool:
        try:
            reading = daemon.call("GET", "/api/scrape-status")
            writing = daemon.call("POST", f"/api/targets/{queued}/transitions", {"trigger": "start"})
        except requests.ConnectionError:
            return True
        answers.append((reading, writing))
        return False

    wait_until(one_more, within_s=10)
    assert daemon.process is not None
    assert daemon.process.wait(10) == EXIT_OK
    took = time.monotonic() - began
    assert 2.0 <= took <= 2.0 + 1.0
    assert not any(is_alive(pid) for pid in pids)
    assert len(answers) >= 20
    assert {reading.status_code for reading, _ in answers} == {200}
    assert all(reading.json()["running"] for reading, _ in answers[:10])
    assert {(w.status_code, w.json()["code"]) for _, w in answers} == {(503, "draining")}
    found = {row[0]: row[1:] for row in rows(daemon, "select target_id, state, reason, error from runs")}
    assert found[ending][0] == "COMPLETED"
    for target in ids.values():
        assert found[target] == ("FAILED", "interrupted", "interrupted: the daemon was stopped")
    daemon.start()
    status = daemon.wait_state(ids["sleeps"], "RUNNING")
    assert status["run_id"] > old
    assert daemon.status(queued)["state"] == "IDLE"


def test_a_stop_with_a_stubborn_worker_takes_the_grace_longer_and_leaves_nothing(daemon: Daemon) -> None:
    daemon.settings |= {"drain_timeout_s": 0.2, "stop_grace_s": 1.0}
    daemon.start()
    busy(daemon, "ignores_sigterm", "has_stubborn_grandchild")
    pids = set(descendants(daemon.pid))
    began = time.monotonic()
    assert daemon.stop() == EXIT_OK
    assert time.monotonic() - began <= 0.2 + 1.0 + 1.0
    assert not any(is_alive(pid) for pid in pids)
    assert rows(daemon, "select distinct state, reason from runs") == [("FAILED", "interrupted")]


def test_a_stop_does_not_wait_when_nothing_runs(daemon: Daemon) -> None:
    daemon.start()
    daemon.wait_state(daemon.add("good:x")["user"]["id"], "COMPLETED")
    pids = set(descendants(daemon.pid))
    began = time.monotonic()
    assert daemon.stop() == EXIT_OK
    assert time.monotonic() - began <= 1.0
    assert not any(is_alive(pid) for pid in pids)


def test_deadlines_are_kept_while_draining(daemon: Daemon) -> None:
    daemon.settings |= {"drain_timeout_s": 20.0, "scrape_timeout_s": 1.5}
    daemon.start()
    busy(daemon, "sleeps")
    began = time.monotonic()
    assert daemon.stop() == EXIT_OK
    assert time.monotonic() - began <= 3.0
    assert rows(daemon, "select state from runs") == [("TIMEOUT",)]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once_and_nothing_is_left(daemon: Daemon, second: signal.Signals) -> None:
    daemon.settings |= {"drain_timeout_s": 60.0, "stop_grace_s": 60.0}
    daemon.start()
    ids = busy(daemon, "ignores_sigterm", "has_stubborn_grandchild", "holds_gil")
    pids = set(descendants(daemon.pid))
    assert len(pids) == 5
    send(daemon.pid, signal.SIGTERM)
    wait_until(lambda: daemon.pull(ids["holds_gil"], "expire").status_code == 503)
    began = time.monotonic()
    send(daemon.pid, second)
    assert daemon.process is not None
    assert daemon.process.wait(5) == EXIT_HARD
    assert time.monotonic() - began <= 0.5
    assert gone(pids) <= GONE_S
    daemon.settings |= {"stop_grace_s": 0.1, "drain_timeout_s": 0.1}
    daemon.start()
    for target in ids.values():
        assert daemon.runs(target)[-1]["reason"] == "interrupted"


def test_a_stop_while_it_starts_ends_it_soon(daemon: Daemon) -> None:
    dice = random.Random(SEED)
    for _ in range(4):
        daemon.start(wait=False)
        delay = dice.uniform(0.0, 0.6)
        until = time.monotonic() + delay
        wait_until(lambda: time.monotonic() >= until)  # noqa: B023 - used at once
        pids = {daemon.pid, *descendants(daemon.pid)}
        # Before its handlers are in place a signal simply ends it.
        assert daemon.stop(within_s=5) in (EXIT_OK, -signal.SIGTERM), f"{delay:.3f} s: {daemon.log[-1000:]}"
        assert not any(is_alive(pid) for pid in pids)
    daemon.start()
    assert daemon.wait_state(daemon.add("good:x")["user"]["id"], "COMPLETED")["error"] is None
