"""What the headers of an answer ask of us."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from requests.structures import CaseInsensitiveDict

from model import MAX_FRESH_S, MAX_WAIT_S
from sources.limits import UNSAID_S, asked_wait, fresh_s, retry_after_s

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
EPOCH = int(NOW.timestamp())


def http(seconds: float) -> str:
    return format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)


def headers(**named: str) -> CaseInsensitiveDict[str]:
    """`Retry_After="5"` names the header retry-after."""
    return CaseInsensitiveDict({name.replace("_", "-").lower(): value for name, value in named.items()})


# -- Retry-After -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [
        ("0", 0),
        ("120", 120),
        ("  7 ", 7),
        ("007", 7),
        (http(90), 90),
        (http(-90), 0),
        ("Monday, 02-Mar-26 12:01:00 GMT", 60),
        ("Mon Mar  2 12:01:00 2026", 60),
        ("9" * 30, MAX_WAIT_S),
        (http(1e8), MAX_WAIT_S),
        *((junk, None) for junk in ("", "-1", "1.5", "1e3", "soon", "\u0663", "0x10", "12 s", "\0", "," * 999)),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, wait_s: float | None) -> None:
    assert retry_after_s(value, now=NOW) == wait_s


@pytest.mark.parametrize(("status", "counts"), [(403, True), (429, True), (503, True), (200, False), (404, False)])
def test_retry_after_counts_where_it_means_a_limit(status: int, counts: bool) -> None:
    wait = asked_wait(status, headers(Retry_After="9"), now=NOW)
    assert wait == ((9, "the host asked to wait (Retry-After)") if counts else None)


def test_too_many_requests_is_a_limit_also_without_a_word_of_how_long() -> None:
    assert asked_wait(429, headers(), now=NOW) == (UNSAID_S, "the host said too many requests (429)")
    assert asked_wait(429, headers(Retry_After="soon"), now=NOW) == (UNSAID_S, "the host said too many requests (429)")
    assert asked_wait(503, headers(), now=NOW) is None
    assert asked_wait(403, headers(), now=NOW) is None


# -- limits that are used up -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 304, 403, 429, 500])
@pytest.mark.parametrize(
    ("named", "wait_s"),
    [
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "30"}, 30),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": str(EPOCH + 30)}, 30),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": str((EPOCH + 30) * 1000)}, 30),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": f"{EPOCH + 30}.5"}, 30.5),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "2026-03-02T12:00:30.000Z"}, 30),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": http(30)}, 30),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": str(EPOCH - 30)}, 0),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": str(EPOCH + 10**8)}, MAX_WAIT_S),
        ({"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "whenever"}, UNSAID_S),
        ({"X_RateLimit_Remaining": "0"}, UNSAID_S),
        ({"X_RateLimit_Remaining": "0.0", "X_RateLimit_Reset": "30"}, 30),
        ({"X_Rate_Limit_Remaining": "0", "X_Rate_Limit_Reset": "30"}, 30),
        ({"RateLimit_Remaining": "0", "RateLimit_Reset": "30"}, 30),
        ({"RateLimit": '"default";r=0;t=30'}, 30),
        ({"RateLimit": '"burst";r=0;t=5, "day";r=9;t=3600'}, 5),
        ({"RateLimit": '"burst";r=0;t=5, "day";r=0;t=3600'}, 3600),
        ({"RateLimit": '"day";r=0;t=' + "9" * 12}, MAX_WAIT_S),
    ],
)
def test_a_limit_that_is_used_up_says_when_it_starts_anew(status: int, named: dict[str, str], wait_s: float) -> None:
    assert asked_wait(status, headers(**named), now=NOW) == (wait_s, "the host's rate limit is used up")


@pytest.mark.parametrize(
    "named",
    [
        {"X_RateLimit_Remaining": "1", "X_RateLimit_Reset": "30"},
        {"X_RateLimit_Remaining": "", "X_RateLimit_Reset": "30"},
        {"X_RateLimit_Remaining": "none", "X_RateLimit_Reset": "30"},
        {"X_RateLimit_Reset": "30"},
        {"RateLimit": '"default";r=1;t=30'},
        {"RateLimit": '"default";r=0'},
        {"RateLimit": "r=0;t=30;" + "x" * 10_000},
        {"RateLimit_Policy": '"default";q=100;w=60'},
    ],
)
def test_one_that_is_not_asks_for_nothing(named: dict[str, str]) -> None:
    assert asked_wait(200, headers(**named), now=NOW) is None


def test_retry_after_goes_before_the_limit() -> None:
    both = headers(Retry_After="5", X_RateLimit_Remaining="0", X_RateLimit_Reset="30")
    assert asked_wait(429, both, now=NOW) == (5, "the host asked to wait (Retry-After)")


# -- freshness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "seconds"),
    [
        ({}, 0),
        ({"Cache_Control": "max-age=60"}, 60),
        ({"Cache_Control": "public,MAX-AGE = 60 , must-revalidate"}, 60),
        ({"Cache_Control": 'max-age="60"'}, 60),
        ({"Cache_Control": "s-maxage=60"}, 0),
        ({"Cache_Control": "stale-while-revalidate=60"}, 0),
        ({"Cache_Control": "max-age=-60"}, 0),
        ({"Cache_Control": "max-age=x"}, 0),
        ({"Cache_Control": "max-age=60", "Age": "20"}, 40),
        ({"Cache_Control": "max-age=60", "Age": "90"}, 0),
        ({"Cache_Control": "max-age=60", "Age": "-20"}, 60),
        ({"Cache_Control": "max-age=60", "Age": "old"}, 60),
        ({"Cache_Control": "no-cache, max-age=60"}, 0),
        ({"Cache_Control": "max-age=60, no-store"}, 0),
        ({"Cache_Control": "max-age=99999999999"}, MAX_FRESH_S),
        ({"Expires": http(60), "Date": http(0)}, 60),
        ({"Expires": http(3660), "Date": http(3600)}, 60),  # by the server's own clock
        ({"Expires": http(60)}, 60),
        ({"Expires": http(60), "Date": "today"}, 60),
        ({"Expires": http(-60), "Date": http(0)}, 0),
        ({"Expires": "0"}, 0),
        ({"Expires": "-1"}, 0),
        ({"Expires": http(600), "Date": http(0), "Cache_Control": "max-age=60"}, 60),
        ({"Expires": http(600), "Date": http(0), "Cache_Control": "no-cache"}, 0),
        ({"Expires": http(600), "Date": http(0), "Cache_Control": "private"}, 600),
        ({"X_Poll_Interval": "60"}, 60),
        ({"X_Poll_Interval": "60", "Cache_Control": "no-cache"}, 60),
        ({"X_Poll_Interval": "60", "Cache_Control": "max-age=90"}, 90),
        ({"X_Poll_Interval": "-60"}, 0),
        ({"X_Poll_Interval": "soon"}, 0),
        ({"X_Poll_Interval": "9" * 40}, MAX_FRESH_S),
    ],
)
def test_how_long_an_answer_is_right(named: dict[str, str], seconds: float) -> None:
    assert fresh_s(headers(**named), now=NOW) == seconds


@pytest.mark.parametrize(
    "value", ["", "\0", "\ud800", "9" * 5000, "=" * 5000, '"' * 999, ";r=0;t=", "Mon, 99 Xxx 99999"]
)
def test_nothing_that_a_header_says_raises(value: str) -> None:
    names = ("Retry-After", "RateLimit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "Cache-Control", "Age")
    all_of_them: Any = CaseInsensitiveDict(dict.fromkeys((*names, "Expires", "Date", "X-Poll-Interval"), value))
    for status in (200, 403, 429, 503):
        wait = asked_wait(status, all_of_them, now=NOW)
        assert wait is None or 0 <= wait[0] <= MAX_WAIT_S
    used_up: Any = CaseInsensitiveDict(dict(all_of_them) | {"X-RateLimit-Remaining": "0"})
    wait = asked_wait(200, used_up, now=NOW)
    assert wait is not None and 0 <= wait[0] <= MAX_WAIT_S
    assert 0 <= fresh_s(all_of_them, now=NOW) <= MAX_FRESH_S
