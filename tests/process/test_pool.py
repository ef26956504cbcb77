"""The pool with real workers: what it tells, whom it ends, what it keeps."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.pool import EXPIRE_PATIENCE_S, IDLE_S, NURSERY_IDLE_S, READY_S
from model import MAX_WAIT_S, FetchLimits
from tests.support.daemon import descendants, family, ignores_sigterm, is_alive, is_worker, open_files, send
from tests.support.pools import Bench, make_order, open_bench
from tests.support.waiting import wait_until


@pytest.fixture
def bench() -> Iterator[Bench]:
    with open_bench() as bench:
        yield bench


def stubborn(bench: Bench, n: int) -> list[int]:
    """Wait for this many workers that ignore SIGTERM, and no other; their pids."""
    return wait_until(lambda: len(pids := bench.pool.pids()) == n and all(map(ignores_sigterm, pids)) and pids)


# -- results ---------------------------------------------------------------------------------------------------------


def test_an_order_comes_back_as_an_outcome_with_its_posts(bench: Bench) -> None:
    outcome = bench.finish("good", "me")
    assert outcome.ok and outcome.error is None
    assert [post.title for post in outcome.posts] == ["hello from me"]
    assert not bench.heard.deaths


def test_a_failure_comes_back_as_a_sentence(bench: Bench) -> None:
    outcome = bench.finish("raises")
    assert (outcome.ok, outcome.error, outcome.error_is_ours) == (False, "ValueError: <b>no</b> such luck", False)


def test_progress_is_told_while_it_happens(bench: Bench) -> None:
    order = bench.give("slow", "60")
    wait_until(lambda: (order.token, "1 posts") in bench.heard.progress)
    assert order.token not in bench.heard.outcomes


def test_a_worker_that_computes_nothing_still_beats(bench: Bench) -> None:
    order = bench.give("sleeps")
    wait_until(lambda: order.token in bench.heard.beats)


def test_a_worker_is_used_again(bench: Bench) -> None:
    assert bench.worker_pid() == bench.worker_pid()
    assert len(bench.pool.pids()) == 1


def test_an_order_larger_than_the_pipe_arrives_whole(bench: Bench) -> None:
    limits = FetchLimits(user_agent="x" * 500_000)
    assert bench.finish("good", limits=limits).ok


def test_an_order_larger_than_a_frame_fails_with_a_reason(bench: Bench) -> None:
    order = bench.give("good", limits=FetchLimits(user_agent="x" * 2_000_000))
    wait_until(lambda: order.token in bench.heard.deaths)
    assert "is too large" in bench.heard.deaths[order.token]
    assert bench.finish("good").ok


# -- places ----------------------------------------------------------------------------------------------------------


def test_no_more_places_are_given_than_there_are_workers(bench: Bench) -> None:
    wait_until(lambda: bench.pool.free() == 3)
    first, second = bench.pool.reserve(2), bench.pool.reserve(2)
    assert (len(first), len(second), bench.pool.reserve(1)) == (2, 1, [])
    assert len({*first, *second}) == 3
    for slot in first:
        bench.pool.release(slot)
    assert bench.pool.free() == 2


def test_a_place_is_free_again_only_when_the_stopped_worker_is_gone() -> None:
    with open_bench(workers=1, stop_grace_s=0.5) as bench:
        order = bench.give("ignores_sigterm")
        (pid,) = stubborn(bench, 1)
        bench.pool.revoke(order.token)
        assert bench.pool.free() == 0
        wait_until(lambda: bench.pool.free() == 1)
        assert not is_alive(pid)


def test_a_target_is_stopping_until_its_last_process_is_gone(bench: Bench) -> None:
    order = bench.give("ignores_sigterm")
    (pid,) = stubborn(bench, 1)
    assert bench.pool.worker_of(order.target.id) == "running"
    assert bench.pool.holds(order.token)
    bench.pool.revoke(order.token)
    assert bench.pool.worker_of(order.target.id) == "stopping"
    assert not bench.pool.holds(order.token)
    assert not bench.pool.wait_gone(order.target.id, 0.05)
    assert family(pid)
    assert bench.pool.wait_gone(order.target.id, 5)
    assert not family(pid)
    assert bench.pool.worker_of(order.target.id) == "none"


# -- revoked orders --------------------------------------------------------------------------------------------------


def test_an_order_that_was_revoked_before_it_was_taken_is_never_scraped(bench: Bench, tmp_path: Path) -> None:
    for n in range(30):
        (slot,) = wait_until(lambda: bench.pool.reserve(1))
        order = make_order("waits", str(tmp_path / str(n)))
        bench.pool.hand_over(slot, order)
        bench.pool.revoke(order.token)
        assert bench.pool.wait_gone(order.target.id, 5)
        assert bench.pool.worker_of(order.target.id) == "none"
    assert bench.pool.wait_idle(5)
    assert not bench.heard.outcomes and not bench.heard.deaths
    assert not any(is_alive(int(path.read_text())) for path in tmp_path.iterdir() if not path.suffix)
    assert bench.finish("good").ok


def test_revoking_what_nobody_has_does_nothing(bench: Bench) -> None:
    outcome = bench.finish("good")
    bench.pool.revoke(4711)
    assert outcome.ok and bench.pool.worker_of(4711) == "none"
    assert bench.finish("good").ok


def test_a_report_of_a_revoked_order_is_told_as_late_and_carries_nothing(bench: Bench) -> None:
    order = bench.give("late", "0.4")
    stubborn(bench, 1)
    bench.pool.revoke(order.token)
    wait_until(lambda: bench.heard.lates)
    assert bench.heard.lates == [order.token]
    assert bench.pool.wait_gone(order.target.id, 5)
    assert not bench.heard.outcomes and not bench.heard.deaths


def test_a_revoked_worker_is_not_reported_as_dead(bench: Bench) -> None:
    order = bench.give("sleeps")
    wait_until(lambda: bench.pool.pids())
    bench.pool.revoke(order.token)
    assert bench.pool.wait_gone(order.target.id, 5)
    assert not bench.heard.deaths


# -- deadlines -------------------------------------------------------------------------------------------------------


def test_a_deadline_is_told_once_and_its_worker_lives_until_the_answer(bench: Bench) -> None:
    order = bench.give("sleeps", timeout_s=0.3)
    wait_until(lambda: order.token in bench.heard.overdues)
    assert bench.heard.overdues[order.token] == "deadline"
    assert len(bench.pool.pids()) == 1
    bench.pool.revoke(order.token)
    assert bench.pool.wait_gone(order.target.id, 0.5)


def test_a_stall_is_told_as_one(bench: Bench) -> None:
    order = bench.give("sleeps", stall_timeout_s=0.3)
    wait_until(lambda: order.token in bench.heard.overdues)
    assert bench.heard.overdues[order.token] == "stalled"


def test_the_work_is_ended_although_its_end_cannot_be_stored(bench: Bench) -> None:
    order = bench.give("sleeps", timeout_s=0.3)
    wait_until(lambda: order.token in bench.heard.overdues)
    (pid,) = bench.pool.pids()  # and nobody says anything
    wait_until(lambda: not is_alive(pid), within_s=EXPIRE_PATIENCE_S + 0.5)
    assert bench.pool.wait_idle(1)
    assert not bench.heard.deaths and not bench.heard.outcomes


def test_one_that_stops_in_mid_message_keeps_no_deadline_waiting(bench: Bench) -> None:
    stuck = bench.give("stops_in_mid_message")
    order = bench.give("sleeps", timeout_s=0.3)
    wait_until(lambda: order.token in bench.heard.overdues, within_s=1)
    assert bench.finish("good").ok
    assert stuck.token not in bench.heard.deaths


def test_stubborn_workers_are_killed_together_not_one_after_another() -> None:
    with open_bench(workers=8, stop_grace_s=0.5) as bench:
        orders = [bench.give("ignores_sigterm") for _ in range(8)]
        stubborn(bench, 8)
        for order in orders:
            bench.pool.revoke(order.token)
        assert bench.pool.wait_idle(0.5 + 0.5)


# -- wear ------------------------------------------------------------------------------------------------------------


def test_an_idle_worker_ends_after_a_while(bench: Bench) -> None:
    pid = bench.worker_pid()
    assert is_alive(pid)
    bench.clock.later_s = IDLE_S - 2
    assert bench.worker_pid() == pid
    bench.clock.later_s += IDLE_S + 1
    wait_until(lambda: not is_alive(pid), within_s=3)
    wait_until(lambda: not bench.pool.pids())
    assert bench.finish("good").ok


def test_a_worker_that_does_not_become_ready_is_replaced(bench: Bench) -> None:
    bench.worker_pid()
    (nursery,) = nurseries()
    for pid in bench.pool.pids():
        send(pid, signal.SIGKILL)
    wait_until(lambda: not bench.pool.pids())
    send(nursery, signal.SIGSTOP)  # it takes the request, and bears nobody
    order = bench.give("good", timeout_s=1000, stall_timeout_s=1000)

    def later() -> bool:
        bench.clock.later_s += READY_S / 10
        return order.token in bench.heard.deaths and not is_alive(nursery)

    wait_until(later, every_s=0.05)
    assert bench.heard.deaths[order.token] == "the worker process did not start in time"
    assert bench.finish("good").ok


def test_a_stop_does_not_wait_for_a_worker_that_is_never_born() -> None:
    with open_bench(stop_grace_s=0.2) as bench:
        bench.worker_pid()
        (nursery,) = nurseries()
        send(nursery, signal.SIGSTOP)
        assert len({bench.give("good").token for _ in range(3)}) == 3
        began = bench.clock.monotonic()
        bench.pool.stop(5)
        assert bench.clock.monotonic() - began <= 0.2 + 0.5
        assert not is_alive(nursery)


def nurseries() -> list[int]:
    """Those of this process."""
    return [pid for pid, line in descendants(os.getpid()).items() if "jobs.nursery" in line and not is_worker(pid)]


# -- no room ---------------------------------------------------------------------------------------------------------


def test_without_descriptors_an_order_fails_with_a_reason_and_the_pool_goes_on(bench: Bench) -> None:
    wait_until(lambda: bench.pool.free() == 3)
    before = open_files(os.getpid())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    (slot,) = bench.pool.reserve(1)
    order = make_order("good")
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 2, hard))
    try:
        bench.pool.hand_over(slot, order)
        wait_until(lambda: order.token in bench.heard.deaths)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert open_files(os.getpid()) == before
    assert bench.finish("good").ok


# -- start and stop --------------------------------------------------------------------------------------------------


def test_the_nursery_is_started_when_an_order_needs_it_and_ends_when_none_has_for_long(bench: Bench) -> None:
    assert bench.pool.free() == 3 and not nurseries()
    assert bench.finish("good").ok
    assert len(nurseries()) == 1
    bench.clock.later_s += IDLE_S + 1
    wait_until(lambda: not bench.pool.pids())
    assert len(nurseries()) == 1
    bench.clock.later_s += NURSERY_IDLE_S + 1
    wait_until(lambda: not nurseries())
    assert bench.finish("good").ok


def test_a_nursery_that_dies_is_started_again_at_once(bench: Bench) -> None:
    assert bench.finish("good").ok
    (first,) = nurseries()
    send(first, signal.SIGKILL)
    wait_until(lambda: set(nurseries()) - {first}, within_s=0.5)
    assert bench.finish("good").ok


def test_a_pool_can_be_stopped_before_it_was_started() -> None:
    Bench().pool.stop(1)


def test_a_pool_can_be_stopped_any_number_of_times_and_takes_words_after_it() -> None:
    with open_bench() as bench:
        assert bench.finish("good").ok
        bench.pool.stop(5)
        bench.pool.stop(5)
        bench.pool.revoke(1)
        assert bench.pool.free() == 0 and bench.pool.reserve(1) == []


def test_a_stop_ends_busy_stubborn_and_idle_workers_alike() -> None:
    with open_bench(stop_grace_s=0.5) as bench:
        for source in ("ignores_sigterm", "has_stubborn_grandchild"):
            bench.give(source)
        assert bench.finish("good").ok
        everyone = wait_until(
            lambda: len(all_ := {one for pid in bench.pool.pids() for one in family(pid)}) == 4 and all_
        )
        wait_until(lambda: sum(ignores_sigterm(pid) for pid in everyone) == 2)
        bench.pool.stop(5)
        assert not any(is_alive(pid) for pid in everyone)


def test_a_stopped_pool_leaves_no_descriptor_but_its_alarm() -> None:
    with open_bench() as bench:
        bench.worker_pid()
    before = open_files(os.getpid())
    for _ in range(3):
        with open_bench() as bench:
            bench.worker_pid()
    assert open_files(os.getpid()) - before <= 3


# -- messages that no worker of ours sends ---------------------------------------------------------------------------

RESULT = '{"t": "result", "token": TOKEN, "ok": true, "error": null, "truncated": false, "remember": null'
POST = '"native_id": "1", "url": "", "title": "", "text": "", "html": "", "author": "", "kind": "post"'


@pytest.mark.parametrize(
    "message",
    [
        "[]",
        "null",
        '{"t": "nonsense", "token": TOKEN}',
        '{"t": ["posts"], "token": TOKEN}',
        '{"t": "posts", "token": TOKEN, "posts": 3}',
        '{"t": "posts", "token": TOKEN, "posts": [3]}',
        '{"t": "posts", "token": TOKEN, "posts": [{}]}',
        '{"t": "posts", "token": TOKEN, "posts": [{' + POST + ', "media": 3, "published_at": null}]}',
        '{"t": "posts", "token": TOKEN, "posts": [{' + POST + ', "media": [], "published_at": 7}]}',
        '{"t": "posts", "token": TOKEN, "posts": [{' + POST + ', "media": [], "published_at": "2026-01-01T00:00:00"}]}',
        '{"t": "result", "token": TOKEN}',
        RESULT + ', "ok": 1}',
        RESULT + ', "retry_after_s": "soon"}',
        RESULT + ', "retry_after_s": NaN}',
        RESULT + ', "profile": {"display_name": 3}}',
        RESULT + ', "remember": {"a": 1}}',
        RESULT + ', "remember": 3}',
        '{"a": ' + "[" * 400_000 + "}",
        "\xff\xfe",
    ],
    ids=lambda message: message[:60],
)
def test_a_forged_message_costs_its_own_run_only(bench: Bench, tmp_path: Path, message: str) -> None:
    other = bench.give("sleeps")
    file = tmp_path / "message"
    file.write_text(message, encoding="latin-1")
    order = bench.give("forges", str(file))
    wait_until(lambda: order.token in bench.heard.deaths, within_s=3)
    assert bench.heard.deaths[order.token].startswith("the worker broke the protocol: ")
    assert bench.finish("good").ok
    assert bench.pool.holds(other.token)


def test_a_wait_beyond_all_numbers_is_cut(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "message"
    file.write_text(RESULT + ', "retry_after_s": 1' + "0" * 400 + "}", encoding="latin-1")
    assert bench.finish("forges", str(file)).retry_after_s == MAX_WAIT_S


@pytest.mark.parametrize("token", ["0", "null", '"TOKEN"', "[TOKEN]", "99999999999999999999"])
def test_a_message_with_another_token_is_of_nobody(bench: Bench, tmp_path: Path, token: str) -> None:
    file = tmp_path / "message"
    file.write_text(RESULT.replace("TOKEN", token) + "}", encoding="latin-1")
    order = bench.give("forges", str(file), stall_timeout_s=0.5)
    wait_until(lambda: order.token in bench.heard.overdues)
    assert not bench.heard.outcomes and not bench.heard.deaths


def test_a_scraper_that_asks_for_an_endless_wait_fails_like_any_other(bench: Bench) -> None:
    outcome = bench.finish("asks_for_ever")
    assert (outcome.ok, outcome.error) == (False, "Impatient: later")


def test_what_a_scrape_leaves_in_its_process_does_not_harm_the_next_one(bench: Bench) -> None:
    pid = int(bench.finish("leaves_alarm").posts[0].native_id)
    assert bench.finish("brisk").ok
    assert bench.worker_pid() == pid
