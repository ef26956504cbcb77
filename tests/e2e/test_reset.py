"""Ending a run by hand: refused without force, and with it the processes are gone when the answer says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, family, ignores_sigterm
from tests.support.settings import scrapers
from tests.support.waiting import wait_until

FORCE = {"force": True, "reason": "it hangs"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("reset") / "data"
    more = {"scrape_timeout_s": 60, "stop_grace_s": 1.5, "workers": 3}
    with Daemon(home, default_schedule="manual", **more, **scrapers()) as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """No run, no sweep and no worker at the beginning and at the end of each test."""
    yield shared
    assert shared.call("POST", "/api/scrape-status/reset", {"force": True}).status_code == 200
    for target in shared.get("/api/targets?limit=100")["targets"]:
        assert shared.call("DELETE", f"/api/targets/{target['id']}").status_code == 200
    wait_until(lambda: not shared.descendants() or all(family(pid) == {pid} for pid in shared.workers()))


def busy(daemon: Daemon, source: str, handle: str = "x") -> int:
    """A target that hangs in a worker; its id."""
    before = sum(source in line for line in daemon.descendants().values())
    assert before == 0
    target = int(daemon.add(f"{source}:{handle}")["user"]["id"])
    wait_until(lambda: daemon.status(target)["worker"] == "running")
    if source in ("ignores_sigterm", "exclusive"):
        wait_until(lambda: any(ignores_sigterm(pid) for pid in daemon.workers()))
    if "grandchild" in source:
        wait_until(lambda: any("# grandchild" in line for line in daemon.descendants().values()))
    return target


def left(daemon: Daemon) -> set[int]:
    """Live processes that are not idle workers."""
    return set(daemon.descendants()) - daemon.workers()


# -- the older reset -------------------------------------------------------------------------------------------------


def test_an_unforced_reset_of_an_active_sweep_is_refused_with_everything_a_person_needs(daemon: Daemon) -> None:
    target = busy(daemon, "sleeps")
    before = daemon.status(target)
    answer = daemon.call("POST", "/api/scrape-status/reset")
    assert answer.status_code == 409
    told = answer.json()
    assert told["refused_by"] == "overdue"
    assert told["running_for_s"] >= 0 and f"{told['running_for_s']} s" in told["error"]
    assert "force" in told["hint"] and "kills" in told["hint"]
    after = daemon.status(target)
    assert (after["state"], after["token"], after["worker"]) == ("RUNNING", before["token"], "running")
    assert daemon.status()["running"] is True


@pytest.mark.parametrize("source", ["sleeps", "has_grandchild", "has_stubborn_grandchild", "ignores_sigterm"])
def test_after_a_forced_reset_no_process_is_left_when_the_answer_arrives(daemon: Daemon, source: str) -> None:
    idle = daemon.workers()
    target = busy(daemon, source)
    answer = daemon.call("POST", "/api/scrape-status/reset", {"force": True})
    now, others = daemon.workers(), left(daemon)
    assert answer.status_code == 200, answer.text
    assert not others
    assert now < idle or now == idle == set()  # an idle worker, where there was one, did the work
    status = daemon.status(target)
    assert (status["state"], status["worker"], status["started_at"]) == ("IDLE", "none", None)
    sweep = daemon.status()
    assert (sweep["running"], sweep["state"]) == (False, "IDLE")


def test_a_forced_reset_ends_runs_that_still_wait_for_a_worker(daemon: Daemon) -> None:
    targets = [daemon.add(f"sleeps:{n}")["user"]["id"] for n in range(6)]
    wait_until(lambda: sum(daemon.status(t)["state"] == "RUNNING" for t in targets) == 3)
    assert daemon.call("POST", "/api/scrape-status/reset", {"force": True}).status_code == 200
    assert not daemon.descendants()
    for target in targets:
        status = daemon.status(target)
        assert (status["state"], status["phase"]) == ("IDLE", None)
    assert daemon.status()["running"] is False


def test_a_forced_reset_says_who_and_why_in_the_journal(daemon: Daemon) -> None:
    target = busy(daemon, "sleeps")
    assert daemon.call("POST", "/api/scrape-status/reset", {"force": True, "reason": "Tuesday"}).status_code == 200
    entry = daemon.journal(target)[0]
    assert (entry["trigger"], entry["from"], entry["to"]) == ("reset", "RUNNING", "IDLE")
    assert (entry["actor"], entry["reason"], entry["forced"]) == ("api", "Tuesday", True)


def test_a_scrape_can_be_asked_for_at_once_after_a_forced_reset(daemon: Daemon) -> None:
    busy(daemon, "ignores_sigterm")
    assert daemon.call("POST", "/api/scrape-status/reset", {"force": True}).status_code == 200
    target = daemon.add("good:after")["user"]["id"]
    daemon.wait_state(target, "COMPLETED", within_s=3)


# -- transitions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger, guard", [("reset", "overdue"), ("expire", "overdue"), ("fail", "holds_token")])
def test_an_unforced_ending_is_refused_with_everything_a_person_needs(daemon: Daemon, trigger: str, guard: str) -> None:
    target = busy(daemon, "sleeps")
    token = daemon.status(target)["token"]
    answer = daemon.pull(target, trigger)
    told = answer.json()
    assert answer.status_code == 409
    assert (told["refused_by"], told["state"], told["trigger"]) == (guard, "RUNNING", trigger)
    assert told["running_for_s"] >= 0 and f"{told['running_for_s']} s" in told["error"]
    assert "force" in told["hint"] and "reason" in told["hint"] and "kills" in told["hint"]
    status = daemon.status(target)
    assert (status["state"], status["token"], status["worker"]) == ("RUNNING", token, "running")
    assert status["triggers"][trigger] == {"possible": False, "refused_by": guard}
    refusal = daemon.journal(target)[0]
    assert (refusal["trigger"], refusal["refused_by"], refusal["to"]) == (trigger, guard, None)


@pytest.mark.parametrize("trigger", ["reset", "expire", "fail"])
def test_force_needs_a_reason(daemon: Daemon, trigger: str) -> None:
    target = busy(daemon, "sleeps")
    answer = daemon.pull(target, trigger, force=True)
    assert answer.status_code == 400
    assert "reason" in answer.json()["error"]
    assert daemon.status(target)["state"] == "RUNNING"


@pytest.mark.parametrize("trigger, state", [("reset", "IDLE"), ("expire", "TIMEOUT"), ("fail", "FAILED")])
def test_a_forced_ending_ends_the_run_and_its_processes(daemon: Daemon, trigger: str, state: str) -> None:
    idle = daemon.workers()
    target = busy(daemon, "has_grandchild")
    run_id = daemon.status(target)["run_id"]
    answer = daemon.pull(target, trigger, **FORCE)
    now, others = daemon.workers(), left(daemon)
    assert answer.status_code == 200, answer.text
    assert not others
    assert now < idle or now == idle == set()
    told = answer.json()
    assert (told["state"], told["worker"], told["id"]) == (state, "none", target)
    run = daemon.get(f"/api/runs/{run_id}")
    assert (run["state"], run["reason"]) == (state, "it hangs")
    assert [entry["trigger"] for entry in run["timeline"]] == ["start", trigger]
    assert run["timeline"][-1]["forced"] is True


def test_a_stale_run_id_stops_nothing(daemon: Daemon) -> None:
    target = busy(daemon, "sleeps")
    old = daemon.status(target)["run_id"]
    assert daemon.pull(target, "reset", **FORCE).status_code == 200
    assert daemon.pull(target, "start").status_code == 200
    new = wait_until(lambda: (s := daemon.status(target))["worker"] == "running" and s["run_id"])
    assert new != old
    answer = daemon.pull(target, "reset", run_id=old, **FORCE)
    assert answer.status_code == 409
    assert answer.json()["refused_by"] == "same_run"
    assert daemon.status(target)["run_id"] == new and daemon.status(target)["state"] == "RUNNING"
    assert daemon.pull(target, "reset", run_id=new, **FORCE).status_code == 200


def test_an_ending_of_what_does_not_run_is_refused(daemon: Daemon) -> None:
    target = daemon.create("good:x")
    for trigger in ("expire", "fail"):
        answer = daemon.pull(target, trigger, **FORCE)
        assert (answer.status_code, answer.json()["refused_by"]) == (409, "no_such_edge")
    assert daemon.status(target)["state"] == "IDLE"


# -- while a worker is stopping --------------------------------------------------------------------------------------


def test_the_answer_is_202_while_a_stubborn_worker_is_stopping(daemon: Daemon) -> None:
    target = busy(daemon, "ignores_sigterm")
    answer = daemon.pull(target, "reset", **FORCE)
    assert answer.status_code == 202
    told = answer.json()
    assert (told["state"], told["worker"], told["phase"]) == ("IDLE", "stopping", "stopping")
    assert told["triggers"]["start"] == {"possible": False, "refused_by": "worker_gone"}
    status = wait_until(lambda: (s := daemon.status(target))["worker"] == "none" and s, within_s=1.5 + 0.5)
    assert status["triggers"]["start"]["possible"] is True
    assert not daemon.descendants()


def test_a_start_while_the_old_worker_is_stopping_waits_until_it_is_gone(daemon: Daemon, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    target = busy(daemon, "exclusive", str(mark))
    wait_until(lambda: mark.exists() and mark.read_text())
    old = int(mark.read_text())
    assert daemon.pull(target, "reset", **FORCE).status_code == 202
    answer = daemon.pull(target, "start", **FORCE)  # force does not waive worker_gone
    assert answer.status_code == 202
    assert (answer.json()["state"], answer.json()["worker"]) == ("IDLE", "stopping")
    assert family(old)
    status = daemon.wait_state(target, "COMPLETED", "FAILED", within_s=5)
    assert status["state"] == "COMPLETED", status["error"]
    assert not family(old)
    assert daemon.posts(target) == ["second"]


def test_a_target_is_never_scraped_twice_at_once_however_it_is_reset_and_started(
    daemon: Daemon, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    target = busy(daemon, "exclusive", str(mark))
    for _ in range(15):
        daemon.pull(target, "reset", **FORCE)
        daemon.pull(target, "start")
    daemon.wait_state(target, "COMPLETED", "FAILED", within_s=10)
    wait_until(lambda: daemon.status(target)["worker"] == "none")
    runs = daemon.runs(target)
    assert {run["state"] for run in runs} <= {"IDLE", "COMPLETED"}, [run for run in runs if run["state"] == "FAILED"]


def test_removing_a_target_answers_when_its_processes_are_gone(daemon: Daemon) -> None:
    target = busy(daemon, "has_stubborn_grandchild")
    answer = daemon.call("DELETE", f"/api/targets/{target}")
    others = left(daemon)
    assert answer.status_code == 200
    assert not others
    assert daemon.call("GET", f"/api/targets/{target}/status").status_code == 404
    assert [(entry["trigger"], entry["reason"]) for entry in daemon.journal(target)][0] == ("reset", "removed")
