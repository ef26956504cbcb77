"""The politeness engine: who may ask which host, and when."""

from __future__ import annotations

import math
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from jobs.hosts import MAX_CRAWL_DELAY_S, MAX_TURN_S, Hosts, Turn
from tests.support.fake_pool import FakeClock

A, B = "a.example:80", "b.example:80"


class Engine:
    """Hosts, a clock that a test turns, and the turns that came up."""

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.settings = SimpleNamespace(
            **({"host_delay_s": 2.0, "host_concurrency": 1, "workers": 8, "respect_robots": True} | settings)
        )
        self.hosts = Hosts(self.clock, lambda: self.settings)
        self.turns: list[Turn] = []
        self.hosts.on_turn = self.turns.append

    def ask(self, token: int, host: str, *done: str) -> tuple[bool, float] | None:
        turn = self.hosts.ask(token, host, done=done)
        return None if turn is None else (turn.granted, turn.wait_s)


def test_a_host_nobody_asked_is_free() -> None:
    assert Engine().hosts.wait_s(A) == 0


def test_a_second_run_waits_for_the_first_and_then_for_the_delay() -> None:
    engine = Engine()
    engine.hosts.begin(A, 1)
    engine.clock.advance(10)
    assert engine.hosts.wait_s(A) == math.inf
    engine.hosts.gone(1)
    assert engine.hosts.wait_s(A) == 2
    engine.clock.advance(2)
    assert engine.hosts.wait_s(A) == 0


def test_hosts_do_not_wait_for_each_other() -> None:
    engine = Engine()
    engine.hosts.begin(A, 1)
    assert engine.hosts.wait_s(B) == 0


def test_with_more_at_once_they_begin_apart() -> None:
    engine = Engine(host_concurrency=2)
    engine.hosts.begin(A, 1)
    assert engine.hosts.wait_s(A) == 2
    engine.clock.advance(2)
    engine.hosts.begin(A, 2)
    engine.clock.advance(2)
    assert engine.hosts.wait_s(A) == math.inf


def test_of_those_chosen_together_only_as_many_as_may_begin() -> None:
    assert Engine().hosts.wait_s(A, beside=1) == math.inf
    assert Engine(host_concurrency=2).hosts.wait_s(A, beside=1) == 2
    fast = Engine(host_concurrency=2, host_delay_s=0)
    assert [fast.hosts.wait_s(A, beside=n) for n in range(3)] == [0, 0, math.inf]
    fast.hosts.begin(A, 1)
    assert [fast.hosts.wait_s(A, beside=n) for n in range(2)] == [0, math.inf]


def test_the_next_page_of_a_run_waits_for_the_delay() -> None:
    engine = Engine()
    engine.hosts.begin(A, 1)
    engine.clock.advance(5)
    assert engine.ask(1, A, A) == (True, 2)


def test_between_two_requests_of_a_run_another_may_have_the_host_but_no_other_run_begins_there() -> None:
    engine = Engine()
    engine.hosts.begin(A, 1)
    engine.hosts.begin(B, 2)
    assert engine.ask(2, A, B) is None  # led there by a redirect: it waits
    assert engine.ask(1, B, A) == (True, 2)
    assert [(turn.token, turn.host, turn.granted, turn.wait_s) for turn in engine.turns] == [(2, A, True, 2)]
    assert engine.hosts.wait_s(A) == math.inf


def test_runs_that_want_each_others_hosts_do_not_wait_for_ever() -> None:
    engine = Engine(host_delay_s=0)
    engine.hosts.begin(A, 1)
    engine.hosts.begin(B, 2)
    assert engine.ask(1, B, A) is None
    assert engine.ask(2, A, B) == (True, 0)
    assert [(turn.token, turn.host, turn.granted) for turn in engine.turns] == [(1, B, True)]


def test_who_waits_comes_in_the_order_of_asking() -> None:
    engine = Engine(host_delay_s=0, workers=40)
    engine.hosts.begin(A, 1)
    for token in (2, 3, 4):
        assert engine.ask(token, A) is None
    for token in (1, 2, 3):
        engine.hosts.gone(token)
    assert [turn.token for turn in engine.turns] == [2, 3, 4]


def test_a_run_that_is_gone_waits_no_more() -> None:
    engine = Engine(host_delay_s=0)
    engine.hosts.begin(A, 1)
    assert engine.ask(2, A) is None
    engine.hosts.gone(2)
    engine.hosts.gone(1)
    assert engine.turns == [] and engine.hosts.wait_s(A) == 0


def test_only_a_few_runs_wait_for_others_hosts_the_workers_are_for_everybody() -> None:
    engine = Engine(workers=8)
    engine.hosts.begin(A, 1)
    assert [engine.ask(token, A) for token in (2, 3)] == [None, None]
    assert engine.ask(4, A) == (False, MAX_TURN_S)


