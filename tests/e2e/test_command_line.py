"""The `gleand` command against a real daemon: what it does, what it prints, and the exit codes scripts can use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cli
from tests.support.daemon import ROOT, Daemon, free_port
from tests.support.feeds import RSS, rss
from tests.support.settings import scrapers
from tests.support.sites import Site
from tests.support.waiting import wait_until

FORCE = {"force": True, "reason": "test"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def view(self) -> Any:  # Any: JSON
        """What --json printed; nothing else is on stdout."""
        return json.loads(self.out)

    @property
    def rows(self) -> list[list[str]]:
        """A list, as other programs get it."""
        return [line.split("\t") for line in self.out.splitlines()]


class Gleand:
    """`gleand ARGS`, sent to one daemon."""

    def __init__(self, daemon: Daemon, capsys: pytest.CaptureFixture[str]) -> None:
        self.daemon, self._capsys = daemon, capsys

    def __call__(self, *args: str) -> Done:
        self._capsys.readouterr()
        code = cli.main([*args, "--url", self.daemon.url])
        out, err = self._capsys.readouterr()
        assert "Traceback" not in out + err
        return Done(code=code, out=out, err=err)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    home = tmp_path_factory.mktemp("cli") / "data"
    with Daemon(home, workers=2, stop_grace_s=0.5, default_schedule="manual", **scrapers()) as daemon:
        yield daemon


@pytest.fixture
def gleand(shared: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Gleand]:
    """Nothing tracked and nothing going on, before and after."""
    for name in [name for name in os.environ if name.startswith("GLEAND_")]:
        monkeypatch.delenv(name)
    yield Gleand(shared, capsys)
    assert shared.call("POST", "/api/scrape-status/reset", FORCE).status_code == 200
    for target in shared.get("/api/targets?limit=200")["targets"]:
        assert shared.call("DELETE", f"/api/targets/{target['id']}").status_code == 200


def idle(gleand: Gleand) -> None:
    wait_until(lambda: not gleand.daemon.status()["running"])


# -- add, list, show, remove -----------------------------------------------------------------------------------------


def test_add_tracks_and_scrapes_and_says_what_became_of_it(gleand: Gleand) -> None:
    done = gleand("add", "good:ann", "--schedule", "every 2h", "--range", "5", "--timeout-s", "9")
    assert (done.code, done.err) == (0, "")
    (target,) = gleand.daemon.get("/api/targets")["targets"]
    assert done.out == f"added good:ann as target {target['id']}\n"
    assert (target["schedule"], target["timeout_s"]) == ("every 2h", 9)
    idle(gleand)
    shown = dict(line.split(": ", 1) for line in gleand("show", "good:ann").out.splitlines())
    assert (shown["handle"], shown["state"], shown["post_count"]) == ("ann", "COMPLETED", "1")


def test_add_without_a_start_waits(gleand: Gleand) -> None:
    assert gleand("add", "good:ann", "--no-start", "--schedule", "every 1d").code == 0
    view = gleand("show", "good:ann", "--json").view
    assert (view["state"], view["last_scraped"]) == ("IDLE", None)


def test_adding_twice_is_a_refusal(gleand: Gleand) -> None:
    gleand("add", "good:ann", "--no-start")
    done = gleand("add", "good:ann")
    assert (done.code, done.out) == (1, "")
    assert "tracked already" in done.err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["alice"], "not the address of a feed"),
        (["file:///etc/passwd"], "only http and https"),
        (["good:x", "--schedule", "0 0 30 2 *"], "never fires"),
        (["x", "--source", "nobody"], "no source 'nobody'"),
    ],
)
def test_what_the_daemon_refuses_is_said_with_a_hint_and_code_1(gleand: Gleand, args: list[str], words: str) -> None:
    done = gleand("add", *args)
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("gleand: ")
    assert words in done.err
    assert gleand.daemon.get("/api/users")["count"] == 0


def test_list_is_a_line_each_with_tabs_for_other_programs(gleand: Gleand) -> None:
    for name in ("good:ann", "good:ben", "raises:cat"):
        gleand("add", name)
    idle(gleand)
    rows = gleand("list").rows
    assert [row[1:4] for row in rows] == [
        ["COMPLETED", "good", "ann"],
        ["COMPLETED", "good", "ben"],
        ["FAILED", "raises", "cat"],
    ]
    assert "such luck" in rows[2][6]
    assert [row[3] for row in gleand("list", "--state", "FAILED").rows] == ["cat"]
    assert [row[3] for row in gleand("list", "--source", "good", "--limit", "1").rows] == ["ann"]
    assert [row[3] for row in gleand("list", "-q", "be").rows] == ["ben"]
    assert [t["handle"] for t in gleand("list", "--json").view["targets"]] == ["ann", "ben", "cat"]


def test_a_target_is_found_by_id_handle_and_address(gleand: Gleand) -> None:
    with Site() as site:
        site.answer("/feed", rss("one"), Content_Type=RSS)
        gleand("add", site.url())
        gleand("add", "good:ann", "--no-start")
        idle(gleand)
        feed, ann = gleand.daemon.get("/api/targets")["targets"]
        for name in (str(ann["id"]), "ann", "good:ann"):
            assert gleand("show", name, "--json").view["id"] == ann["id"]
        for name in (str(feed["id"]), site.url(), f"feed:{site.url()}"):
            assert gleand("show", name, "--json").view["id"] == feed["id"]


def test_a_handle_that_two_targets_have_is_asked_about(gleand: Gleand) -> None:
    for source in ("good", "raises"):
        gleand("add", f"{source}:ann", "--no-start")
    done = gleand("show", "ann")
    assert done.code == 2
    assert "good:ann" in done.err and "raises:ann" in done.err


def test_remove_ends_and_forgets_a_target(gleand: Gleand) -> None:
    gleand("add", "sleeps:x")
    done = gleand("remove", "sleeps:x")
    assert (done.code, done.out) == (0, "removed sleeps:x\n")
    assert gleand("list").out == ""


@pytest.mark.parametrize("command", ["show", "remove", "status", "refresh", "reset", "pause", "resume", "posts"])
def test_what_is_not_tracked_is_code_4(gleand: Gleand, command: str) -> None:
    done = gleand(command, "good:nobody")
    assert (done.code, done.out) == (4, "")
    assert "no target good:nobody is tracked" in done.err


# -- status, refresh, reset ------------------------------------------------------------------------------------------


def test_status_says_what_is_going_on(gleand: Gleand) -> None:
    gleand("add", "sleeps:x")
    wait_until(lambda: gleand("status", "sleeps:x", "--json").view["worker"] == "running")
    overall = gleand("status", "--json").view
    assert (overall["running"], overall["current_user"], overall["total_users"]) == (True, "x", 1)
    lines = dict(line.split(": ", 1) for line in gleand("status", "sleeps:x").out.splitlines())
    assert (lines["state"], lines["worker"], lines["stalled"]) == ("RUNNING", "running", "false")
    assert "deadline_at" in lines
    assert "progress: Scraping x" in gleand("status").out


def test_refresh_scrapes_one_or_all(gleand: Gleand) -> None:
    for name in ("good:ann", "good:ben"):
        gleand("add", name, "--no-start")
    assert gleand("refresh", "ann").code == 0
    idle(gleand)
    assert [row[1] for row in gleand("list").rows] == ["COMPLETED", "IDLE"]
    assert gleand("refresh").out == "asked for 2 targets\n"
    idle(gleand)
    assert [row[1] for row in gleand("list").rows] == ["COMPLETED", "COMPLETED"]
    assert gleand("refresh", "--json").view["total_users"] == 2


def test_refreshing_what_is_in_progress_or_nothing_is_a_refusal(gleand: Gleand) -> None:
    assert gleand("refresh").code == 1
    gleand("add", "sleeps:x")
    for args in (["refresh", "sleeps:x"], ["refresh"], ["refresh"]):
        done = gleand(*args)
    assert done.code == 1
    assert "already" in done.err


def test_reset_needs_force_for_what_runs_and_force_needs_a_reason(gleand: Gleand) -> None:
    gleand("add", "sleeps:x")
    target = gleand("show", "sleeps:x", "--json").view["id"]
    wait_until(lambda: gleand.daemon.status(target)["worker"] == "running")
    for name in (["sleeps:x"], []):
        refused = gleand("reset", *name)
        assert refused.code == 1
        assert "force" in refused.err
        assert gleand("reset", *name, "--force").code == 2
        assert gleand.daemon.status(target)["state"] == "RUNNING"
    done = gleand("reset", "sleeps:x", "--force", "--reason", "it hangs")
    assert (done.code, done.out) == (0, "x: IDLE\n")
    assert gleand.daemon.journal(target)[0]["reason"] == "it hangs"
    gleand("refresh", "sleeps:x")
    wait_until(lambda: gleand.daemon.status(target)["worker"] == "running")
    done = gleand("reset", "--force", "--reason", "all of it")
    assert (done.code, done.out) == (0, "Reset: 1 run(s) ended\n")
    assert gleand("status", "--json").view["state"] == "IDLE"


def test_pause_and_resume(gleand: Gleand) -> None:
    gleand("add", "good:ann", "--no-start")
    assert gleand("pause", "ann").out == "paused ann until it is resumed\n"
    assert gleand("refresh", "ann").code == 1
    assert gleand("resume", "ann").code == 0
    assert gleand("show", "ann", "--json").view["paused_until"] is None
    assert gleand("pause", "ann", "--for", "2h").code == 0
    assert gleand("show", "ann", "--json").view["paused_until"] is not None
    assert gleand("pause", "ann", "--until", "2099-01-01T00:00Z").code == 0
    assert gleand("show", "ann", "--json").view["paused_until"] == "2099-01-01T00:00:00.000+00:00"


@pytest.mark.parametrize("args", [["--for", "soon"], ["--until", "tomorrow"], ["--until", "2001-01-01"], ["--for"]])
def test_a_pause_that_cannot_be_is_code_2(gleand: Gleand, args: list[str]) -> None:
    gleand("add", "good:ann", "--no-start")
    assert gleand("pause", "ann", *args).code == 2
    assert gleand("show", "ann", "--json").view["paused_until"] is None


# -- posts and import ------------------------------------------------------------------------------------------------


def test_posts_of_all_or_of_one_newest_first(gleand: Gleand) -> None:
    with Site() as site:
        site.answer("/feed", rss("three", "two", "one"), Content_Type=RSS)
        gleand("add", site.url())
        idle(gleand)
    gleand("add", "good:ann")
    idle(gleand)
    assert [row[2] for row in gleand("posts").rows] == ["hello from ann", "three", "two", "one"]
    assert [row[2] for row in gleand("posts", site.url(), "--limit", "2").rows] == ["three", "two"]
    assert [post["title"] for post in gleand("posts", "ann", "--json").view["posts"]] == ["hello from ann"]


def test_import_tracks_what_it_can_and_says_what_it_cannot(gleand: Gleand, tmp_path: Path) -> None:
    gleand("add", "good:ann", "--no-start")
    file = tmp_path / "targets.txt"
    file.write_text("# mine\ngood:ann\ngood:ben  # again\n\nfile:///etc/passwd\n", encoding="utf-8")
    done = gleand("import", str(file), "--no-start", "--schedule", "every 3h")
    assert done.code == 1
    assert done.out == "1 added, 1 tracked already, 1 refused\n"
    assert "line 5: file:///etc/passwd: only http and https" in done.err
    assert gleand("show", "ben", "--json").view["schedule"] == "every 3h"
    view = gleand("import", str(file), "--json").view
    assert [result["result"] for result in view["results"]] == ["tracked already", "tracked already", "refused"]


def test_what_list_printed_can_be_imported(gleand: Gleand, tmp_path: Path) -> None:
    for name, schedule in (("good:ann", "every 3h"), ("raises:ben", "0 6 * * 1")):
        gleand("add", name, "--no-start", "--schedule", schedule)
    file = tmp_path / "targets.json"
    file.write_text(gleand("list", "--json").out, encoding="utf-8")
    for name in ("ann", "ben"):
        gleand("remove", name)
    assert gleand("import", str(file), "--no-start").code == 0
    found = [(t["source"], t["handle"], t["schedule"]) for t in gleand("list", "--json").view["targets"]]
    assert found == [("good", "ann", "every 3h"), ("raises", "ben", "0 6 * * 1")]


def test_opml_is_imported(gleand: Gleand, tmp_path: Path) -> None:
    file = tmp_path / "feeds.opml"
    outlines = "".join(f'<outline text="{n}" xmlUrl="http://127.0.0.1:9/{n}"/>' for n in (1, 2))
    file.write_text(f"<opml version='2.0'><body><outline>{outlines}</outline></body></opml>", encoding="utf-8")
    assert gleand("import", str(file), "--no-start").out == "2 added, 0 tracked already, 0 refused\n"


def test_the_diagram_is_the_daemons_own(gleand: Gleand) -> None:
    assert gleand("diagram").out == gleand.daemon.call("GET", "/api/lifecycle.mmd").text


# -- the process itself ----------------------------------------------------------------------------------------------


def process(*args: str, **env: str) -> Done:
    """`python cli.py ARGS` as a process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("GLEAND_")}
    command = [sys.executable, str(ROOT / "cli.py"), *args]
    done = subprocess.run(command, capture_output=True, text=True, env=clean | env, timeout=60, check=False)
    return Done(code=done.returncode, out=done.stdout, err=done.stderr)


