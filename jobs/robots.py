"""What robots.txt of hosts say, for runs that are led there; the table `hosts` has it too, and is what a start reads.

In memory, within bounds. A run that begins on its own host gets it from the table, with its claim.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from clock import Clock

#: Most hosts that are kept (count), and their rules together (characters).
HOSTS, CHARS = 200, 8 * 1024 * 1024
#: What was read so long after now is of a clock that was set back, and is to be read anew (seconds).
AHEAD_S = 60.0


class KnownRobots:
    """See the module. Called on the pool's thread, and before it starts."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        #: When each was read (monotonic), its status and its rules; the newest last.
        self._known: dict[str, tuple[float, int, str]] = {}
        self._chars = 0

    def keep(self, host: str, status: int, text: str, *, age_s: float) -> None:
        """Keep what was read so long ago (seconds)."""
        self._forget(host)
        self._known[host] = (self._clock.monotonic() - age_s, status, text)
        self._chars += len(text)
        while len(self._known) > HOSTS or self._chars > CHARS:
            self._forget(next(iter(self._known)))

    def load(self, rows: Iterable[Any], *, now: datetime) -> None:  # Any: rows of `hosts`, the newest first
        """Take over what was kept."""
        for row in reversed(list(rows)):
            found = known(row, now)
            if found is not None:
                self.keep(row.host, found["status"], found["text"], age_s=found["age_s"])

    def of(self, host: str) -> dict[str, Any] | None:  # Any: JSON values
        """What is known of a host's: status, text, age_s."""
        found = self._known.get(host)
        if found is None:
            return None
        return {"status": found[1], "text": found[2], "age_s": self._clock.monotonic() - found[0]}

    def _forget(self, host: str) -> None:
        found = self._known.pop(host, None)
        if found is not None:
            self._chars -= len(found[2])


def known(row: Any, now: datetime) -> dict[str, Any] | None:  # Any: a row of `hosts`; JSON values
    """What a row says of a robots.txt: status, text, age_s; None when it is of a time to come."""
    age_s = (now - row.robots_at).total_seconds()
    if age_s < -AHEAD_S:
        return None
    return {"status": row.robots_status, "text": row.robots_text or "", "age_s": max(0.0, age_s)}
