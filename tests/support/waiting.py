"""Waiting for a fact instead of for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, within_s: float = 5.0, every_s: float = 0.01) -> T:
    """Ask until the answer is true; returns it. Fails the test when it never is."""
    until = time.monotonic() + within_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < until, f"not within {within_s} s: {getattr(condition, '__doc__', None) or condition}"
        time.sleep(every_s)
