"""Section 2 and 3 of the contract through the real daemon: targets, triggers, history, ETags and waiting."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from tests.support.daemon import Daemon
from tests.support.feeds import RSS, Gate, rss
from tests.support.settings import scrapers
from tests.support.sites import Reply, Site
from tests.support.waiting import wait_until

FORCE = {"force": True, "reason": "test"}
STATUS = set(
    "state phase token run_id worker started_at deadline_at last_heartbeat last_progress_at stalled progress error"
    " reason attempt next_due_at last_run triggers".split()
)
FAR = "2099-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("targets") / "data"
    settings = {"workers": 3, "stop_grace_s": 0.5, "default_schedule": "manual", "check_interval_s": 1}
    with Daemon(home, **settings, timezone="UTC", read_timeout_s=60, **scrapers()) as daemon:
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


def refused(answer: requests.Response, code: int, guard: str | None = None) -> dict[str, Any]:
    """A refusal in the one shape."""
    assert answer.status_code == code, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    told: dict[str, Any] = answer.json()
    assert told["error"] and told["code"]
    assert told.get("refused_by") == guard
    return told


def running(daemon: Daemon, name: str = "sleeps:x", **more: Any) -> int:
    target = int(daemon.add(name, **more)["user"]["id"])
    wait_until(lambda: daemon.status(target)["worker"] == "running")
    return target


# -- targets ---------------------------------------------------------------------------------------------------------


def test_a_created_target_has_an_address_and_is_scraped(daemon: Daemon) -> None:
    answer = daemon.call("POST", "/api/targets", {"target": "good:ann", "schedule": "every 2h", "timeout_s": 9})
    assert answer.status_code == 201
    target = answer.json()
    assert answer.headers["Location"] == f"/api/targets/{target['id']}"
    assert (target["source"], target["handle"], target["schedule"], target["timeout_s"]) == (
        "good",
        "ann",
        "every 2h",
        9,
    )
    daemon.wait_state(target["id"], "COMPLETED")
    found = daemon.get(answer.headers["Location"])
    assert (found["state"], found["post_count"], found["error"]) == ("COMPLETED", 1, None)
    assert datetime.fromisoformat(found["next_due_at"]) > datetime.now(UTC) + timedelta(hours=1.8)


def test_a_target_that_is_not_to_start_waits(daemon: Daemon) -> None:
    target = daemon.create("good:ann", schedule="every 1h")
    status = daemon.status(target)
    assert (status["state"], status["phase"], status["run_id"], status["last_run"]) == ("IDLE", None, None, None)
    assert daemon.status()["counts"]["IDLE"] == 1
    assert not daemon.status()["running"]


def test_tracking_twice_is_refused(daemon: Daemon) -> None:
    target = daemon.create("good:ann")
    told = refused(daemon.call("POST", "/api/targets", {"target": "good:ann"}), 409, "not_tracked")
    assert told["target_id"] == target


def test_targets_are_listed_by_state_source_and_words_in_pages(daemon: Daemon) -> None:
    ids = [daemon.create(f"good:user{n}") for n in range(5)] + [daemon.create("raises:user9")]
    daemon.pull(ids[-1], "start")
    daemon.wait_state(ids[-1], "FAILED")

    def listed(query: str) -> list[int]:
        found: list[int] = []
        cursor = ""
        while True:
            page = daemon.get(f"/api/targets?limit=2&{query}{cursor}")
            found += [target["id"] for target in page["targets"]]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    assert listed("") == ids
    assert listed("state=FAILED") == listed("source=raises") == ids[5:]
    assert listed("state=IDLE") == ids[:5]
    assert listed("q=user3") == [ids[3]]
    assert listed("q=%25") == []


def test_a_removed_target_is_gone_with_its_posts_and_runs_but_not_its_journal(daemon: Daemon) -> None:
    target = daemon.create("good:ann")
    daemon.pull(target, "start")
    daemon.wait_state(target, "COMPLETED")
    run = daemon.status(target)["run_id"]
    assert daemon.call("DELETE", f"/api/targets/{target}").status_code == 200
    for path in (f"targets/{target}", f"targets/{target}/status", f"targets/{target}/posts", f"runs/{run}"):
        refused(daemon.call("GET", f"/api/{path}"), 404)
    refused(daemon.call("DELETE", f"/api/targets/{target}"), 404)
    assert daemon.journal(target)[0]["reason"] == "removed"


def test_every_field_that_may_change_changes_and_only_that(daemon: Daemon) -> None:
    target = daemon.create("good:ann")
    before = daemon.get(f"/api/targets/{target}")
    changes = {"schedule": "every 1h", "timeout_s": 12.5, "paused_until": FAR, "display_name": "Ann <Lee>"}
    for name, value in changes.items():
        answer = daemon.call("PATCH", f"/api/targets/{target}", {name: value})
        assert answer.status_code == 200
        assert daemon.get(f"/api/targets/{target}") == answer.json()
    after = daemon.get(f"/api/targets/{target}")
    assert after["paused_until"] == "2099-01-01T00:00:00.000+00:00"
    assert (after["schedule"], after["timeout_s"], after["display_name"]) == ("every 1h", 12.5, "Ann <Lee>")
    assert after["next_due_at"] is not None
    rest = set(before) - set(changes) - {"next_due_at", "initials"}
    assert {name: after[name] for name in rest} == {name: before[name] for name in rest}


def test_a_paused_target_starts_only_by_force(daemon: Daemon) -> None:
    target = daemon.create("good:ann", schedule="every 1s")
    daemon.call("PATCH", f"/api/targets/{target}", {"paused_until": FAR})
    told = refused(daemon.pull(target, "start"), 409, "not_paused")
    assert (told["state"], told["trigger"]) == ("IDLE", "start")
    refused(daemon.call("POST", "/api/users/add", {"username": "good:ann"}), 409, "not_paused")
    refused(daemon.call("POST", "/api/users/refresh-all"), 400)
    assert daemon.status(target)["triggers"]["start"] == {"possible": False, "refused_by": "not_paused"}
    refused(daemon.pull(target, "start", force=True), 400)
    assert daemon.pull(target, "start", **FORCE).status_code == 200
    daemon.wait_state(target, "COMPLETED")
    daemon.call("PATCH", f"/api/targets/{target}", {"paused_until": None})
    wait_until(lambda: len(daemon.runs(target)) >= 3)  # and the schedule goes on


def test_a_target_keeps_its_own_time_limit(daemon: Daemon) -> None:
    target = daemon.create("sleeps:x", timeout_s=1)
    daemon.pull(target, "start")
    status = daemon.wait_state(target, "TIMEOUT", within_s=3)
    assert status["error"] == "the scrape ran longer than 1 s"
    assert 1 <= status["last_run"]["duration_s"] < 1.5


def test_a_changed_time_limit_counts_from_the_next_run(daemon: Daemon) -> None:
    target = running(daemon)
    deadline = daemon.status(target)["deadline_at"]
    daemon.call("PATCH", f"/api/targets/{target}", {"timeout_s": 0.5})
    assert daemon.status(target)["deadline_at"] == deadline
    daemon.pull(target, "reset", **FORCE)
    daemon.pull(target, "start")
    assert daemon.wait_state(target, "TIMEOUT", within_s=3)["error"] == "the scrape ran longer than 0.5 s"


# -- the lifecycle ---------------------------------------------------------------------------------------------------


def test_the_status_of_a_run_says_everything(daemon: Daemon, site: Site) -> None:
    gate = Gate(site, "/slow", rss("one"), begun=True)
    target = daemon.create(gate.url)
    assert set(daemon.status(target)) >= STATUS
    assert daemon.pull(target, "start").status_code == 200
    assert gate.asked.wait(10)
    status = wait_until(lambda: (s := daemon.status(target))["phase"] == "fetching" and s)
    assert (status["state"], status["worker"], status["stalled"], status["error"]) == (
        "RUNNING",
        "running",
        False,
        None,
    )
    times = [datetime.fromisoformat(status[name]) for name in ("started_at", "last_progress_at", "deadline_at")]
    assert times == sorted(times)
    assert status["token"] == status["run_id"]
    assert {name: t["refused_by"] for name, t in status["triggers"].items()} == {
        "start": "no_such_edge",
        "reset": "overdue",
        "expire": "overdue",
        "fail": "holds_token",
    }
    gate.open()
    ended = daemon.wait_state(target, "COMPLETED")
    assert (ended["phase"], ended["worker"], ended["progress"]) == (None, "none", None)
    assert ended["token"] > status["token"]
    assert ended["last_run"]["id"] == status["run_id"]
    possible = {name: t["possible"] for name, t in ended["triggers"].items()}
    assert possible == {"start": True, "reset": True, "expire": False, "fail": False}


@pytest.mark.parametrize(("trigger", "state"), [("reset", "IDLE"), ("expire", "TIMEOUT"), ("fail", "FAILED")])
def test_a_run_is_ended_by_force_only_and_the_journal_says_by_whom(daemon: Daemon, trigger: str, state: str) -> None:
    target = running(daemon)
    guard = "holds_token" if trigger == "fail" else "overdue"
    told = refused(daemon.pull(target, trigger), 409, guard)
    assert (told["state"], told["trigger"]) == ("RUNNING", trigger)
    answer = daemon.pull(target, trigger, **FORCE)
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["worker"]) == (state, "none")
    newest, refusal = daemon.journal(target)[:2]
    assert (newest["from"], newest["to"], newest["forced"], newest["reason"]) == ("RUNNING", state, True, "test")
    assert (refusal["refused_by"], refusal["to"], refusal["actor"]) == (guard, None, "api")


def test_an_answer_that_comes_before_the_worker_is_gone_is_202(daemon: Daemon) -> None:
    target = running(daemon, "ignores_sigterm:x")
    wait_until(lambda: daemon.status(target)["phase"] == "starting")
    daemon.call("PATCH", f"/api/targets/{target}", {"display_name": "still there"})
    answer = daemon.pull(target, "reset", **FORCE)
    assert answer.status_code in (200, 202)
    assert answer.json()["worker"] == ("stopping" if answer.status_code == 202 else "none")
    wait_until(lambda: daemon.status(target)["worker"] == "none")


def test_the_button_of_an_old_run_does_not_stop_the_next(daemon: Daemon) -> None:
    target = running(daemon)
    old = daemon.status(target)["run_id"]
    daemon.pull(target, "reset", **FORCE)
    daemon.pull(target, "start")
    wait_until(lambda: daemon.status(target)["state"] == "RUNNING")
    told = refused(daemon.pull(target, "reset", run_id=old, **FORCE), 409, "same_run")
    assert told["run_id"] == daemon.status(target)["run_id"] != old
    assert daemon.status(target)["state"] == "RUNNING"


def test_the_same_refusal_many_times_is_one_row_that_counts(daemon: Daemon) -> None:
    target = running(daemon)
    for _ in range(7):
        daemon.pull(target, "expire")
    refusals = [row for row in daemon.journal(target) if row["refused_by"]]
    assert [(row["trigger"], row["times"]) for row in refusals] == [("expire", 7)]


def test_a_run_has_a_timeline(daemon: Daemon) -> None:
    target = running(daemon)
    daemon.pull(target, "expire")
    daemon.pull(target, "expire", **FORCE)
    run = daemon.get(f"/api/runs/{daemon.status(target)['run_id']}")
    assert [(e["trigger"], e["to"], e["refused_by"]) for e in run["timeline"]] == [
        ("start", "RUNNING", None),
        ("expire", None, "overdue"),
        ("expire", "TIMEOUT", None),
    ]
    assert (run["state"], run["target_id"]) == ("TIMEOUT", target)


def test_history_is_paged_newest_first(daemon: Daemon) -> None:
    target = daemon.create("good:ann")
    for n in range(1, 5):
        daemon.pull(target, "start")
        wait_until(lambda n=n: len([r for r in daemon.runs(target) if r["state"] == "COMPLETED"]) == n)
    first = daemon.get(f"/api/targets/{target}/runs?limit=3")
    rest = daemon.get(f"/api/targets/{target}/runs?limit=3&cursor={first['next_cursor']}")
    ids = [run["id"] for run in first["runs"] + rest["runs"]]
    assert ids == sorted(ids, reverse=True)
    assert (len(ids), rest["next_cursor"]) == (4, None)
    assert len(daemon.journal(target)) == 8


# -- order and hosts -------------------------------------------------------------------------------------------------


def test_a_slow_host_does_not_delay_another(daemon: Daemon, site: Site) -> None:
    gate = Gate(site, "/slow", rss("one"))
    slow = [daemon.create(url) for url in (gate.url, *(site.url(f"/{n}") for n in range(3)))]
    with Site() as quick:
        quick.answer("/feed", rss("two"), Content_Type=RSS)
        other = daemon.create(quick.url())
        daemon.call("POST", "/api/users/refresh-all")
        assert gate.asked.wait(10)
        daemon.wait_state(other, "COMPLETED")
        states = [daemon.status(target) for target in slow]
        assert [(s["state"], s["phase"]) for s in states[1:]] == [("IDLE", "queued")] * 3
        gate.open()
        for target in slow:
            daemon.wait_state(target, "COMPLETED", "FAILED")


def test_retry_after_is_shown_kept_and_ends_what_would_wait_too_long(daemon: Daemon, site: Site) -> None:
    site.answer("/busy", b"", status=429, Retry_After="3600")
    first, second = daemon.create(site.url("/busy")), daemon.create(site.url("/calm"))
    sweep = daemon.call("POST", "/api/users/refresh-all").json()["sweep_id"]
    wait_until(lambda: not daemon.status()["running"])
    view = daemon.get(f"/api/sweeps/{sweep}")
    assert (view["state"], view["failed_users"]) == ("FAILED", 2)
    assert "asked to be left alone until" in view["members"][1]["error"]
    (host,) = daemon.get("/api/hosts")["hosts"]
    assert host["host"] == f"127.0.0.1:{site.port}"
    assert "Retry-After" in host["reason"]
    left = datetime.fromisoformat(host["next_allowed_at"]) - datetime.now(UTC)
    assert timedelta(minutes=59) < left < timedelta(minutes=61)
    assert [asked.path for asked in site.asked] == ["/busy"]
    assert daemon.status(first)["state"] == "FAILED"
    assert daemon.status(second)["state"] == "IDLE"


def test_two_runs_on_one_host_keep_their_distance(tmp_path_factory: pytest.TempPathFactory, site: Site) -> None:
    asked_at: list[float] = []

    def reply(_: object) -> Reply:
        asked_at.append(time.monotonic())
        return Reply(body=rss("one"), headers={"Content-Type": RSS})

    for path in "abc":
        site.answer_with(f"/{path}", reply)
    with Daemon(tmp_path_factory.mktemp("delay") / "data", host_delay_s=0.5, workers=3) as daemon:
        for path in "abc":
            daemon.create(site.url(f"/{path}"))
        daemon.call("POST", "/api/users/refresh-all")
        wait_until(lambda: not daemon.status()["running"])
        assert daemon.status()["completed_users"] == 3
    gaps = [b - a for a, b in zip(asked_at, asked_at[1:], strict=False)]
    assert len(gaps) == 2 and min(gaps) >= 0.5


def test_a_schedule_is_kept_by_the_second(daemon: Daemon) -> None:
    target = daemon.create("good:ann", schedule="every 1s")
    wait_until(lambda: len(daemon.runs(target)) >= 4, within_s=10)
    starts = [datetime.fromisoformat(run["started_at"]) for run in reversed(daemon.runs(target))]
    gaps = [(b - a).total_seconds() for a, b in zip(starts, starts[1:], strict=False)]
    assert all(0.9 <= gap <= 2.5 for gap in gaps), gaps
    assert {row["actor"] for row in daemon.journal(target) if row["trigger"] == "start"} == {"schedule"}


# -- ETags and waiting -----------------------------------------------------------------------------------------------


class Waiter:
    """A long poll on a thread of its own."""

    def __init__(self, daemon: Daemon, path: str, etag: str | None = None) -> None:
        self.answer: requests.Response | None = None
        self.took_s = 0.0
        self._call = (daemon.url + path, {"If-None-Match": etag} if etag else {})
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        began = time.monotonic()
        with requests.Session() as session:
            session.trust_env = False
            self.answer = session.get(self._call[0], headers=self._call[1], timeout=30)
        self.took_s = time.monotonic() - began

    def waits(self, seconds: float) -> bool:
        """Whether it is still waiting after that long."""
        self._thread.join(seconds)
        return self.answer is None

    def result(self) -> requests.Response:
        self._thread.join(30)
        assert self.answer is not None
        return self.answer


@pytest.mark.parametrize("which", ["scrape-status", "target"])
def test_what_a_client_has_is_answered_with_304(daemon: Daemon, which: str) -> None:
    target = daemon.create("good:ann")
    path = "/api/scrape-status" if which == "scrape-status" else f"/api/targets/{target}/status"
    first = daemon.call("GET", path)
    etag = first.headers["ETag"]
    assert etag.startswith('W/"')
    again = daemon.call("GET", path, headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag)
    assert daemon.call("GET", path, headers={"If-None-Match": f'"other", {etag}'}).status_code == 304
    assert daemon.call("GET", path, headers={"If-None-Match": '"other"'}).status_code == 200
    daemon.pull(target, "start")
    daemon.wait_state(target, "COMPLETED")
    changed = daemon.call("GET", path, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.headers["ETag"] == etag) == (200, False)


def test_heartbeats_neither_change_the_tag_nor_wake_a_waiter(daemon: Daemon) -> None:
    target = running(daemon)
    path = f"/api/targets/{target}/status"
    first = wait_until(lambda: (a := daemon.call("GET", path)).json()["phase"] == "starting" and a)
    beat = first.json()["last_heartbeat"]
    waiter = Waiter(daemon, f"{path}?wait=2.5", first.headers["ETag"])
    later = wait_until(lambda: (a := daemon.call("GET", path)).json()["last_heartbeat"] != beat and a)
    assert later.headers["ETag"] == first.headers["ETag"]
    assert waiter.result().status_code == 304
    assert waiter.took_s >= 2.5


@pytest.mark.parametrize("which", ["scrape-status", "target"])
@pytest.mark.parametrize("with_tag", [False, True])
def test_a_waiter_is_answered_at_the_change(daemon: Daemon, which: str, with_tag: bool) -> None:
    target = running(daemon)
    path = "/api/scrape-status" if which == "scrape-status" else f"/api/targets/{target}/status"
    etag = daemon.call("GET", path).headers["ETag"]
    waiter = Waiter(daemon, f"{path}?wait=20", etag if with_tag else None)
    assert waiter.waits(0.3)
    daemon.pull(target, "expire", **FORCE)
    answer = waiter.result()
    assert answer.status_code == 200
    assert answer.json()["state"] in ("TIMEOUT", "RUNNING")
    assert answer.headers["ETag"] != etag
    assert waiter.took_s < 10


def test_a_waiter_on_a_status_it_does_not_have_is_answered_at_once(daemon: Daemon) -> None:
    target = daemon.create("good:ann")
    waiter = Waiter(daemon, f"/api/targets/{target}/status?wait=20", '"old"')
    assert waiter.result().status_code == 200
    assert waiter.took_s < 5


def test_a_waiter_follows_one_sweep_to_its_end(daemon: Daemon, site: Site) -> None:
    gate = Gate(site, "/slow", rss("one"))
    sweep = daemon.add(gate.url)["sweep_id"]
    assert gate.asked.wait(10)
    path = f"/api/scrape-status?sweep_id={sweep}"
    first = daemon.call("GET", path)
    waiter = Waiter(daemon, f"{path}&wait=20", first.headers["ETag"])
    daemon.create("good:other")
    gate.open()
    view = waiter.result().json()
    etag = waiter.result().headers["ETag"]
    while view["running"]:  # other things in it changed before
        answer = Waiter(daemon, f"{path}&wait=20", etag).result()
        view, etag = answer.json(), answer.headers["ETag"]
    assert (view["sweep_id"], view["state"]) == (sweep, "COMPLETED")


@pytest.mark.parametrize("wait", ["-1", "61", "abc", "NaN", "1e9"])
def test_a_wait_that_cannot_be_is_refused(daemon: Daemon, wait: str) -> None:
    refused(daemon.call("GET", f"/api/scrape-status?wait={wait}"), 400)


def test_waiting_for_what_is_not_there_is_404_at_once(daemon: Daemon) -> None:
    refused(daemon.call("GET", "/api/targets/99999/status?wait=20", timeout=10), 404)
    refused(daemon.call("GET", "/api/scrape-status?sweep_id=99999&wait=20", timeout=10), 404)


# -- the rest --------------------------------------------------------------------------------------------------------


def test_posts_are_found_by_target_source_time_and_words(daemon: Daemon, site: Site) -> None:
    site.answer("/ann", rss("needle", "straw"), Content_Type=RSS)
    before = datetime.now(UTC).isoformat()
    ids = [int(daemon.add(name)["user"]["id"]) for name in (site.url("/ann"), "good:ben")]
    for target in ids:
        daemon.wait_state(target, "COMPLETED")

    def titles(**query: Any) -> list[str]:
        return [post["title"] for post in daemon.get("/api/posts", params=query)["posts"]]

    assert sorted(titles()) == ["hello from ben", "needle", "straw"]
    assert titles(target=ids[0]) == ["needle", "straw"]
    assert titles(source="good") == ["hello from ben"]
    assert titles(q="NEEDLE") == ["needle"]
    assert len(titles(since=before)) == 3
    assert titles(since="2099-01-01T00:00:00Z") == []
    assert [p["title"] for p in daemon.get(f"/api/targets/{ids[0]}/posts")["posts"]] == ["needle", "straw"]


def test_sources_the_diagram_and_the_contract_are_there(daemon: Daemon) -> None:
    assert {"feed", "good"} <= {source["name"] for source in daemon.get("/api/sources")["sources"]}
    assert daemon.call("GET", "/api/lifecycle.mmd").text.startswith("stateDiagram-v2")
    assert daemon.get("/openapi.json")["openapi"].startswith("3.1")
    assert daemon.get("/healthz")["status"] == "ok"
    assert daemon.get("/readyz")["status"] == "ready"