def test_the_daemon_is_found_by_flag_variable_and_settings(gleand: Gleand, tmp_path: Path) -> None:
    gleand("add", "good:ann", "--no-start")
    config = tmp_path / "gleand.toml"
    config.write_text(f"port = {gleand.daemon.port}\n", encoding="utf-8")
    for done in (
        process("list", "--url", gleand.daemon.url),
        process("list", GLEAND_URL=gleand.daemon.url),
        process("list", "--config", str(config)),
        process("list", GLEAND_PORT=str(gleand.daemon.port)),
    ):
        assert (done.code, done.err) == (0, "")
        assert done.rows[0][3] == "ann"


def test_when_nobody_answers_it_is_code_3_and_says_what_to_do(tmp_path: Path) -> None:
    done = process("list", "--url", f"http://127.0.0.1:{free_port()}")
    assert (done.code, done.out) == (3, "")
    assert "gleand serve" in done.err


def test_a_token_is_needed_where_one_is_set(tmp_path: Path) -> None:
    with Daemon(tmp_path / "data", api_token="correct-horse-battery", workers=1) as daemon:
        done = process("list", GLEAND_URL=daemon.url)
        assert done.code == 1
        assert "GLEAND_API_TOKEN" in done.err or "Bearer" in done.err
        for done in (
            process("list", "--token", "correct-horse-battery", GLEAND_URL=daemon.url),
            process("list", GLEAND_URL=daemon.url, GLEAND_API_TOKEN="correct-horse-battery"),
        ):
            assert (done.code, done.out, done.err) == (0, "", "")


