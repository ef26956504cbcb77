"""How a run keeps to what hosts want: it asks the daemon for each turn, waits for it, and obeys robots.txt.

The daemon knows when a host may be asked (jobs/hosts.py); a run begins with a turn on its target's own host.
Source: RFC 9309.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit, urlunsplit

from errors import ScrapeFailed
from sources.urls import host_of

if TYPE_CHECKING:
    from protego import Protego

#: How long a robots.txt is taken as still right (seconds).
ROBOTS_FRESH_S = 86400.0
#: How long to wait before a robots.txt that could not be read is asked for again, unless it says (seconds).
ROBOTS_RETRY_S = 300.0
#: How often a run that waits says so (seconds).
_SAY_S = 2.0
#: Fetches a robots.txt: its status and its text.
Fetch = Callable[[str], tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Robots:
    """A robots.txt as it was read last."""

    #: 2xx: there is one; 4xx: there is none. One that could not be read is not kept.
    status: int
    text: str = ""
    #: Since then (seconds).
    age_s: float = 0.0


class RobotsRefuse(ScrapeFailed):
    """robots.txt does not allow the address; `respect_robots` would have to be off."""


class Daemon(Protocol):
    """The daemon, as a run talks to it."""

    def ask(self, host: str, done: list[str]) -> tuple[float, Robots | None]:
        """Wait for a turn on a host. Returns after how long it may be taken (seconds), and what is known of robots.txt.

        Raises ScrapeFailed when there is none soon.
        """

    def told(self, host: str, wait_s: float, why: str) -> None:
        """A host asked to be left alone."""

    def robots(self, host: str, status: int, text: str, delay_s: float) -> None:
        """A robots.txt was read."""


class Manners:
    """One run's. Not for several threads at once."""

    def __init__(
        self,
        daemon: Daemon,
        *,
        host: str,
        robots: Robots | None,
        respect_robots: bool,
        agent: str,
        on_progress: Callable[[str], None],
    ) -> None:
        """`host` is the one the run holds a turn on; of the User-Agent `agent`, robots.txt names the first word."""
        self._daemon, self._on_progress = daemon, on_progress
        self._held, self._spent = host, not host
        self._respect, self._agent = respect_robots, agent.partition("/")[0].strip()
        self._robots: dict[str, Robots] = {host: robots} if robots is not None else {}

    def wait_for_turn(self, url: str, fetch: Fetch | None) -> None:
        """Return when an address may be asked for.

        Args:
            fetch: Reads a robots.txt that is not known; None: this address is not for robots.txt to allow.

        Raises:
            ScrapeFailed: There is no turn soon; robots.txt cannot be read; it says no.
        """
        host = host_of(url)
        self._turn(host)
        if fetch is None or not self._respect:
            return
        known = self._robots.get(host)
        is_new = known is None or known.age_s > ROBOTS_FRESH_S
        if known is None or is_new:
            known = self._read(host, url, fetch, known)
        if 200 <= known.status < 300 and not _parsed(known.text).can_fetch(url, self._agent):
            raise RobotsRefuse(f"the robots.txt of {host} does not allow this address")
        if is_new:
            self._turn(host)

    def told(self, host: str, wait_s: float, why: str) -> None:
        """A host asked to be left alone."""
        self._daemon.told(host, wait_s, why)

    def _turn(self, host: str) -> None:
        if host == self._held and not self._spent:
            self._spent = True
            return
        self._on_progress(f"waiting for a turn at {host}")
        wait_s, robots = self._daemon.ask(host, [self._held] if self._held else [])
        if robots is not None:
            self._robots.setdefault(host, robots)
        self._held, self._spent = host, True
        until = time.monotonic() + wait_s
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _SAY_S))
            self._on_progress(f"waiting for a turn at {host}")

    def _read(self, host: str, url: str, fetch: Fetch, old: Robots | None) -> Robots:
        """Fetch it anew; one that cannot be read leaves the old one in force, or nothing may be fetched."""
        parts = urlsplit(url)
        status, text = fetch(urlunsplit((parts.scheme, parts.netloc, "/robots.txt", "", "")))
        if status < 500 and status != 429:
            found = Robots(status=status, text=text)
            self._daemon.robots(host, status, text, self._delay_s(found))
        elif old is not None:
            found = Robots(status=old.status, text=old.text)
        else:
            why = f"the robots.txt of {host} cannot be read (status {status}), so nothing may be fetched there"
            raise ScrapeFailed(why, retry_after_s=ROBOTS_RETRY_S)
        self._robots[host] = found
        return found

    def _delay_s(self, robots: Robots) -> float:
        """The crawl-delay for us, or what the request-rate comes to (seconds)."""
        if not 200 <= robots.status < 300:
            return 0.0
        rules = _parsed(robots.text)
        rate = rules.request_rate(self._agent)
        by_rate = rate.seconds / rate.requests if rate is not None and rate.requests else 0.0
        return max(float(rules.crawl_delay(self._agent) or 0.0), float(by_rate))


@lru_cache(maxsize=64)
def _parsed(text: str) -> Protego:
    from protego import Protego

    return Protego.parse(text)
