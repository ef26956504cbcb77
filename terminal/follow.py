"""Waiting for the daemon by its long poll: one status call, and the outcome of a run or a sweep.

A waiting client costs the daemon no thread; a daemon that has no place for a waiter answers at once, and then we
keep apart by ourselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from terminal.printing import View
from terminal.remote import Failed, Remote, Unavailable, Unreachable

#: Longest wait for one answer (seconds); the daemon takes at most 60.
WAIT_S = 30.0
#: Least time between two answers (seconds): a sweep that changes a hundred times a second is asked for twice.
GAP_S = 0.5
#: The same where the daemon did not wait, and between two tries to reach it.
RETRY_S = 1.0
#: How long `--wait` tries to reach a daemon that has gone, such as over a restart (seconds).
PATIENCE_S = 60.0
#: Beyond the wait, for the answer to come (seconds).
GRACE_S = 15.0


class Follower:
    """One status call, asked again and again; knows what it has seen."""

    def __init__(self, daemon: Remote, path: str, params: View | None = None) -> None:
        self._daemon, self._path, self._params = daemon, path, params or {}
        self._etag: str | None = None
        self._not_before = 0.0

    def ask(self, wait_s: float, sleep: Callable[[float], None] = time.sleep) -> View | None:
        """Give the status once it is another than before, or None after `wait_s`. The first comes at once.

        Raises:
            Failed: Nobody answers, or the answer is an error.
        """
        sleep(max(0.0, self._not_before - time.monotonic()))
        began = time.monotonic()
        wait_s = round(wait_s, 3) if self._etag else 0.0
        headers = {"If-None-Match": self._etag} if self._etag else {}
        params = self._params | ({"wait": wait_s} if wait_s else {})
        response = self._daemon.send(
            "GET", self._path, params=params, headers=headers, timeout_s=max(wait_s, 0.0) + GRACE_S
        )
        view = None if response.status_code == 304 else self._daemon.read(response)
        if view is not None and (not isinstance(view, dict) or "state" not in view):
            raise Failed(f"{self._daemon.url} answered without a state; is it gleand that listens there?")
        etag = response.headers.get("ETag")
        known = view is None or (etag is not None and etag == self._etag)
        self._etag = etag or self._etag
        ended = time.monotonic()
        self._not_before = ended + (RETRY_S if known and ended - began < wait_s / 2 else GAP_S)
        return None if known else view


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How what was asked for ended."""

    #: COMPLETED, or what else it came to.
    state: str
    #: In words, for anything but COMPLETED.
    error: str | None
    #: The status that told it.
    view: View


def run_outcome(daemon: Remote, target_id: int, *, after: int, timeout_s: float | None) -> Outcome:
    """Wait for the next run of a target to end.

    Args:
        after: Id of the last run that had ended before it was asked for; 0: there was none.
        timeout_s: How long to wait (seconds); None: as long as it takes.

    Raises:
        Failed: It took longer, or the daemon is gone.
    """

    def ended(view: View) -> Outcome | None:
        run = view.get("last_run") or {}
        if int(run.get("id") or 0) > after:
            error = run.get("error") or run.get("reason")
            return Outcome(state=str(run.get("state")), error=error, view=view)
        waits = view.get("requested_at") or view.get("phase") == "queued"
        if view["state"] == "RUNNING" or waits:
            return None
        return Outcome(state=view["state"], error="it was reset or paused before it could start", view=view)

    return _until(daemon, f"/api/targets/{target_id}/status", {}, ended, timeout_s)


def sweep_outcome(daemon: Remote, sweep_id: int, *, timeout_s: float | None) -> Outcome:
    """Wait for a sweep to end. Raises Failed: it took longer, or the daemon is gone."""

    def ended(view: View) -> Outcome | None:
        return None if view.get("running") else Outcome(state=view["state"], error=view.get("error"), view=view)

    return _until(daemon, "/api/scrape-status", {"sweep_id": sweep_id}, ended, timeout_s)


def _until(
    daemon: Remote, path: str, params: View, ended: Callable[[View], Outcome | None], timeout_s: float | None
) -> Outcome:
    follower, began = Follower(daemon, path, params), time.monotonic()
    end = None if timeout_s is None else began + timeout_s
    reached, state = began, "asked for"
    while True:
        left = WAIT_S if end is None else end - time.monotonic()
        try:
            view = follower.ask(min(WAIT_S, max(left, 0.0)))
        except (Unreachable, Unavailable):  # a restart, perhaps: what was asked for outlives it
            now = time.monotonic()
            if now - reached > PATIENCE_S or (end is not None and now >= end):
                raise
            time.sleep(RETRY_S)
            continue
        reached = time.monotonic()
        if view is not None:
            state = view.get("phase") or view["state"]
            outcome = ended(view)
            if outcome is not None:
                return outcome
        if end is not None and reached >= end:
            raise Failed(f"it is still {state} after {timeout_s:g} s", "it goes on without us; see 'gleand status'")
