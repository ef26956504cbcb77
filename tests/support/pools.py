"""A real pool with real workers in the test's own process, and a listener that keeps what it is told."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from jobs.pool import Pool
from jobs.protocol import Message
from model import FetchLimits, Order, Outcome, Target
from tests.support.daemon import SCRAPERS
from tests.support.waiting import wait_until

_TOKENS = itertools.count(1)


class TurnedClock:
    """The machine's clock, and as much later as a test says."""

    def __init__(self) -> None:
        self.later_s = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.later_s

    def now(self) -> datetime:
        return datetime.now(UTC)


class Heard:
    """What the pool said, by the order's token."""

    def __init__(self) -> None:
        self.outcomes: dict[int, Outcome] = {}
        self.deaths: dict[int, str] = {}
        self.overdues: dict[int, str] = {}
        self.beats: list[int] = []
        self.progress: list[tuple[int, str]] = []
        self.lates: list[int] = []
        self.saids: list[tuple[int, Message]] = []
        self.gones: list[int] = []
        self.frees = 0

    def finished(self, order: Order, outcome: Outcome) -> None:
        assert order.token not in self.outcomes
        self.outcomes[order.token] = outcome

    def died(self, order: Order, reason: str) -> None:
        assert order.token not in self.deaths
        self.deaths[order.token] = reason

    def overdue(self, order: Order, kind: str) -> None:
        assert order.token not in self.overdues
        self.overdues[order.token] = kind

    def progressed(self, order: Order, text: str) -> None:
        self.progress.append((order.token, text))

    def beat(self, order: Order) -> None:
        self.beats.append(order.token)

    def late(self, order: Order) -> None:
        self.lates.append(order.token)

    def said(self, order: Order, message: Message) -> None:
        self.saids.append((order.token, message))

    def gone(self, order: Order) -> None:
        assert order.token not in self.gones
        self.gones.append(order.token)

    def freed(self) -> None:
        self.frees += 1


class Bench:
    """A pool, its clock and what it said."""

    def __init__(self, **settings: Any) -> None:
        self.clock, self.heard = TurnedClock(), Heard()
        given: dict[str, Any] = {"workers": 3, "stop_grace_s": 1.0, "max_scrapes": 100, "memory_bytes": 2**28}
        self.pool = Pool(**(given | settings), clock=self.clock, listener=self.heard)

    def give(self, source: str, handle: str = "x", *, target_id: int = 0, **more: Any) -> Order:
        """Hand an order over to the next free worker."""
        (slot,) = wait_until(lambda: self.pool.reserve(1), within_s=10)
        order = make_order(source, handle, target_id=target_id, **more)
        self.pool.hand_over(slot, order)
        return order

    def finish(self, source: str, handle: str = "x", **more: Any) -> Outcome:
        """Give an order; wait for its result, and for its worker to be idle or ending: then the clock may be turned."""
        order = self.give(source, handle, **more)
        wait_until(lambda: order.token in self.heard.outcomes, within_s=10)
        wait_until(lambda: not self.pool.holds(order.token))
        return self.heard.outcomes[order.token]

    def worker_pid(self) -> int:
        """The pid that the only free worker tells, now."""
        return int(self.finish("tells_pid").posts[0].native_id)


def make_order(source: str, handle: str = "x", *, target_id: int = 0, **more: Any) -> Order:
    """An order for one of tests/support/scrapers.py; its target is its own unless told otherwise."""
    token = next(_TOKENS)
    target = Target(id=target_id or token, source=source, handle=handle, url="")
    given: dict[str, Any] = {"timeout_s": 60.0, "stall_timeout_s": 60.0, "limits": FetchLimits(user_agent="test")}
    given |= {"scraper": f"scrapers:{source}", "scraper_path": str(SCRAPERS)}
    return Order(run_id=token, token=token, target=target, **(given | more))


@contextmanager
def open_bench(**settings: Any) -> Iterator[Bench]:
    """Start a pool; at the end it is stopped, and must leave nothing."""
    bench = Bench(**settings)
    bench.pool.start()
    try:
        yield bench
    finally:
        bench.clock.later_s = 0.0
        bench.pool.stop(10)
        assert bench.pool.pids() == []
