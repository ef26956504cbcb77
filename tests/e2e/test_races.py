"""Many at once: one wins, the others are told so; and whoever polls from the answer on sees no gap."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests

from tests.support.daemon import Daemon
from tests.support.feeds import Gate, rss
from tests.support.settings import scrapers
from tests.support.sites import Site
from tests.support.waiting import wait_until

CLIENTS = 50
WORKERS = 2
ENDED = {"COMPLETED", "FAILED", "TIMEOUT"}
FORCE = {"force": True, "reason": "the test is over"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("races") / "data"
    settings = {"host_concurrency": 100, "workers": WORKERS, "stop_grace_s": 0.5, "default_schedule": "manual"}
    with Daemon(home, **settings, read_timeout_s=60, scrape_timeout_s=60, **scrapers()) as daemon:
        yield daemon


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """Nothing tracked and nothing going on, before and after."""
    yield shared
    assert shared.call("POST", "/api/scrape-status/reset", FORCE).status_code == 200
    for target in shared.get("/api/targets?limit=200")["targets"]:
        assert shared.call("DELETE", f"/api/targets/{target['id']}").status_code == 200


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


def at_once(
    daemon: Daemon, method: str, path: str, body: Any = None, clients: int = CLIENTS
) -> list[requests.Response]:
    """The same request from every client, each on a connection of its own that is open already."""
    barrier = threading.Barrier(clients)
    answers: list[requests.Response] = []

    def client() -> None:
        with requests.Session() as session:
            session.trust_env = False
            session.get(f"{daemon.url}/healthz", timeout=30)
            barrier.wait(30)
            answers.append(session.request(method, daemon.url + path, json=body, timeout=60))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == clients
    return answers


def codes(answers: list[requests.Response]) -> Counter[int]:
    return Counter(answer.status_code for answer in answers)


# -- one wins --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tracked", [False, True])
def test_of_fifty_who_ask_for_the_same_hanging_target_one_wins(daemon: Daemon, tracked: bool) -> None:
    if tracked:
        daemon.create("sleeps:x")
    answers = at_once(daemon, "POST", "/api/users/add", {"username": "sleeps:x"})
    assert codes(answers) == {200: 1, 409: CLIENTS - 1}
    for answer in answers:
        if answer.status_code == 409:
            told = answer.json()
            assert told["code"] == "already_running"
            assert told["refused_by"] in ("not_queued", "not_running")
            assert told["trigger"] == "start"
    (user,) = daemon.get("/api/users")["users"]
    wait_until(lambda: daemon.status(user["id"])["state"] == "RUNNING")
    assert daemon.pull(user["id"], "reset", **FORCE).status_code in (200, 202)
    assert [run["state"] for run in daemon.runs(user["id"])] == ["IDLE"]
    rows = daemon.journal(user["id"])
    assert sum(row["times"] for row in rows if row["refused_by"]) == CLIENTS - 1
    assert [row["trigger"] for row in reversed(rows) if row["to"]] == ["start", "reset"]


def test_of_fifty_who_pull_the_same_start_one_wins(daemon: Daemon) -> None:
    target = daemon.create("sleeps:x")
    answers = at_once(daemon, "POST", f"/api/targets/{target}/transitions", {"trigger": "start"})
    assert codes(answers) == {200: 1, 409: CLIENTS - 1}
    assert daemon.status()["total_users"] == 1


def test_of_fifty_who_refresh_all_at_once_one_wins(daemon: Daemon) -> None:
    targets = [daemon.create(f"sleeps:{n}") for n in range(3)]
    answers = at_once(daemon, "POST", "/api/users/refresh-all")
    assert codes(answers) == {200: 1, 409: CLIENTS - 1}
    sweep = next(answer.json()["sweep_id"] for answer in answers if answer.status_code == 200)
    told = [answer.json() for answer in answers if answer.status_code == 409]
    assert {(t["code"], t["sweep_id"]) for t in told} == {("already_running", sweep)}
    members = daemon.get(f"/api/sweeps/{sweep}")["members"]
    assert [member["target_id"] for member in members] == targets
    wait_until(lambda: daemon.status()["counts"]["RUNNING"] == WORKERS)
    daemon.call("POST", "/api/scrape-status/reset", FORCE)
    assert sum(len(daemon.runs(target)) for target in targets) == WORKERS


def test_of_fifty_who_reset_the_same_run_one_ends_it(daemon: Daemon) -> None:
    target = int(daemon.add("sleeps:x")["user"]["id"])
    run = wait_until(lambda: daemon.status(target)["run_id"])
    body = {"trigger": "expire", "run_id": run} | FORCE
    answers = at_once(daemon, "POST", f"/api/targets/{target}/transitions", body)
    assert codes(answers)[409] == CLIENTS - 1
    assert daemon.status(target)["state"] == "TIMEOUT"
    assert [run["state"] for run in daemon.runs(target)] == ["TIMEOUT"]


def test_twenty_who_remove_a_user_at_once_remove_it_once(daemon: Daemon) -> None:
    target = daemon.add("sleeps:x")["user"]["id"]
    answers = at_once(daemon, "POST", "/api/users/remove", {"username": "sleeps:x"}, clients=20)
    found = codes(answers)
    assert found[200] >= 1
    assert set(found) <= {200, 404}  # who came late finds nobody
    assert daemon.get("/api/users")["count"] == 0
    assert sum(daemon.status()["counts"].values()) == 0
    rows = [row for row in daemon.journal(target) if row["reason"] == "removed"]
    assert len(rows) <= 2 and rows[0]["from"] == "IDLE"  # its run ended, and it went


def test_twenty_who_add_different_targets_at_once_all_get_theirs(daemon: Daemon) -> None:
    numbers = iter(range(20))
    lock = threading.Lock()
    answers: list[int] = []

    def client() -> None:
        with lock:
            name = f"good:{next(numbers)}"
        answer = requests.post(f"{daemon.url}/api/users/add", json={"username": name}, timeout=30)
        with lock:
            answers.append(answer.status_code)

    threads = [threading.Thread(target=client) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 20
    wait_until(lambda: not daemon.status()["running"])
    wait_until(
        lambda: daemon.status()["counts"] == {"IDLE": 0, "RUNNING": 0, "FAILED": 0, "TIMEOUT": 0, "COMPLETED": 20}
    )


# -- no gap ----------------------------------------------------------------------------------------------------------


class Poller:
    """Polls a status every 10 ms from now on, until it says that it is over; what it saw."""

    def __init__(self, daemon: Daemon, path: str, is_over: Callable[[], bool]) -> None:
        self.seen: list[bool] = []
        #: Whether everything was done when it was first told so.
        self.was_over: bool | None = None
        self._daemon, self._path, self._is_over = daemon, path, is_over
        self._tick = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while self.was_over is None:
                view = session.get(self._daemon.url + self._path, timeout=10).json()
                assert view["running"] is (view["state"] == "RUNNING")
                self.seen.append(view["running"])
                if not view["running"]:
                    self.was_over = self._is_over()
                self._tick.wait(0.01)

    def polled(self, more: int = 5) -> None:
        """Wait until it has asked some more times."""
        before = len(self.seen)
        wait_until(lambda: len(self.seen) >= before + more or self.was_over is not None, within_s=20)

    def result(self) -> tuple[bool, bool | None]:
        """Whether there was no gap, and whether all was done when it said so."""
        self._thread.join(30)
        assert len(self.seen) > 3
        return all(self.seen[:-1]), self.was_over


def over(daemon: Daemon, *targets: int) -> Callable[[], bool]:
    """Every one of them has ended."""
    return lambda: all(daemon.get(f"/api/targets/{target}")["state"] in ENDED for target in targets)


def busy(daemon: Daemon, site: Site) -> list[Gate]:
    """Every worker waits at a gate of its own."""
    gates = [Gate(site, f"/busy{n}", rss("one")) for n in range(WORKERS)]
    for gate in gates:
        daemon.add(gate.url)
    for gate in gates:
        assert gate.asked.wait(10)
    return gates


@pytest.mark.parametrize("by_id", [False, True])
def test_from_the_answer_of_add_on_running_is_true_until_it_is_done(daemon: Daemon, site: Site, by_id: bool) -> None:
    gates = busy(daemon, site)
    mine = Gate(site, "/mine", rss("one"))
    added = daemon.add(mine.url)
    path = "/api/scrape-status" + (f"?sweep_id={added['sweep_id']}" if by_id else "")
    target = added["user"]["id"]
    ids = [target] if by_id else [user["id"] for user in daemon.get("/api/users")["users"]]
    poller = Poller(daemon, path, over(daemon, *ids))
    poller.polled()
    assert daemon.status(target)["phase"] == "queued"
    gates[0].open()
    assert mine.asked.wait(10)
    poller.polled()
    mine.open()
    wait_until(lambda: daemon.status(target)["state"] == "COMPLETED")
    if not by_id:  # another one was asked for, and is not done
        poller.polled()
        assert daemon.status()["running"]
        gates[1].open()
    assert poller.result() == (True, True)


@pytest.mark.parametrize("by_id", [False, True])
def test_from_the_answer_of_refresh_all_on_running_is_true_until_the_last_is_done(
    daemon: Daemon, site: Site, by_id: bool
) -> None:
    gates = [Gate(site, f"/{n}", rss("one")) for n in range(3 * WORKERS)]
    ids = [daemon.create(gate.url) for gate in gates]
    ids.append(daemon.create("raises:x"))
    answer = daemon.call("POST", "/api/users/refresh-all").json()
    poller = Poller(
        daemon, "/api/scrape-status" + (f"?sweep_id={answer['sweep_id']}" if by_id else ""), over(daemon, *ids)
    )
    assert answer["total_users"] == len(ids)
    for gate in gates:
        assert gate.asked.wait(10)
        poller.polled(3)
        gate.open()
    assert poller.result() == (True, True)
    status = daemon.get(f"/api/scrape-status?sweep_id={answer['sweep_id']}")
    assert (status["state"], status["completed_users"], status["failed_users"]) == ("COMPLETED", len(gates), 1)


def test_targets_that_end_at_once_leave_no_gap_either(daemon: Daemon) -> None:
    ids = [daemon.create(f"good:{n}") for n in range(60)]
    for _ in range(3):
        daemon.call("POST", "/api/users/refresh-all")
        assert Poller(daemon, "/api/scrape-status", over(daemon, *ids)).result() == (True, True)
        assert daemon.status()["completed_users"] == 60
        for target in ids:  # back to IDLE, so that the next round cannot be taken for this one
            assert daemon.pull(target, "reset").status_code == 200