def test_a_host_that_asked_to_be_left_alone_is_for_everybody() -> None:
    engine = Engine()
    engine.hosts.begin(A, 1)
    engine.hosts.block(A, 3600, "Retry-After")
    engine.hosts.block(A, 10, "less")
    assert engine.ask(1, A, A) == (False, 3600)
    engine.hosts.gone(1)
    assert engine.hosts.wait_s(A) == 3600
    (shown,) = engine.hosts.view()
    assert (shown["host"], shown["reason"], shown["running"]) == (A, "Retry-After", 0)
    assert shown["next_allowed_at"] == engine.clock.now() + timedelta(seconds=3600)


def test_a_short_wait_is_sat_out_inside_a_run() -> None:
    engine = Engine()
    engine.hosts.begin(A, 1)
    engine.hosts.block(A, 30, "rate limit")
    assert engine.ask(1, A, A) == (True, 30)


def test_a_crawl_delay_is_kept_and_bounded() -> None:
    engine = Engine()
    engine.hosts.crawl_delay(A, 20)
    engine.hosts.crawl_delay(B, 1e9)
    engine.hosts.begin(A, 1)
    engine.hosts.gone(1)
    engine.hosts.begin(B, 2)
    engine.hosts.gone(2)
    assert (engine.hosts.wait_s(A), engine.hosts.wait_s(B)) == (20, MAX_CRAWL_DELAY_S)


def test_what_was_kept_comes_back() -> None:
    engine = Engine()
    now = engine.clock.now()
    rows = [
        SimpleNamespace(host=A, next_allowed_at=now + timedelta(seconds=50), reason="asked", crawl_delay_s=0.0),
        SimpleNamespace(host=B, next_allowed_at=now - timedelta(seconds=50), reason="asked", crawl_delay_s=9.0),
        SimpleNamespace(host="c", next_allowed_at=now + timedelta(days=3650), reason="asked", crawl_delay_s=0.0),
    ]
    engine.hosts.load(rows, now=now)
    engine.hosts.rest(B, ago_s=4)
    assert [engine.hosts.wait_s(host) for host in (A, B, "c")] == [50, 5, 0]


def test_the_pace_of_a_host_is_its_delay_and_what_runs_take() -> None:
    engine = Engine()
    assert engine.hosts.pace_s(A) == 2
    for token in range(50):
        engine.hosts.begin(A, token)
        engine.clock.advance(3)
        engine.hosts.gone(token)
    assert 4.9 < engine.hosts.pace_s(A) <= 5


def test_hosts_that_are_done_with_are_forgotten() -> None:
    engine = Engine()
    for token in range(100):
        engine.hosts.begin(f"h{token}", token)
        engine.hosts.gone(token)
    engine.clock.advance(2000)
    engine.hosts.begin(A, 1000)
    engine.hosts.gone(1000)
    assert len(engine.hosts._hosts) == 1


def test_hosts_that_runs_are_only_led_to_rest_after_a_start_too() -> None:
    engine = Engine()
    engine.hosts.load([], now=engine.clock.now())
    engine.clock.advance(0.5)
    engine.hosts.begin(A, 1)
    assert engine.ask(1, B, A) == (True, 1.5)
    engine.clock.advance(5)
    assert engine.ask(1, "c.example:80", B) == (True, 0)


def test_a_long_run_that_was_led_to_hosts_that_are_forgotten_gives_its_place_back() -> None:
    engine = Engine()
    engine.hosts.begin(A, 1)
    engine.ask(1, B, A)
    engine.ask(1, A, B)
    engine.clock.advance(2000)
    engine.hosts.begin("c.example:80", 2)
    engine.hosts.gone(2)
    assert B not in engine.hosts._hosts
    engine.hosts.gone(1)
    engine.clock.advance(2)
    assert engine.hosts.wait_s(A) == 0


def test_without_respect_for_robots_txt_a_crawl_delay_is_not_kept() -> None:
    engine = Engine(respect_robots=False)
    engine.hosts.crawl_delay(A, 20)
    engine.hosts.begin(A, 1)
    engine.hosts.gone(1)
    assert engine.hosts.wait_s(A) == 2


def test_who_comes_second_begins_without_a_turn_and_asks_for_one() -> None:
    engine = Engine()
    assert engine.ask(1, A) == (True, 0)  # led there, after the claim had looked
    assert not engine.hosts.begin(A, 2)
    assert engine.hosts.wait_s(A) == math.inf
    assert engine.ask(2, A) is None
    engine.hosts.gone(1)
    assert [(turn.token, turn.granted, turn.wait_s) for turn in engine.turns] == [(2, True, 2)]
    engine.hosts.gone(2)
    engine.clock.advance(4)
    assert engine.hosts.begin(A, 3)
