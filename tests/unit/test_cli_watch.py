"""`gleand status --watch`: what it shows, how often it asks, and what it survives."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import cli
from terminal.remote import Remote
from terminal.screen import JsonLines, Lines, draw
from terminal.watch import Scene, Watch
from tests.support.fake_daemon import FakeDaemon, run, sweep, target
from tests.support.waiting import wait_until

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    with FakeDaemon() as daemon:
        yield daemon


class Watching:
    """A watch in a process of its own; what it wrote so far."""

    def __init__(self, fake: FakeDaemon, *args: str, terminal: bool = False) -> None:
        out, theirs = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 110, 0, 0))
        environ = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
        environ |= {"TERM": "xterm-256color", "PYTHONUNBUFFERED": "1"}
        command = [sys.executable, "-m", "gleand", "status", "--watch", "--url", fake.url, *args]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=theirs, env=environ)
        os.close(theirs)
        self._data = b""
        self._thread = threading.Thread(target=self._read, args=(out,))
        self._thread.start()

    def _read(self, out: int) -> None:
        try:
            while data := os.read(out, 65536):
                self._data += data
        except OSError:  # how a terminal says that nobody is left
            pass
        os.close(out)

    @property
    def text(self) -> str:
        return self._data.decode("utf-8", "replace")

    def shows(self, *words: str) -> None:
        wait_until(lambda: all(word in self.text for word in words), within_s=10)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(10)
        self._thread.join()
        return code


@pytest.fixture
def watch(fake: FakeDaemon) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def start(*args: str, **how: bool) -> Watching:
        started.append(Watching(fake, *args, **how))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.end()


def busy(target_id: int, **more: Any) -> dict[str, Any]:
    began = datetime.now(UTC)
    times = {"started_at": began.isoformat(), "deadline_at": (began + timedelta(minutes=10)).isoformat()}
    return target(target_id, "RUNNING") | {"phase": "fetching", "progress": "page 3"} | times | more


def moving(**more: Any) -> dict[str, Any]:
    counts = {"IDLE": 2, "RUNNING": 1, "COMPLETED": 3, "FAILED": 1, "TIMEOUT": 0}
    some: dict[str, Any] = {"counts": counts, "total_users": 10, "completed_users": 3, "failed_users": 1}
    some |= {"running": True, "state": "RUNNING", "sweep_id": 5, "progress": "Scraping t8 (4 of 10 done)"}
    return sweep(**some | more)


def test_each_change_is_a_line_and_ctrl_c_ends_it_with_130(fake: FakeDaemon, watch: Callable[..., Watching]) -> None:
    one = watch()
    one.shows("\tdaemon\tIDLE\t\tIdle")
    fake.set(busy(8))
    fake.set(moving())
    one.shows("\tgit:t8\tRUNNING\tfetching\tpage 3", "\tsweep 5\tRUNNING\t\tScraping t8 (4 of 10 done)")
    fake.set(target(8, "FAILED", error="gone\x1b[2J", last_run=run(3, "FAILED")))
    fake.set(moving(state="COMPLETED", running=False, progress="Done"))
    one.shows("\tgit:t8\tFAILED\t\tgone\ufffd[2J", "\tsweep 5\tCOMPLETED\t\tDone")
    assert one.end() == cli.EXIT_STOPPED
    assert len(one.text.strip().splitlines()) == 5
    assert "\x1b" not in one.text and "Traceback" not in one.text


def test_with_json_each_change_is_an_object_on_its_line(fake: FakeDaemon, watch: Callable[..., Watching]) -> None:
    fake.set(busy(8))
    fake.set(moving())
    one = watch("--json")
    one.shows('"page 3"')
    fake.set(moving(state="COMPLETED", running=False))
    one.shows('COMPLETED", "progress')
    one.end()
    views = [json.loads(line) for line in one.text.strip().splitlines()]
    assert [view["status"]["state"] for view in views] == ["RUNNING", "COMPLETED"]
    assert [run["id"] for run in views[0]["runs"]] == [8]
    assert views[0]["connected"] is True


def test_it_survives_a_restart_of_the_daemon_and_says_so(fake: FakeDaemon, watch: Callable[..., Watching]) -> None:
    one = watch()
    one.shows("Idle")
    fake.stop()
    one.shows("\tconnection\tlost\t", "trying again")
    fake.start()
    fake.set(moving())
    one.shows("\tconnection\tback", "\tsweep 5\tRUNNING")
    assert one.end() == cli.EXIT_STOPPED


def test_it_survives_a_daemon_that_is_not_ready_yet(fake: FakeDaemon, watch: Callable[..., Watching]) -> None:
    one = watch()
    one.shows("Idle")
    fake.canned["GET", "/api/scrape-status"] = (503, {"error": "the database is not ready yet"})
    fake.set(sweep(progress="wakes it"))
    one.shows("the database is not ready yet; trying again")
    del fake.canned["GET", "/api/scrape-status"]
    one.shows("\tconnection\tback", "wakes it")


def test_a_watch_of_a_target_ends_when_it_is_no_longer_tracked(
    fake: FakeDaemon, watch: Callable[..., Watching]
) -> None:
    fake.set(target(8))
    one = watch("8")
    one.shows("\tgit:t8\tIDLE")
    fake.set(busy(8))
    one.shows("\tgit:t8\tRUNNING\tfetching\tpage 3")
    fake.canned["GET", "/api/targets/8/status"] = (404, {"error": "there is no target 8"})
    fake.set(target(8))
    assert one.process.wait(10) == cli.EXIT_NOT_FOUND
    one.shows("gleand: there is no target 8")


def test_without_a_daemon_it_does_not_start(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    fake.stop()
    assert cli.main(["status", "--watch", "--url", fake.url]) == cli.EXIT_UNREACHABLE
    assert "no daemon answers" in capsys.readouterr().err


def test_on_a_terminal_it_is_a_live_screen_that_gives_the_cursor_back(
    fake: FakeDaemon, watch: Callable[..., Watching]
) -> None:
    fake.set(busy(8))
    fake.set(busy(9, stalled=True, progress="no news"))
    fake.set(moving())
    one = watch(terminal=True)
    one.shows("git:t8", "page 3", "4 of 10", "3 completed, 1 failed, 0 timed out", "COMPLETED 3", "\x1b[?25l")
    assert any("\x1b[31m" in line and "stalled" in line for line in one.text.splitlines() if "git:t9" in line)
    fake.stop()
    one.shows("trying again. What follows is what it said last.")
    assert one.end(signal.SIGTERM) == cli.EXIT_STOPPED
    assert one.text.rstrip().endswith("\x1b[?25h")


class Sleeper:
    """Sleeps for nobody, but remembers for how long."""

    def __init__(self) -> None:
        self.slept = 0.0

    def __call__(self, seconds: float) -> None:
        self.slept += seconds


def test_an_idle_daemon_is_asked_to_answer_at_the_next_change(fake: FakeDaemon, watch: Callable[..., Watching]) -> None:
    one = watch()
    wait_until(lambda: fake.count("/api/scrape-status") == 2)
    assert fake.asked[-1] == ("GET", "/api/scrape-status", {"wait": "30.0"})
    fake.set(moving())
    one.shows("sweep 5")


def test_a_daemon_that_does_not_hold_a_waiter_is_asked_once_a_second(fake: FakeDaemon) -> None:
    fake.holds = False
    sleeper = Sleeper()
    watching = Watch(Remote(fake.url, None, False), sleep=sleeper)
    for _ in range(5):
        watching.round()
    assert sleeper.slept > 3.0


def test_a_sweep_that_changes_all_the_time_is_looked_at_twice_a_second(fake: FakeDaemon) -> None:
    sleeper = Sleeper()
    watching = Watch(Remote(fake.url, None, False), sleep=sleeper)
    for number in range(6):
        fake.set(moving(completed_users=number))
        watching.round()
    assert sleeper.slept > 2.0


def test_no_more_runs_are_asked_for_than_are_shown(fake: FakeDaemon) -> None:
    for target_id in range(8, 28):
        fake.set(busy(target_id))
    fake.set(moving(counts={"RUNNING": 20}))
    scene = Watch(Remote(fake.url, None, False), most=lambda: 5).round()
    assert (len(scene.runs), scene.hidden) == (5, 15)
    assert len(fake.asked) == 1 + 1 + 5


def test_a_run_that_ended_is_told_once_also_when_its_target_runs_again(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str]
) -> None:
    watching, lines = Watch(Remote(fake.url, None, False), sleep=lambda _: None), Lines()
    for number, view in enumerate([busy(8), target(8, "TIMEOUT", error="late"), busy(8), busy(8, progress="page 4")]):
        fake.set(view)
        fake.set(moving(completed_users=number))
        lines.show(watching.round())
    told = [line.split("\t")[2:] for line in capsys.readouterr().out.splitlines() if "git:t8" in line]
    assert told == [
        ["RUNNING", "fetching", "page 3"],
        ["TIMEOUT", "", "late"],
        ["RUNNING", "fetching", "page 3"],
        ["RUNNING", "fetching", "page 4"],
    ]


def test_a_heartbeat_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    presenter = JsonLines()
    for beat in ("2030-01-01", "2030-01-02"):
        presenter.show(Scene(url="u", at=NOW, problem=None, status=sweep(last_heartbeat=beat)))
    assert len(capsys.readouterr().out.splitlines()) == 1


def drawn(scene: Scene, now: datetime = NOW, *, height: int = 25) -> str:
    console = Console(width=110, record=True, file=open(os.devnull, "w"), force_terminal=True)
    with console.file:
        console.print(draw(scene, now, height=height))
    return console.export_text()


def test_ages_and_what_is_left_count_by_the_clock_that_is_given() -> None:
    view = busy(8, started_at="2030-01-01T11:58:55+00:00", deadline_at="2030-01-01T12:08:55+00:00")
    text = drawn(Scene(url="u", at=NOW, problem=None, status=moving(), runs=(view,)))
    assert "git:t8" in text and " 1m 5s " in text and " 8m 55s " in text
    assert "overdue" in drawn(Scene(url="u", at=NOW, problem=None, status=view), NOW + timedelta(hours=1))


def test_the_bar_has_a_part_for_each_way_to_end() -> None:
    from terminal.screen import BAR, bar

    parts = bar({"completed": 5, "failed": 2, "timed_out": 1, "total": 10})
    assert len(parts.plain) == BAR
    assert [(s.style, (s.end - s.start) / BAR) for s in parts.spans] == [
        ("green", 0.5),
        ("red", 0.2),
        ("magenta", 0.1),
        ("dim", 0.2),
    ]


def test_a_small_screen_says_how_many_it_leaves_out() -> None:
    scene = Scene(url="u", at=NOW, problem=None, status=moving(), runs=tuple(busy(n) for n in range(30)), hidden=3)
    text = drawn(scene, height=12)
    assert "and 29 more under way" in text
    assert len(text.rstrip().splitlines()) <= 12


def test_what_strangers_wrote_is_harmless_on_the_screen_too() -> None:
    hostile = busy(8, username="a\x1b[2Jb", progress="[red]c\x07")
    ended = (target(9, "FAILED", error="d\x1b]0;x\x07"),)
    text = drawn(Scene(url="u", at=NOW, problem=None, status=moving(error="e\x1b"), runs=(hostile,), ended=ended))
    assert "\x1b" not in text and "\x07" not in text
    assert "[red]c" in text
