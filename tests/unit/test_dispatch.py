"""Who waits for a busy host hides nobody else, keeps about its place in the line, and is never forgotten."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from errors import GleandError
from jobs.choice import FRONT, LOOK_AHEAD, LOOK_MOST
from tests.support.fake_pool import House
from tests.support.lines import fill, looking, rounds, serve

MANY = 10_000


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    with House(tmp_path, size=8, host_delay_s=1) as house:
        yield house


# -- the others ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("delay_s", [0, 1, 30])
def test_ten_targets_of_other_hosts_are_claimed_at_once_behind_ten_thousand_of_a_busy_one(
    tmp_path: Path, delay_s: float
) -> None:
    with House(tmp_path, size=16, host_delay_s=delay_s) as house:
        busy = fill(house, "busy.example", MANY, ago_s=500)
        ten = [fill(house, f"h{n}.example", 1, ago_s=1)[0] for n in range(10)]
        with looking(house) as seen:
            claimed = house.round()
            assert seen.rows <= LOOK_MOST + 16 + LOOK_AHEAD
            number = 1
            while house.service.claims.choice.more:
                claimed += house.round()
                number += 1
            assert number <= MANY / LOOK_MOST + 2
            assert claimed == [busy[0], *ten]
            assert seen.rows <= 1.1 * (MANY + 10)


def test_once_deferred_they_cost_nothing(house: House) -> None:
    fill(house, "busy.example", MANY)
    with looking(house) as first:
        rounds(house)
    with looking(house) as later:
        for _ in range(10):
            house.round()
            house.clock.advance(0.05)
    assert (later.rows, first.rows > MANY) == (10 * (FRONT + 1), True)  # and one to see that there is any
    assert later.statements <= 10 * 8 < first.statements


def test_on_a_host_that_said_wait_none_is_looked_at_before(house: House) -> None:
    house.block("busy.example:80", 200)
    fill(house, "busy.example", 1000)
    rounds(house)
    with looking(house) as seen:
        for _ in range(190):
            house.clock.advance(1)
            assert house.round() == []
    assert seen.rows == 0
    assert len(serve(house, for_s=100)) > 55


def test_many_busy_hosts_do_not_hide_a_free_one(tmp_path: Path) -> None:
    """Each keeps its first two in sight, which together are more than one round looks at."""
    with House(tmp_path, size=700, host_delay_s=0) as house:
        for n in range(600):
            fill(house, f"h{n}.example", 6, ago_s=100)
        assert len(rounds(house)) == 600
        (free,) = fill(house, "free.example", 1)
        for _ in range(4):
            if free in rounds(house):
                break
        else:
            raise AssertionError("it was not claimed")


def test_a_host_without_a_pause_keeps_no_round_turning_while_its_first_run_hangs(tmp_path: Path) -> None:
    with House(tmp_path, size=8, host_delay_s=0) as house:
        fill(house, "busy.example", 3000)
        rounds(house)
        with looking(house) as seen:
            for _ in range(100):
                house.round()
                assert not house.service.claims.choice.more
        assert seen.rows == 100 * (FRONT + 1)


# -- the line --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("takes_s", [0.25, 1.0, 3.0])
def test_a_busy_host_is_served_about_in_order_and_without_a_break(house: House, takes_s: float) -> None:
    """However wrong the first guess of its pace was."""
    handles = fill(house, "busy.example", 400)
    for_s = 100 * (takes_s + 1)
    claimed = serve(house, for_s=for_s, takes_s=takes_s)
    assert len(claimed) == len(set(claimed)) >= 0.9 * for_s / (takes_s + 1.0)
    places = [handles.index(handle) for handle in claimed]
    assert sorted(abs(place - number) for number, place in enumerate(places))[int(0.9 * len(places))] <= 130
    assert set(range(30)) <= set(places)


def test_a_single_request_goes_before_a_refresh_of_all(house: House) -> None:
    handles = fill(house, "busy.example", 300)
    house.service.refresh_all()
    serve(house, for_s=20)
    house.run("good:other")
    asked = next(handle for handle in reversed(handles) if not runs(house, handle))
    newcomer = "http://busy.example/new"
    with suppress(GleandError):
        house.add(asked)  # it is refused: it was asked for already, by the refresh
    house.add(newcomer)
    assert newcomer in serve(house, for_s=6)[:3]


def runs(house: House, handle: str) -> int:
    return sum(order.target.handle == handle for order in house.pool.orders)


def test_a_request_that_is_deferred_by_its_host_goes_before_a_refresh_of_all_too(house: House) -> None:
    fill(house, "busy.example", 300)
    house.service.refresh_all()
    rounds(house)
    house.block("busy.example:80", 50)
    serve(house, for_s=10)
    house.add("http://busy.example/new")
    assert serve(house, for_s=60)[0] == "http://busy.example/new"


def test_hosts_with_and_without_a_line_share_the_workers(house: House) -> None:
    fill(house, "a.example", 100)
    fill(house, "b.example", 100)
    quick = [fill(house, f"q{n}.example", 1)[0] for n in range(50)]
    claimed = serve(house, for_s=30)
    assert set(quick) <= set(claimed[: 50 + 30])
    assert 15 <= sum("//a." in handle for handle in claimed) <= 21


# -- nobody is lost --------------------------------------------------------------------------------------------------


class Chaos:
    """Does at random whatever can happen to targets that wait."""

    def __init__(self, house: House, seed: int) -> None:
        self.house, self.dice = house, random.Random(seed)
        for host, count in (("a.example", 40), ("b.example", 5), ("c.example", 1)):
            fill(house, host, count, schedule="every 10m")
        for n in range(3):
            house.track(f"good:{n}", due_in_s=0, schedule="every 10m")
        shown = house.service.targets(state=None, source=None, q=None, limit=100, cursor=None)
        self.ids = [row["id"] for row in shown["targets"]]

    def anything(self) -> None:
        verbs = (self.end, self.end, self.end, self.wait, self.wait, self.block, self.pause, self.ask, self.reset)
        self.dice.choice((*verbs, self.refresh, self.jump))()
        self.check(rounds(self.house))

    def check(self, claimed: list[str]) -> None:
        """Never two at once on a host; never one that is paused."""
        busy = Counter(order.target.url.split("/")[2] for order in self.house.pool.running.values() if order.target.url)
        assert not [host for host, n in busy.items() if n > 1], busy

    def end(self) -> None:
        running = [order.target.handle for order in self.house.pool.running.values()]
        if running:
            handle = self.dice.choice(running)
            how = self.dice.random()
            if how < 0.7:
                self.house.finish(handle)
            else:
                self.house.fail(handle, retry_after_s=self.dice.uniform(1, 400) if how > 0.85 else None)

    def wait(self) -> None:
        self.house.clock.advance(self.dice.choice((0.1, 1, 5, 60, 400)))
        self.house.check()

    def block(self) -> None:
        self.house.block(self.dice.choice(("a.example:80", "b.example:80", "nobody:80")), self.dice.uniform(0.1, 900))

    def pause(self) -> None:
        now, target = self.house.clock.now(), self.dice.choice(self.ids)
        until = None if self.dice.random() < 0.5 else now + timedelta(seconds=self.dice.uniform(1, 1000))
        self.house.service.patch(target, {"paused_until": until})

    def ask(self) -> None:
        with suppress(GleandError):
            force = self.dice.random() < 0.3
            self.house.service.transition(self.dice.choice(self.ids), trigger="start", force=force, reason="chaos")

    def reset(self) -> None:
        with suppress(GleandError):
            self.house.service.transition(self.dice.choice(self.ids), trigger="reset", force=True, reason="chaos")

    def refresh(self) -> None:
        with suppress(GleandError):
            self.house.service.refresh_all()

    def jump(self) -> None:
        seconds = self.dice.choice((-1, 1)) * self.dice.choice((3, 100, 3600, 86400, 365 * 86400))
        self.house.clock.jump(seconds)
        self.house.service.clamp_due(seconds)
        self.house.flush()


@pytest.mark.parametrize("seed", range(8))
def test_whatever_happens_every_target_is_claimed_in_the_end(tmp_path: Path, seed: int) -> None:
    with House(tmp_path, size=3, host_delay_s=2, backoff_cap_s=300) as house:
        chaos = Chaos(house, seed)
        for _ in range(150):
            chaos.anything()
        began, soon = len(house.pool.orders), house.clock.now() + timedelta(seconds=1200)
        paused = [house.column(target, "paused_until") for target in chaos.ids]
        wanted = {target for target, until in zip(chaos.ids, paused, strict=True) if until is None or until < soon}
        serve(house, for_s=3600, step_s=1.0, takes_s=1.0)
        claimed = {order.target.id for order in house.pool.orders[began:]}
        assert len(wanted) > 25 and not wanted - claimed, [house.status(target) for target in wanted - claimed]
