"""Programs in real workers: whatever they do, they and their children are gone when the run is over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from model import FetchLimits
from tests.support.pools import Bench, open_bench
from tests.support.programs import alive, python
from tests.support.waiting import wait_until

#: A child that outlives its parent unless it is killed; it is found by its last argument.
CHILD = "subprocess.Popen([sys.executable, '-c', {}, sys.argv[1]], start_new_session={})"
SLEEPS, STUBBORN = "'import time; time.sleep(1000)'", "'import signal, time; signal.signal(15, 1); time.sleep(1000)'"


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with open_bench(stop_grace_s=0.3) as bench:
        yield bench


def give(bench: Bench, options: dict[str, Any], **more: Any) -> Any:
    return bench.give("x", "ann", scraper=None, scraper_path=None, options=options, **more)


def finish(bench: Bench, options: dict[str, Any], **more: Any) -> Any:
    return bench.finish("x", "ann", scraper=None, scraper_path=None, options=options, **more)


def test_a_program_gives_its_posts(bench: Bench) -> None:
    outcome = finish(bench, python("for n in range(3): say(id=n, title=sys.argv[1])", "{handle}"))
    assert (outcome.ok, outcome.error) == (True, None)
    assert [(post.native_id, post.title) for post in outcome.posts] == [("0", "ann"), ("1", "ann"), ("2", "ann")]


def test_an_item_is_progress_and_stderr_is_none(bench: Bench) -> None:
    noise = "while True: print('busy', file=sys.stderr, flush=True); time.sleep(0.01)"
    order = give(bench, python(f"time.sleep(0.3); say(id=1)\n{noise}"))
    wait_until(lambda: (order.token, "1 posts") in bench.heard.progress, within_s=10)
    said = len(bench.heard.progress)
    beats = bench.heard.beats.count(order.token)
    wait_until(lambda: bench.heard.beats.count(order.token) >= beats + 2, within_s=10)
    assert len(bench.heard.progress) == said
    bench.pool.revoke(order.token)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("hangs", "say(id=1); time.sleep(1000)"),
        ("child", f"say(id=1); {CHILD.format(SLEEPS, False)}; time.sleep(1000)"),
        (
            "stubborn",
            f"say(id=1); {CHILD.format(STUBBORN, False)}; import signal; signal.signal(15, 1); time.sleep(1000)",
        ),
        ("session", f"say(id=1); {CHILD.format(SLEEPS, True)}; time.sleep(1000)"),
        ("noisy", "while True: os.write(2, b'n' * 65536)"),
        ("closed", "say(id=1); os.close(1); time.sleep(1000)"),
        ("all-closed", "os.close(1); os.close(2); time.sleep(1000)"),
        ("half-line", "os.write(1, b'{\"id\": 1'); time.sleep(1000)"),
        ("stopped", "os.kill(os.getpid(), 19)"),
        ("spins", "while True: pass"),
    ],
)
def test_at_the_deadline_a_program_is_killed_with_its_children(bench: Bench, name: str, code: str) -> None:
    marker = f"command-{name}-{os.getpid()}"
    order = give(bench, python(code, marker), timeout_s=1.0)
    wait_until(lambda: alive(marker) != [], within_s=10)
    wait_until(lambda: bench.heard.overdues.get(order.token) == "deadline", within_s=10)
    bench.pool.revoke(order.token)
    wait_until(lambda: alive(marker) == [], within_s=10)
    assert order.token not in bench.heard.outcomes


def test_a_program_that_left_a_child_leaves_the_worker_as_it_was(bench: Bench) -> None:
    marker = f"command-left-{os.getpid()}"
    outcome = finish(bench, python(f"say(id=1); {CHILD.format(SLEEPS, True)}", marker))
    assert outcome.ok
    wait_until(lambda: alive(marker) == [], within_s=10)


def test_more_than_a_run_may_give_is_cut_and_said(bench: Bench) -> None:
    code = "n = 0\nwhile True:\n n += 1; say(id=n)"
    outcome = finish(bench, python(code), limits=FetchLimits(max_posts=50))
    assert (outcome.ok, outcome.truncated, len(outcome.posts)) == (True, True, 50)


def test_a_program_that_fails_is_quoted(bench: Bench) -> None:
    outcome = finish(bench, python("say(id=1); sys.exit('no such user')"))
    assert (outcome.ok, outcome.error) == (False, "the program ended with exit code 1: no such user")