def test_check_shows_the_settings_and_ends_with_0(tmp_path: Path) -> None:
    done = process("check", "--set", "workers=3", "--data-dir", str(tmp_path), "--json", GLEAND_HOST_DELAY_S="2")
    assert done.code == 0
    settings = {row["name"]: (row["value"], row["source"]) for row in done.view["settings"]}
    assert settings["workers"] == ("3", "flag")
    assert settings["host_delay_s"] == ("2.0", "GLEAND_HOST_DELAY_S")
    assert settings["port"] == ("5000", "default")
    assert done.view["problems"] == []


def test_check_names_everything_that_is_wrong_and_ends_with_78(tmp_path: Path) -> None:
    done = process("check", "--set", "workers=0", "--set", "default_source=nobody", "--set", "wrkers=3")
    assert done.code == 78
    assert "workers" in done.err and "wrkers" in done.err
    done = process("check", "--set", "default_schedule=0 0 30 2 *", "--data-dir", str(tmp_path))
    assert done.code == 78
    assert "never fires" in done.err


def test_check_imports_the_scrapers_as_a_worker_would(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import nothing_of_that_name\ndef scrape(target, http): ...\n", encoding="utf-8")
    flags = ["--set", "scrapers=mine=mine:scrape", "--set", f"scraper_path={tmp_path}", "--data-dir", str(tmp_path)]
    done = process("check", *flags)
    assert done.code == 78
    assert "nothing_of_that_name" in done.err


def test_serve_with_settings_that_cannot_work_ends_with_78(tmp_path: Path) -> None:
    for wrong in ("workers=0", "default_schedule=never"):
        done = process("serve", "--set", wrong, "--data-dir", str(tmp_path), "--port", str(free_port()))
        assert done.code == 78
        assert done.err.startswith("gleand: ")


def test_help_and_mistakes_on_the_line() -> None:
    assert process("--version").out.startswith("gleand ")
    assert process("--help").code == 0
    assert process("no-such-command").code == 2
    assert process("add").code == 2
