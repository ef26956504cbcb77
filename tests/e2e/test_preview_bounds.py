"""What a preview may not do: leave anything in the database or a process, take a turn that is not its own, last."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator

import cli
from tests.support.daemon import ROOT, Daemon, family, is_alive
from tests.support.disk import Locked
from tests.support.feeds import RSS, rss
from tests.support.settings import scrapers
from tests.support.sites import Asked, Reply, Site
from tests.support.waiting import wait_until

PATH = "/api/targets/preview"
OPENAPI = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("preview") / "data"
    given = {"workers": 4, "scrape_timeout_s": 2, "stop_grace_s": 0.5, "default_schedule": "manual"}
    with Daemon(home, **given, **scrapers()) as daemon:
        target = daemon.create("good:kept")
        daemon.pull(target, "start")
        daemon.wait_state(target, "COMPLETED")
        yield daemon
        assert "Traceback" not in daemon.log


def rows(daemon: Daemon) -> dict[str, int]:
    """How many every table of the database has."""
    with sqlite3.connect(daemon.home / "gleand.db") as conn:
        names = [name for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        found = {name: int(conn.execute(f"SELECT count(*) FROM {name}").fetchone()[0]) for name in names}
    conn.close()
    assert {"targets", "runs", "posts", "journal", "sweeps", "hosts"} <= found.keys()
    return found


@pytest.fixture
def daemon(shared: Daemon) -> Iterator[Daemon]:
    """Nothing is in the database afterwards that was not before, and no place is taken."""
    before = rows(shared)
    yield shared
    wait_until(lambda: shared.call("POST", PATH, {"target": "good:x"}).status_code == 200)
    assert rows(shared) == before


@pytest.fixture
def site() -> Iterator[Site]:
    with Site() as site:
        yield site


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(6) as threads:
        yield threads


def preview(daemon: Daemon, target: str, **more: Any) -> dict[str, Any]:
    """A preview that is answered; the answer has the shape that was promised, and no field more."""
    answer = daemon.call("POST", PATH, {"target": target} | more)
    assert answer.status_code == 200, answer.text
    shown: dict[str, Any] = answer.json()
    for name, view in [("Preview", shown), *(("PreviewPost", post) for post in shown["posts"])]:
        schema = OPENAPI["components"]["schemas"][name] | {"components": OPENAPI["components"]}
        Draft202012Validator(schema).validate(view)
        assert view.keys() == schema["properties"].keys()
    return shown


def ask(threads: ThreadPoolExecutor, daemon: Daemon, target: str) -> Future[requests.Response]:
    return threads.submit(requests.post, daemon.url + PATH, json={"target": target}, timeout=60)


def insist(daemon: Daemon, target: str) -> str:
    """Ask again while its host is busy; the outcome."""
    while (answer := requests.post(daemon.url + PATH, json={"target": target}, timeout=60)).status_code == 409:
        continue
    return str(answer.json()["outcome"])


def worker_of(mark: Path) -> int:
    """Pid of the worker that has the target `waits:MARK`."""
    return int(wait_until(lambda: mark.exists() and mark.read_text(), within_s=15))


def test_a_feed_is_shown_and_not_tracked(daemon: Daemon, site: Site) -> None:
    site.answer("/feed", rss("one", "two", "one"), Content_Type=RSS)
    shown = preview(daemon, site.url())
    assert (shown["outcome"], shown["error"], shown["display_name"]) == ("COMPLETED", None, "A feed")
    assert [post["title"] for post in shown["posts"]] == ["one", "two"]
    assert shown["posts_found"] == 2
    assert shown["next"] == f"to track it: gleand add {site.url()}"
    assert [target["handle"] for target in daemon.get("/api/targets")["targets"]] == ["kept"]


def test_the_feed_of_a_page_is_found(daemon: Daemon, site: Site) -> None:
    link = f'<link rel="alternate" type="{RSS}" href="/rss">'
    site.answer("/", f"<html><head>{link}</head><body></body></html>".encode(), Content_Type="text/html")
    site.answer("/rss", rss("one"), Content_Type=RSS)
    shown = preview(daemon, site.url("/"))
    assert (shown["outcome"], shown["moved_to"]) == ("COMPLETED", site.url("/rss"))
    assert shown["posts_found"] == 1


def test_a_text_that_is_cut_is_said(daemon: Daemon, site: Site) -> None:
    site.answer("/feed", rss("one", "x" * 300_000), Content_Type=RSS)
    shown = preview(daemon, site.url())
    assert (shown["outcome"], shown["truncated"]) == ("COMPLETED", True)
    assert "the text of 1 post is cut" in shown["notes"]


def test_what_is_known_of_a_tracked_target_is_said(daemon: Daemon) -> None:
    shown = preview(daemon, "good:kept")
    assert any(note.endswith(": 1 of these are kept") for note in shown["notes"])
    assert shown["next"].startswith("to scrape it now: gleand refresh ")


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("raises:x", "ValueError: <b>no</b> such luck"),
        ("exits:x", "exit"),
        ("killed:x", "SIGKILL"),
        ("segfaults:x", "SIGSEGV"),
        ("http://127.0.0.1:1/feed", "127.0.0.1:1 refused the connection"),
    ],
)
def test_a_scrape_that_fails_is_an_answer(daemon: Daemon, target: str, error: str) -> None:
    shown = preview(daemon, target)
    assert (shown["outcome"], shown["posts"]) == ("FAILED", [])
    assert error in shown["error"]


@pytest.mark.parametrize("target", ["sleeps:x", "ignores_sigterm:x", "has_grandchild:x", "holds_gil:x"])
def test_a_scrape_that_hangs_is_ended_at_its_deadline(daemon: Daemon, target: str) -> None:
    began = time.monotonic()
    shown = preview(daemon, target)
    took_s = time.monotonic() - began
    assert (shown["outcome"], shown["error"]) == ("TIMEOUT", "the scrape ran longer than 2 s")
    assert 2 <= shown["duration_s"] <= took_s < 4
    wait_until(lambda: not any("grandchild" in line for line in daemon.descendants().values()))


def test_the_worker_of_one_that_hangs_is_gone(daemon: Daemon, tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    mark = tmp_path / "mark"
    answer = ask(threads, daemon, f"waits:{mark}")
    worker = worker_of(mark)
    assert answer.result().json()["outcome"] == "TIMEOUT"
    wait_until(lambda: not is_alive(worker) and not family(worker))


def test_two_at_once_and_the_third_is_turned_away_and_runs_go_on(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    marks = [tmp_path / "a", tmp_path / "b"]
    with Daemon(tmp_path / "data", workers=3, scrape_timeout_s=4, stop_grace_s=0.5, **scrapers()) as daemon:
        answers = [ask(threads, daemon, f"waits:{mark}") for mark in marks]
        workers = [worker_of(mark) for mark in marks]
        third = daemon.call("POST", PATH, {"target": "good:x"})
        assert (third.status_code, third.json()["code"]) == (429, "too_many")
        assert int(third.headers["Retry-After"]) > 0
        daemon.wait_state(daemon.add("good:run")["user"]["id"], "COMPLETED")
        assert all(map(is_alive, workers))
        assert [answer.result().json()["outcome"] for answer in answers] == ["TIMEOUT"] * 2
        wait_until(lambda: daemon.call("POST", PATH, {"target": "good:x"}).status_code == 200)
        assert not any(map(is_alive, workers))


def test_without_a_free_worker_it_is_turned_away_and_the_run_goes_on(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with Daemon(tmp_path / "data", workers=1, stop_grace_s=0.5, **scrapers()) as daemon:
        daemon.add(f"waits:{mark}")
        worker, began = worker_of(mark), time.monotonic()
        busy = daemon.call("POST", PATH, {"target": "good:x"})
        assert (busy.status_code, busy.json()["code"]) == (503, "busy")
        assert int(busy.headers["Retry-After"]) > 0
        assert 4.9 < time.monotonic() - began < 8
        assert is_alive(worker)
        assert daemon.call("POST", "/api/scrape-status/reset", {"force": True}).status_code == 200
        assert preview(daemon, "good:x")["outcome"] == "COMPLETED"


def test_a_client_that_goes_away_changes_nothing(daemon: Daemon, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(requests.ReadTimeout):
        daemon.call("POST", PATH, {"target": f"waits:{mark}"}, timeout=1)
    worker = worker_of(mark)
    wait_until(lambda: not is_alive(worker), within_s=6)
    assert daemon.get("/healthz")["status"] == "ok"


def test_a_preview_does_not_touch_the_target_that_it_would_be(daemon: Daemon) -> None:
    before = daemon.get("/api/targets")["targets"][0]
    kept = before["id"]
    status = daemon.status(kept)
    assert preview(daemon, "good:kept")["outcome"] == "COMPLETED"
    assert daemon.status(kept) == status
    assert daemon.get("/api/targets")["targets"][0] == before


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, 400),
        ({"target": ""}, 400),
        ({"target": 7}, 400),
        ({"target": "good:a", "colour": "red"}, 400),
        ({"target": "nope:a"}, 422),
        ({"target": "good:a", "range": 0}, 422),
        ({"target": "ftp://a.example/"}, 422),
    ],
)
def test_what_cannot_be_meant_is_refused(daemon: Daemon, body: dict[str, Any], code: int) -> None:
    answer = daemon.call("POST", PATH, body)
    assert (answer.status_code, set(answer.json()) >= {"error", "code"}) == (code, True), answer.text


def test_preview_is_no_target(daemon: Daemon) -> None:
    assert daemon.call("GET", PATH).status_code == 404
    assert daemon.call("DELETE", PATH).status_code == 404
    assert daemon.call("PUT", PATH).status_code == 405


def test_the_command_line_shows_it(daemon: Daemon, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.answer("/feed", rss("one", "two"), Content_Type=RSS)
    assert cli.main(["preview", site.url(), "--url", daemon.url]) == 0
    out, err = capsys.readouterr()
    assert [line.split("\t")[2] for line in out.splitlines() if "\t" in line] == ["one", "two"]
    assert out.endswith(f"to track it: gleand add {site.url()}\n") and not err
    assert cli.main(["preview", "x", "--source", "raises", "--json", "--url", daemon.url]) == cli.EXIT_REFUSED
    assert json.loads(capsys.readouterr().out)["outcome"] == "FAILED"


def test_a_locked_database_does_not_matter(daemon: Daemon, site: Site) -> None:
    site.answer("/feed", rss("one"), Content_Type=RSS)
    with Locked(daemon.home / "gleand.db", "IMMEDIATE"):
        assert daemon.call("POST", "/api/targets", {"target": "good:refused"}).status_code == 503
        assert preview(daemon, site.url())["outcome"] == "COMPLETED"
        assert preview(daemon, "sleeps:x")["outcome"] == "TIMEOUT"
    wait_until(lambda: daemon.call("GET", "/readyz").status_code == 200, within_s=10)


# -- hosts -----------------------------------------------------------------------------------------------------------


def test_it_keeps_the_delay_beside_real_runs_of_its_host(
    tmp_path: Path, site: Site, threads: ThreadPoolExecutor
) -> None:
    asked_at: list[float] = []

    def reply(_: Asked) -> Reply:
        asked_at.append(time.monotonic())
        return Reply(body=rss("one"), headers={"Content-Type": RSS})

    for path in "abcd":
        site.answer_with(f"/{path}", reply)
    with Daemon(tmp_path / "data", host_delay_s=0.5, workers=4) as daemon:
        for path in "abc":
            daemon.create(site.url(f"/{path}"))
        daemon.call("POST", "/api/users/refresh-all")
        outcomes = threads.map(lambda _: insist(daemon, site.url("/d")), range(2))
        assert list(outcomes) == ["COMPLETED"] * 2
        wait_until(lambda: not daemon.status()["running"])
        assert daemon.status()["completed_users"] == 3
    gaps = [b - a for a, b in zip(asked_at, asked_at[1:], strict=False)]
    assert len(gaps) == 4 and min(gaps) >= 0.5, gaps


def test_it_obeys_robots_txt_and_retry_after_and_leaves_only_what_the_host_asked_for(
    tmp_path: Path, site: Site
) -> None:
    site.answer("/robots.txt", b"User-agent: *\nDisallow: /private\n", Content_Type="text/plain")
    site.answer("/feed", rss("one"), Content_Type=RSS)
    site.answer("/busy", b"", status=429, Retry_After="3600")
    with Daemon(tmp_path / "data", respect_robots=True) as daemon:
        before = rows(daemon)
        refused = preview(daemon, site.url("/private/feed"))
        assert (refused["outcome"], "robots.txt" in refused["error"]) == ("FAILED", True)
        assert preview(daemon, site.url())["outcome"] == "COMPLETED"
        assert [asked.path for asked in site.asked] == ["/robots.txt", "/feed"]
        busy = preview(daemon, site.url("/busy"))
        assert busy["outcome"] == "FAILED"
        left_alone = daemon.call("POST", PATH, {"target": site.url()})
        assert (left_alone.status_code, left_alone.json()["refused_by"]) == (409, "host_free")
        assert "Retry-After" in left_alone.json()["error"]
        wait_until(lambda: rows(daemon) == before | {"hosts": before["hosts"] + 1})


# -- the end ---------------------------------------------------------------------------------------------------------


def test_a_stop_ends_a_preview_at_once(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    mark = tmp_path / "mark"
    with Daemon(tmp_path / "data", stop_grace_s=0.5, drain_timeout_s=20, **scrapers()) as daemon:
        before = rows(daemon)
        answer = ask(threads, daemon, f"waits:{mark}")
        worker = worker_of(mark)
        began = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
        assert not is_alive(worker) and not family(worker)
        assert (answer.result().status_code, answer.result().json()["code"]) == (503, "draining")
        assert rows(daemon) == before
        assert "Traceback" not in daemon.log


def test_a_killed_daemon_takes_the_worker_along(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    mark = tmp_path / "mark"
    with Daemon(tmp_path / "data", **scrapers()) as daemon:
        before = rows(daemon)
        answer = ask(threads, daemon, f"waits:{mark}")
        worker = worker_of(mark)
        daemon.kill()
        wait_until(lambda: not is_alive(worker))
        with pytest.raises(requests.ConnectionError):
            answer.result()
        daemon.start()
        assert rows(daemon) == before | {"boots": before["boots"] + 1}
        assert "runs_recovered" not in daemon.log
