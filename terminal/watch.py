"""What `status --watch` sees, round by round; how it looks is screen.py's.

A round is one long poll of the status, and short calls for the runs under way, which the daemon answers from memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from terminal.follow import RETRY_S, WAIT_S, Follower
from terminal.printing import View
from terminal.remote import NotFound, Remote, Unavailable, Unreachable

#: The wait while runs are under way (seconds): their progress is no change of the whole.
PROGRESS_S = 2.0
#: Endings that stay in sight; those of one round are all shown.
ENDED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What is known after a round."""

    url: str
    #: By the daemon's clock.
    at: datetime
    #: Why the daemon cannot be asked now; None: it answered.
    problem: str | None
    #: The daemon's status, or the target's.
    status: View
    #: Status of the runs under way, oldest first.
    runs: tuple[View, ...] = ()
    #: Runs under way that are not among them.
    hidden: int = 0
    #: Status of targets whose run has ended, the last one first.
    ended: tuple[View, ...] = ()


class Watch:
    """Follows the daemon, or one target, over its restarts."""

    def __init__(
        self,
        daemon: Remote,
        target_id: int | None = None,
        *,
        most: Callable[[], int] = lambda: 20,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`most`: how many runs are shown."""
        self._daemon, self._target_id, self._most, self._sleep = daemon, target_id, most, sleep
        path = "/api/scrape-status" if target_id is None else f"/api/targets/{target_id}/status"
        self._follower = Follower(daemon, path)
        self._status: View = {}
        self._problem: str | None = None
        self._followed: dict[int, Follower] = {}
        self._runs: dict[int, View] = {}
        self._ended: list[View] = []

    def round(self) -> Scene:
        """Wait for a change, or a little; gives what is known then.

        Raises:
            Failed: The first answer is an error, or a later one is that time will not mend.
        """
        again = self._problem is not None
        wait_s = 0.0 if again else PROGRESS_S if self._runs else WAIT_S
        try:
            status = self._follower.ask(wait_s, self._sleep)
            self._status = status or self._status
            if self._target_id is None:
                self._look_at_runs(anew=again or status is not None)
            self._problem = None
        except (Unreachable, Unavailable) as exc:
            if not self._status:
                raise
            self._problem = str(exc)
            self._sleep(RETRY_S)
        return self._scene()

    def _scene(self) -> Scene:
        runs = sorted(self._runs.values(), key=lambda view: (view.get("started_at") or "", view.get("id") or 0))
        counted = int((self._status.get("counts") or {}).get("RUNNING") or 0)
        return Scene(
            url=self._daemon.url,
            at=self._daemon.now(),
            problem=self._problem,
            status=self._status,
            runs=tuple(runs),
            hidden=max(0, counted - len(runs)) if self._target_id is None else 0,
            ended=tuple(reversed(self._ended)),
        )

    def _look_at_runs(self, *, anew: bool) -> None:
        if anew:
            params: View = {"state": "RUNNING", "limit": max(1, self._most())}
            rows = self._daemon.get("/api/targets", "targets", **params)["targets"]
            for target_id in [int(row["id"]) for row in rows]:
                path = f"/api/targets/{target_id}/status"
                self._followed.setdefault(target_id, Follower(self._daemon, path))
        old, self._ended = self._ended[-ENDED:], []
        for target_id, follower in list(self._followed.items()):
            try:
                view = follower.ask(0.0, lambda _: None)  # the round itself keeps us apart
            except NotFound:
                view = {"state": "removed"}
            if view is None:
                continue
            if view["state"] == "RUNNING":
                self._runs[target_id] = view
                continue
            gone = self._runs.pop(target_id, None)
            del self._followed[target_id]
            if gone is not None:
                self._ended.append(gone | view)
        again = self._runs.keys() | {view["id"] for view in self._ended}
        self._ended = [view for view in old if view["id"] not in again] + self._ended
