"""What the daemon keeps of robots.txt in memory, for runs that are led to a host."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

from jobs.robots import AHEAD_S, CHARS, HOSTS, KnownRobots
from tests.support.fake_pool import FakeClock

A, B = "a.example:80", "b.example:80"


def test_what_was_read_is_known_and_grows_older() -> None:
    clock = FakeClock()
    robots = KnownRobots(clock)
    assert robots.of(A) is None
    robots.keep(A, 200, "User-agent: *", age_s=5)
    clock.advance(10)
    assert robots.of(A) == {"status": 200, "text": "User-agent: *", "age_s": 15}
    robots.keep(A, 404, "", age_s=0)
    assert robots.of(A) == {"status": 404, "text": "", "age_s": 0}


def test_it_is_bounded_in_hosts_and_in_size_and_the_oldest_goes_first() -> None:
    robots = KnownRobots(FakeClock())
    for n in range(HOSTS + 5):
        robots.keep(f"h{n}", 200, "x", age_s=0)
    assert [robots.of(f"h{n}") is None for n in (4, 5)] == [True, False]
    for n in range(4):
        robots.keep(f"big{n}", 200, "x" * (CHARS // 3), age_s=0)
    assert [robots.of(f"big{n}") is None for n in range(4)] == [True, False, False, False]
    robots.keep("big3", 200, "", age_s=0)  # what is replaced does not count any more
    robots.keep("big4", 200, "x" * (CHARS // 3), age_s=0)
    assert robots.of("big1") is not None


def test_what_the_database_has_comes_back_but_not_from_the_future() -> None:
    clock = FakeClock()
    now = clock.now()

    def row(host: str, ago_s: float, text: str | None = "x") -> SimpleNamespace:
        at = now - timedelta(seconds=ago_s)
        return SimpleNamespace(host=host, robots_status=200, robots_text=text, robots_at=at)

    robots = KnownRobots(clock)
    robots.load([row(A, -AHEAD_S / 2), row(B, 40, None), row("c", -AHEAD_S - 1)], now=now)
    assert robots.of(A) == {"status": 200, "text": "x", "age_s": 0}
    assert robots.of(B) == {"status": 200, "text": "", "age_s": 40}
    assert robots.of("c") is None
