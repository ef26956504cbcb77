"""Whether it is our own network that is down: nobody answers, at several hosts in a row, and everybody did before.

While it is, a run that reached nobody is not charged to its source. Any answer ends it.
"""

from __future__ import annotations

import threading

from clock import Clock

#: So many different hosts, and no answer of anybody in between, is our own fault (count).
HOSTS = 3
#: Failures that are older are not counted together with newer ones (seconds).
WINDOW_S = 300.0
#: How soon a target that reached nobody is tried again while the network is down (seconds).
RETRY_S = 60.0


class Network:
    """What runs say of the network; any thread may call."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._silent: dict[str, float] = {}
        self._down_since: float | None = None

    def answered(self) -> None:
        """A server answered."""
        if self._silent:
            with self._lock:
                self._silent.clear()
                self._down_since = None

    def unreachable(self, host: str) -> None:
        """A run failed because nobody answered at this host."""
        with self._lock:
            now = self._clock.monotonic()
            self._silent[host] = now
            if self._down_since is None:
                self._silent = {name: at for name, at in self._silent.items() if now - at <= WINDOW_S}
                if len(self._silent) >= HOSTS:
                    self._down_since = now

    @property
    def is_down(self) -> bool:
        """Whether nobody can be reached."""
        return self._down_since is not None
