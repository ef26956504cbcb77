"""Time, passed in wherever it is needed so that a test can turn it. Durations come from `monotonic` only."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def monotonic(self) -> float:
        """Seconds that never go back; for durations and deadlines."""

    def now(self) -> datetime:
        """Aware UTC wall clock; for display, schedules and recovery."""


class SystemClock:
    """The machine's own clocks."""

    def monotonic(self) -> float:
        """See Clock."""
        return time.monotonic()

    def now(self) -> datetime:
        """See Clock."""
        return datetime.now(UTC)
