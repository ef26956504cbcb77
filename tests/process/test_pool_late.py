"""Reports of real workers that come too late, held back where a pipe would hold them: they change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.pool import Pool
from jobs.runs import Runs
from model import Order, Outcome
from tests.support.daemon import SCRAPERS
from tests.support.fake_pool import House
from tests.support.pools import TurnedClock
from tests.support.waiting import wait_until


class Held:
    """Between the pool and its listener: keeps results back until a test lets them go."""

    def __init__(self, runs: Runs) -> None:
        self.runs = runs
        self.holding = True
        self.results: list[Callable[[], None]] = []

    def finished(self, order: Order, outcome: Outcome) -> None:
        if self.holding:
            self.results.append(lambda: self.runs.finished(order, outcome))
        else:
            self.runs.finished(order, outcome)

    def died(self, order: Order, reason: str) -> None:
        self.runs.died(order, reason)

    def overdue(self, order: Order, kind: str) -> None:
        self.runs.overdue(order, kind)

    def progressed(self, order: Order, text: str) -> None:
        self.runs.progressed(order, text)

    def beat(self, order: Order) -> None:
        self.runs.beat(order)

    def late(self, order: Order) -> None:
        self.runs.late(order)

    def said(self, order: Order, message: dict[str, Any]) -> None:
        self.runs.said(order, message)

    def gone(self, order: Order) -> None:
        self.runs.gone(order)

    def freed(self) -> None:
        self.runs.freed()


class Real(House):
    """The service of a House with a real pool and real time."""

    def __init__(self, home: Path) -> None:
        names = ("brisk", "sleeps", "good", "late")
        own = {"scrapers": {name: f"scrapers:{name}" for name in names}, "scraper_path": SCRAPERS}
        super().__init__(home, clock=TurnedClock(), stop_grace_s=1.5, **own)  # type: ignore[arg-type]
        self.held = Held(self.service.runs)
        self.real = Pool(
            workers=2, stop_grace_s=1.5, max_scrapes=100, memory_bytes=2**28, clock=self.clock, listener=self.held
        )
        self.core.pool = self.real

    def __enter__(self) -> Real:
        super().__enter__()
        self.real.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.real.stop(10)
        super().__exit__()

    def begin(self, target_id: int) -> Order:
        """Claim until this target is in a worker; its order."""
        wait_until(lambda: self.service.round() or self.status(target_id)["state"] == "RUNNING", within_s=10)
        token = self.status(target_id)["token"]
        return self.core.live[token].order

    def let_go(self) -> None:
        """Every result that was held back arrives now."""
        self.held.holding = False
        for result in self.held.results:
            result()
        self.held.results.clear()
        self.flush()

    def posts(self) -> list[str]:
        return [post["native_id"] for post in self.service.feed(username=None, limit=100, cursor=None)["posts"]]


@pytest.fixture
def house(tmp_path: Path) -> Iterator[Real]:
    with Real(tmp_path) as house:
        yield house


def held_back(house: Real) -> int:
    """A target whose worker has reported success, and nobody has heard it yet."""
    target = house.add("brisk:x")
    house.begin(target)
    wait_until(lambda: house.held.results, within_s=10)
    assert house.status(target)["state"] == "RUNNING"
    return target


@pytest.mark.parametrize("trigger, state", [("reset", "IDLE"), ("expire", "TIMEOUT"), ("fail", "FAILED")])
def test_a_result_that_was_held_back_until_the_run_was_ended_changes_nothing(
    house: Real, trigger: str, state: str
) -> None:
    target = held_back(house)
    house.service.transition(target, trigger=trigger, force=True, reason="x")
    before = house.status(target)
    house.let_go()
    after = house.status(target)
    assert after["state"] == state
    assert {k: after[k] for k in ("token", "run_id", "error", "last_run")} == {
        k: before[k] for k in ("token", "run_id", "error", "last_run")
    }
    assert house.posts() == []
    refusal = house.journal(target)[0]
    assert (refusal["trigger"], refusal["actor"], refusal["to"]) == ("complete", "worker", None)
    assert refusal["refused_by"] == "no_such_edge"


def test_a_result_that_was_held_back_until_the_next_run_does_not_touch_it(house: Real) -> None:
    target = held_back(house)
    house.service.transition(target, trigger="reset", force=True, reason="x")
    assert house.real.wait_gone(target, 5)
    house.add("brisk:x")
    house.held.holding = True
    order = house.begin(target)
    before = house.status(target)
    house.let_go()
    after = house.status(target)
    assert (after["state"], after["token"], after["run_id"]) == ("RUNNING", order.token, order.run_id)
    assert after["token"] == before["token"] and house.posts() == []
    assert house.journal(target)[0]["refused_by"] == "holds_token"
    wait_until(lambda: house.status(target)["state"] == "COMPLETED")
    assert sorted(house.posts()) == ["0", "1", "2", "3", "4"]
    assert house.status(target)["last_run"]["posts_new"] == 5


def test_a_result_that_was_held_back_until_its_target_was_removed_and_added_again_is_dropped(house: Real) -> None:
    target = held_back(house)
    house.service.remove(target_id=target)
    again = house.add("brisk:x")
    assert again != target
    house.let_go()
    assert house.posts() == []
    assert house.status(again)["state"] == "IDLE"


def test_a_real_deadline_and_a_real_late_report_meet_in_the_journal(house: Real) -> None:
    target = house.add("late:2", timeout_s=1.2)
    house.begin(target)
    wait_until(lambda: house.status(target)["state"] == "TIMEOUT", within_s=3)
    wait_until(lambda: any(e["refused_by"] for e in house.journal(target)), within_s=3)
    assert house.status(target)["state"] == "TIMEOUT" and house.posts() == []
    assert house.journal(target)[0]["actor"] == "worker"
    assert house.real.wait_gone(target, 5)
