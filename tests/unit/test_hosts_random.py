"""The politeness engine under whatever runs may do, in any order: never two at once, never too soon, nobody stuck."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace

import pytest

from jobs.hosts import Hosts, Turn
from tests.support.fake_pool import FakeClock

HOSTS = ("a", "b", "c")


class Runs:
    """Runs that begin, ask, leave and die at random; what they were granted is checked against what has happened."""

    def __init__(self, seed: int) -> None:
        self.dice, self.clock = random.Random(seed), FakeClock()
        self.delay_s = self.dice.choice((0, 1, 5))
        workers = self.dice.choice((1, 8, 40))
        st = SimpleNamespace(host_delay_s=self.delay_s, host_concurrency=1, workers=workers, respect_robots=True)
        self.hosts = Hosts(self.clock, lambda: st)
        self.hosts.on_turn = self.answered
        self.last = 0
        self.live: set[int] = set()
        #: Where each run has a turn, and from when on (monotonic).
        self.turns: dict[int, tuple[str, float]] = {}
        self.waiting: dict[int, str] = {}
        #: Before when nobody may ask (monotonic).
        self.until = dict.fromkeys(HOSTS, -math.inf)

    def anything(self) -> None:
        verb = self.dice.choices((self.begin, self.ask, self.die, self.block, self.wait), (30, 30, 15, 10, 15))[0]
        verb()
        asked = {host for host, _ in self.turns.values()}
        assert set(self.waiting.values()) <= asked, "a run waits where nobody asks"

    def begin(self) -> None:
        host = self.dice.choice(HOSTS)
        if self.hosts.wait_s(host) <= 0 or self.dice.random() < 0.1:  # a claim that somebody else comes before
            self.last += 1
            self.live.add(self.last)
            if self.hosts.begin(host, self.last):
                self.granted(self.last, host, 0.0)

    def ask(self) -> None:
        awake = [run for run in self.live - set(self.waiting) if self.turns.get(run, ("", 0))[1] <= self.clock.mono]
        if awake:
            run, host = self.dice.choice(sorted(awake)), self.dice.choice(HOSTS)
            done = [self.turns[run][0]] if run in self.turns else []
            self.left(run)
            self.waiting[run] = host
            turn = self.hosts.ask(run, host, done=done)
            if turn is not None:
                self.answered(turn)

    def answered(self, turn: Turn) -> None:
        assert self.waiting.pop(turn.token) == turn.host
        if turn.granted:
            self.granted(turn.token, turn.host, turn.wait_s)

    def granted(self, run: int, host: str, wait_s: float) -> None:
        at = self.clock.mono + wait_s
        assert host not in {other for other, _ in self.turns.values()}, "two at once"
        assert at >= self.until[host] - 1e-6, "too soon"
        self.turns[run] = (host, at)

    def left(self, run: int) -> None:
        if run in self.turns:
            host, _ = self.turns.pop(run)
            self.until[host] = max(self.until[host], self.clock.mono + self.delay_s)

    def die(self) -> None:
        if self.live:
            run = self.dice.choice(sorted(self.live))
            self.left(run)
            self.live.discard(run)
            self.waiting.pop(run, None)
            self.hosts.gone(run)

    def block(self) -> None:
        host, seconds = self.dice.choice(HOSTS), self.dice.choice((1, 20, 500))
        if host not in {other for other, _ in self.turns.values()}:  # only who asks hears it, and then has asked
            self.hosts.block(host, seconds, "told")
            self.until[host] = max(self.until[host], self.clock.mono + seconds)

    def wait(self) -> None:
        self.clock.advance(self.dice.choice((0.1, 1, 7, 700)))


@pytest.mark.parametrize("seed", range(100))
def test_whatever_runs_do_nobody_is_asked_twice_at_once_or_too_soon_and_nobody_is_stuck(seed: int) -> None:
    runs = Runs(seed)
    for _ in range(150):
        runs.anything()
    while runs.live:
        runs.die()
    assert not runs.waiting and not runs.turns
    runs.clock.advance(1000)
    assert [runs.hosts.wait_s(host) for host in HOSTS] == [0, 0, 0]
