"""The claim round: a plain function with a dirty flag, run by one thread at a time, kicked by whoever frees or asks."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from errors import GleandError

log = logging.getLogger(__name__)


class ClaimRound:
    """Runs `claim` whenever kicked, on a thread of its own, coalescing kicks."""

    def __init__(self, claim: Callable[[], int], drain: Callable[[], int]) -> None:
        self._claim = claim
        self._drain = drain
        self._dirty = threading.Event()
        self._stopped = False
        self._tick = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="claims", daemon=True)

    def start(self) -> None:
        """Start; once."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop; any number of times, also before start."""
        self._stopped = True
        self._dirty.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def kick(self) -> None:
        """Ask for a round; returns at once."""
        self._dirty.set()

    def tick_age(self) -> float:
        """Seconds since the loop last went round."""
        return time.monotonic() - self._tick

    def once(self) -> int:
        """One round: first what waits to be stored, then claims."""
        self._drain()
        return self._claim()

    def _run(self) -> None:
        while not self._stopped:
            self._dirty.wait(0.25)
            self._dirty.clear()
            self._tick = time.monotonic()
            if self._stopped:
                return
            try:
                self.once()
            except GleandError as exc:
                log.warning("claim_refused error=%s", exc)
            except Exception:  # noqa: BLE001 - top of the loop
                log.exception("claim_failed")
