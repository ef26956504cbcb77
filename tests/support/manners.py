"""A session with manners, and the daemon that it talks to, played."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from model import FetchLimits
from sources.http import Http
from sources.manners import Manners, NoTurn, Robots
from tests.support.sites import Progress


class FakeDaemon:
    """Gives every turn at once, and keeps what it was told."""

    def __init__(self, robots: dict[str, Robots] | None = None) -> None:
        #: What it knows of robots.txt.
        self.known = robots or {}
        #: Hosts that were asked for, and what the run was done with.
        self.asked: list[tuple[str, list[str]]] = []
        self.waits: list[tuple[str, float, str]] = []
        self.delays: dict[str, float] = {}
        #: Hosts for which there is no turn.
        self.busy: set[str] = set()
        #: After how long a turn may be taken (seconds).
        self.wait_s = 0.0

    def ask(self, host: str, done: list[str]) -> tuple[float, Robots | None]:
        self.asked.append((host, done))
        if host in self.busy:
            raise NoTurn(f"{host} is busy with other runs", retry_after_s=60)
        return self.wait_s, self.known.get(host)

    def told(self, host: str, wait_s: float, why: str) -> None:
        self.waits.append((host, wait_s, why))

    def robots(self, host: str, found: Robots, delay_s: float) -> None:
        self.known[host], self.delays[host] = found, delay_s


def manners(
    daemon: FakeDaemon, host: str = "", *, robots: Robots | None = None, agent: str = "gleand/1.0 (+mailto:a@b.example)"
) -> Manners:
    """Of a run that holds a turn on this host."""
    known = {} if robots is None else {host: robots}
    return Manners(daemon, host=host, robots=known, respect_robots=True, agent=agent, on_progress=Progress())


@contextmanager
def polite(
    daemon: FakeDaemon, host: str = "", *, robots: Robots | None = None, agent: str = "gleand/1.0", **limits: Any
) -> Iterator[Http]:
    """A session that asks a daemon for turns, and obeys robots.txt."""
    allowed = FetchLimits(**({"allow_private_networks": True, "read_timeout_s": 5.0, "user_agent": agent} | limits))
    own = manners(daemon, host, robots=robots, agent=agent)
    http = Http(allowed, deadline=time.monotonic() + 30, on_progress=Progress(), remember={}, manners=own)
    try:
        yield http
    finally:
        http.close()
