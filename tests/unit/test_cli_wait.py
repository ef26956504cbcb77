"""`refresh --wait` and `add --wait`: which run is waited for, and what the exit code says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from threading import Timer
from typing import Any

import pytest

import cli
from tests.support.fake_daemon import FakeDaemon, run, sweep, target

START = ("POST", "/api/targets/8/transitions")
Then = Callable[..., None]


@pytest.fixture
def fake() -> Iterator[FakeDaemon]:
    with FakeDaemon() as daemon:
        daemon.set(target(8, "FAILED", last_run=run(4, "FAILED", error="of yesterday")))
        yield daemon


@pytest.fixture
def then(fake: FakeDaemon) -> Iterator[Then]:
    """Publish views one after the other, once it was asked for."""
    timers: list[Timer] = []

    def plan(*views: dict[str, Any], answer: dict[str, Any] | None = None, at: tuple[str, str] = START) -> None:
        def asked(_body: Any) -> tuple[int, Any]:
            for number, view in enumerate(views):
                timers.append(Timer(0.05 + number * 0.15, fake.set, [view]))
                timers[-1].start()
            return 200, answer or queued()

        fake.set(queued())
        fake.canned[at] = asked

    yield plan
    for timer in timers:
        timer.cancel()
        timer.join()


def queued() -> dict[str, Any]:
    last = run(4, "FAILED", error="of yesterday")
    return target(8, "FAILED", phase="queued", requested_at="2030-01-01T00:00:00Z", last_run=last)


def wait(fake: FakeDaemon, *args: str) -> int:
    return cli.main([*(args or ("refresh", "t8", "--wait")), "--url", fake.url])


def test_completed_is_0(fake: FakeDaemon, then: Then, capsys: pytest.CaptureFixture[str]) -> None:
    then(target(8, "RUNNING"), target(8, "COMPLETED", last_run=run(5, "COMPLETED")))
    assert wait(fake) == cli.EXIT_OK
    assert capsys.readouterr().out == "git:t8: COMPLETED, 3 posts, 1 new\n"


@pytest.mark.parametrize("state", ["FAILED", "TIMEOUT"])
def test_failed_and_timeout_are_1_and_say_why(
    fake: FakeDaemon, then: Then, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    then(target(8, state, last_run=run(5, state, error="the site\x1b[1m is gone")))
    assert wait(fake) == cli.EXIT_REFUSED
    said = capsys.readouterr()
    assert said.err.startswith(f"gleand: git:t8: {state}: the site\ufffd[1m is gone\n  hint: see 'gleand runs git:t8'")
    assert said.out == ""


def test_the_run_before_is_not_taken_for_the_one_that_was_asked_for(
    fake: FakeDaemon, then: Then, capsys: pytest.CaptureFixture[str]
) -> None:
    then()
    assert wait(fake, "refresh", "t8", "--wait", "--timeout-s", "0.3") == cli.EXIT_REFUSED
    said = capsys.readouterr().err
    assert said == "gleand: it is still queued after 0.3 s\n  hint: it goes on without us; see 'gleand status'\n"


def test_an_overdue_run_that_asking_ended_is_not_the_outcome(fake: FakeDaemon, then: Then) -> None:
    fake.set(target(8, "RUNNING", last_run=run(4, "COMPLETED")))
    over = run(5, "TIMEOUT", error="late")
    answer = target(8, "TIMEOUT", phase="queued", requested_at="2030-01-01T00:00:00Z", last_run=over)
    then(answer, target(8, "COMPLETED", last_run=run(6, "COMPLETED")), answer=answer)
    assert wait(fake) == cli.EXIT_OK


def test_a_run_that_ended_before_the_answer_came_counts(fake: FakeDaemon, then: Then) -> None:
    done = target(8, "COMPLETED", last_run=run(5, "COMPLETED"))
    then(done, answer=done)
    assert wait(fake) == cli.EXIT_OK


def test_a_scheduled_run_that_was_joined_is_waited_for(fake: FakeDaemon, then: Then) -> None:
    going = target(8, "RUNNING", phase="fetching", last_run=run(4, "FAILED"))
    then(going, target(8, "COMPLETED", last_run=run(5, "COMPLETED")), answer=going)
    assert wait(fake) == cli.EXIT_OK


def test_what_was_taken_back_is_1(fake: FakeDaemon, then: Then, capsys: pytest.CaptureFixture[str]) -> None:
    then(target(8, "IDLE", last_run=run(4, "FAILED")))
    assert wait(fake) == cli.EXIT_REFUSED
    assert "git:t8: IDLE: it was reset or paused before it could start" in capsys.readouterr().err


def test_a_refused_start_is_not_waited_for(fake: FakeDaemon, capsys: pytest.CaptureFixture[str]) -> None:
    fake.canned[START] = (409, {"error": "the target is paused", "hint": "resume it, or force the start"})
    assert wait(fake) == cli.EXIT_REFUSED
    assert capsys.readouterr().err == "gleand: the target is paused\n  hint: resume it, or force the start\n"


def test_a_restart_of_the_daemon_is_waited_out(fake: FakeDaemon, then: Then) -> None:
    then()
    stop = Timer(0.2, fake.stop)
    done = target(8, "FAILED", last_run=run(5, "FAILED", error="interrupted"))
    again = Timer(0.9, lambda: (fake.set(done), fake.start()))
    for timer in (stop, again):
        timer.start()
    assert wait(fake) == cli.EXIT_REFUSED
    for timer in (stop, again):
        timer.join()


def test_json_is_the_last_status(fake: FakeDaemon, then: Then, capsys: pytest.CaptureFixture[str]) -> None:
    then(target(8, "COMPLETED", last_run=run(5, "COMPLETED")))
    assert wait(fake, "refresh", "8", "--wait", "--json") == cli.EXIT_OK
    assert json.loads(capsys.readouterr().out)["last_run"]["id"] == 5


def test_a_new_target_is_waited_for_from_its_first_run(
    fake: FakeDaemon, then: Then, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": 8, "source": "git", "handle": "t8", "sweep_id": 1}
    then(target(8, "COMPLETED", last_run=run(1, "COMPLETED")), answer=row, at=("POST", "/api/targets"))
    fake.set(target(8, phase="queued"))
    assert wait(fake, "add", "git:t8", "--wait", "--wait-s", "5") == cli.EXIT_OK
    assert capsys.readouterr().out == "added git:t8 as target 8\ngit:t8: COMPLETED, 3 posts, 1 new\n"


def test_a_refresh_of_all_is_waited_for_by_its_sweep(
    fake: FakeDaemon, then: Then, capsys: pytest.CaptureFixture[str]
) -> None:
    done = {"total_users": 4, "completed_users": 2, "failed_users": 1, "timed_out_users": 1}
    then(
        sweep(running=False, state="COMPLETED", sweep_id=5, **done),
        answer={"total_users": 4, "sweep_id": 5},
        at=("POST", "/api/users/refresh-all"),
    )
    fake.set(sweep(running=True, state="RUNNING", sweep_id=5))
    assert wait(fake, "refresh", "--wait") == cli.EXIT_OK
    assert capsys.readouterr().out == "asked for 4 targets\nall: 2 completed, 1 failed, 1 timed out\n"
    assert fake.asked[-1][2]["sweep_id"] == "5"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["refresh", "t8", "--timeout-s", "3"], "--timeout-s goes with --wait"),
        (["add", "git:x", "--wait", "--no-start"], "--wait has nothing to wait for with --no-start"),
        (["refresh", "t8", "--wait", "--timeout-s", "nan"], "a number of seconds above 0"),
        (["add", "git:x", "--timeout-s", "-1"], "a number of seconds above 0"),
    ],
)
def test_a_wait_that_makes_no_sense_is_a_usage_error(
    fake: FakeDaemon, capsys: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    assert wait(fake, *args) == cli.EXIT_USAGE
    assert said in capsys.readouterr().err
    assert all(method == "GET" for method, _, _ in fake.asked)
