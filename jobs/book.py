"""Which order runs where: what other threads ask of the pool without waiting for it.

A target is running from the hand-over of its order, or stopping once its run is to end, until the pool says that no
process of it is left.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from model import Order


class Book:
    """Orders by token; every method may be called from any thread, and none takes long but those that wait."""

    def __init__(self, gone: Callable[[Order], None]) -> None:
        """`gone` is called with an order that has no process any more."""
        self._gone = gone
        self._changed = threading.Condition()
        self._orders: dict[int, Order] = {}
        self._running: dict[int, int] = {}
        self._stopping: dict[int, set[int]] = {}

    def enter(self, order: Order) -> None:
        """An order is handed over."""
        with self._changed:
            self._running[order.target.id] = order.token
            self._orders[order.token] = order

    def stop(self, token: int) -> bool:
        """The processes of an order are to be gone; False when it has none."""
        with self._changed:
            order = self._orders.get(token)
            if order is None:
                return False
            if self._running.get(order.target.id) == token:
                del self._running[order.target.id]
            self._stopping.setdefault(order.target.id, set()).add(token)
            return True

    def forget(self, token: int) -> None:
        """An order has no process any more."""
        with self._changed:
            order = self._orders.pop(token, None)
            if order is None:
                return
            target_id = order.target.id
            if self._running.get(target_id) == token:
                del self._running[target_id]
            tokens = self._stopping.get(target_id, set())
            tokens.discard(token)
            if not tokens:
                self._stopping.pop(target_id, None)
            self._changed.notify_all()
        self._gone(order)

    def worker_of(self, target_id: int) -> str:
        """`none`, `running` or `stopping` (its processes are not known to be gone)."""
        if not self._orders:
            return "none"
        with self._changed:
            if self._stopping.get(target_id):
                return "stopping"
            return "running" if target_id in self._running else "none"

    def holds(self, token: int) -> bool:
        """Whether a worker has this order, or is about to get it."""
        with self._changed:
            order = self._orders.get(token)
            return order is not None and self._running.get(order.target.id) == token

    def wait_gone(self, target_id: int, timeout_s: float) -> bool:
        """Wait until no stopped worker of the target has a live process; False when it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._stopping.get(target_id), timeout_s)

    def wait_all_gone(self, timeout_s: float) -> bool:
        """Wait until no stopped worker has a live process; False when it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._stopping, timeout_s)

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no worker has an order and none is stopping; False when it took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running and not self._stopping, timeout_s)
