"""Watches hanging targets from outside: when a client sees each of them end, and when nothing of it is alive."""

from __future__ import annotations

import http.client
import json
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tests.support.daemon import Daemon, families
from tests.support.waiting import wait_until

#: Between two looks (seconds): what is seen late by no fault of the daemon's.
LOOK_S = 0.03


@dataclass(slots=True)
class Seen:
    """What was seen of one target; instants are wall-clock seconds."""

    target_id: int
    leader: int
    deadline: float = 0.0
    #: The first status that was not RUNNING, and when.
    status: dict[str, Any] | None = None
    ended: float = 0.0
    #: When none of its processes was alive.
    gone: float = 0.0
    #: Processes alive after the status said `worker: none`.
    survivors: set[int] | None = None

    @property
    def late_s(self) -> float:
        """From the deadline to the client that sees it."""
        return self.ended - self.deadline

    @property
    def left_s(self) -> float:
        """From the end as seen to nothing alive."""
        return self.gone - self.ended


class Watch:
    """A thread that looks at every target until all is over; `with Watch(daemon) as watch: watch.add(...)`."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._seen: dict[int, Seen] = {}
        self._stopped = threading.Event()
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watch")

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def add(self, target_id: int, leader: int) -> None:
        """Watch a target that runs in the worker with this pid."""
        self._seen[target_id] = Seen(target_id=target_id, leader=leader)

    def wait(self, within_s: float) -> dict[int, Seen]:
        """Wait until all have ended and are gone; what was seen, by target."""

        def over() -> bool:
            assert self._fault is None, self._fault
            return all(seen.status and seen.gone and seen.survivors is not None for seen in self._seen.values())

        wait_until(over, within_s=within_s, every_s=0.05)
        return self._seen

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._daemon.port, timeout=5)
        try:
            while not self._stopped.wait(LOOK_S):
                looked = list(self._seen.values())
                for seen in looked:
                    self._ask(connection, seen)
                if any(seen.status and not seen.gone for seen in looked):
                    alive, now = families(), time.time()
                    for seen in looked:
                        if seen.status and not seen.gone and seen.leader not in alive:
                            seen.gone = now
        except BaseException as exc:  # noqa: BLE001 - told to whoever waits
            self._fault = exc
        finally:
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, seen: Seen) -> None:
        if seen.status is not None and seen.survivors is not None:
            return
        connection.request("GET", f"/api/targets/{seen.target_id}/status")
        status = json.loads(connection.getresponse().read())
        now = time.time()
        if seen.status is None and status["state"] == "RUNNING":
            seen.deadline = datetime.fromisoformat(status["deadline_at"]).timestamp()
        elif seen.status is None and seen.deadline:
            seen.status, seen.ended = status, now
        if seen.status is not None and status["worker"] == "none":
            seen.survivors = families().get(seen.leader, set())
