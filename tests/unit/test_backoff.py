"""When a target that failed is tried again, by itself: no clock, no database."""

from __future__ import annotations

import pytest

from jobs.backoff import DAY_S, FIRST_S, GONE_TIMES, PAUSE_MOST_S, Retry, after_failure, backoff_s
from jobs.network import RETRY_S
from model import Outcome

CAP_S = 21_600.0


def after(attempt: int = 0, *, down: bool = False, spread: float = 0.5, **outcome: object) -> Retry:
    """What follows a failure like this; in the middle of the jitter unless told otherwise."""
    told = Outcome(**({"ok": False, "error": "no"} | outcome))  # type: ignore[arg-type]
    return after_failure(attempt, told, cap_s=CAP_S, network_is_down=down, spread=spread)


def test_each_wait_is_twice_the_one_before_up_to_the_cap() -> None:
    waits = [backoff_s(n, cap_s=CAP_S, spread=0.5) for n in range(1, 12)]
    assert waits == [min(FIRST_S * 2**n, CAP_S) for n in range(11)]
    assert waits[-1] == CAP_S


@pytest.mark.parametrize("failures", [1, 5, 100, 10**9])
def test_the_jitter_is_a_quarter_up_or_down_however_many_failures_there_were(failures: int) -> None:
    low, mid, high = (backoff_s(failures, cap_s=CAP_S, spread=spread) for spread in (0.0, 0.5, 1.0))
    assert (low, high) == (0.75 * mid, 1.25 * mid)
    assert all(low <= backoff_s(failures, cap_s=CAP_S) <= high for _ in range(50))


def test_a_death_without_a_word_backs_off() -> None:
    retry = after_failure(2, None, cap_s=CAP_S, network_is_down=True, spread=0.5)
    assert retry == Retry(attempt=3, wait_s=4 * FIRST_S)


def test_the_host_may_ask_for_longer_but_not_for_less() -> None:
    assert after(retry_after_s=1e5).wait_s == 1e5
    assert after(retry_after_s=1).wait_s == FIRST_S


@pytest.mark.parametrize("attempt", range(4))
def test_not_found_is_a_day_from_the_third_failure_on(attempt: int) -> None:
    is_day = attempt + 1 >= GONE_TIMES
    assert after(attempt, status=404).wait_s == (DAY_S if is_day else FIRST_S * 2**attempt)
    assert after(attempt, status=410).wait_s == DAY_S
    assert not after(attempt, status=410).pause_why


@pytest.mark.parametrize("status", [401, 403])
def test_not_let_in_is_a_pause_twice_as_long_each_time_up_to_a_week(status: int) -> None:
    retries = [after(attempt, status=status) for attempt in (0, 1, 2, 3, 500)]
    assert [retry.wait_s for retry in retries] == [DAY_S, 2 * DAY_S, 4 * DAY_S, PAUSE_MOST_S, PAUSE_MOST_S]
    assert {retry.pause_why for retry in retries} == {f"the site does not let us in (status {status})"}


@pytest.mark.parametrize("retry_after_s", [0.0, 5.0, 1e5])
def test_a_status_that_says_until_when_is_a_limit_and_no_pause(retry_after_s: float) -> None:
    retry = after(status=403, retry_after_s=retry_after_s)
    assert (retry.pause_why, retry.wait_s) == ("", max(FIRST_S, retry_after_s))


@pytest.mark.parametrize("status", [400, 402, 405, 451, 500, 503])
def test_other_statuses_are_failures_like_any(status: int) -> None:
    assert after(1, status=status) == Retry(attempt=2, wait_s=2 * FIRST_S)


def test_while_the_network_is_down_who_reached_nobody_is_not_charged() -> None:
    assert after(7, down=True, unreachable=True) == Retry(attempt=7, wait_s=RETRY_S, sooner=True)
    assert after(7, down=True).attempt == 8
    assert after(7, unreachable=True).attempt == 8


def test_who_had_no_turn_is_not_charged_and_comes_when_there_may_be_one() -> None:
    assert after(3, no_turn=True, retry_after_s=200) == Retry(attempt=3, wait_s=200, sooner=True)
    assert after(3, no_turn=True).wait_s == RETRY_S
