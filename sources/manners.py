"""How a run keeps to what hosts want: it asks the daemon for each turn, waits for it, and obeys robots.txt.

The daemon knows when a host may be asked (jobs/hosts.py); a run begins with a turn on its target's own host.
Source: RFC 9309.
"""

from __future__ import annotations

import math
import re
import string
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from errors import ScrapeFailed
from model import MAX_ROBOTS_CHARS
from sources.urls import host_of

if TYPE_CHECKING:
    from protego import Protego

#: How long a robots.txt is taken as still right (seconds).
ROBOTS_FRESH_S = 86400.0
#: How long to wait before a robots.txt that could not be read is asked for again, unless it says (seconds).
ROBOTS_RETRY_S = 300.0
#: A turn is of no use to a run that has less time left after it (seconds).
LEAST_S = 0.5
#: How often a run that waits says so (seconds).
_SAY_S = 0.5
#: Lines of a robots.txt that say who may fetch what, and how often; some as they are often misspelt.
_RULE = re.compile(r"(user[- ]?agent|allow|d[a-z]{1,6}al+[oa]w|crawl[- ]delay|request[- ]rate)(?![a-z])", re.IGNORECASE)
_AS_IT_IS = "".join(c for c in string.printable if c.isprintable() and c not in '"\\')
#: Fetches a robots.txt: its status and its text.
Fetch = Callable[[str], tuple[int, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Robots:
    """What is known of a host's robots.txt."""

    #: 2xx: there is one; 5xx, 429, 0: it could not be read; any other: there is none.
    status: int
    #: Its rules, or why it could not be read where no status says that.
    text: str = ""
    #: Since then (seconds).
    age_s: float = 0.0

    @property
    def is_unreadable(self) -> bool:
        """Whether nothing may be fetched, since nobody knows what may."""
        return self.status >= 500 or self.status in (0, 429)

    @property
    def is_stale(self) -> bool:
        """Whether it is to be read anew."""
        return self.age_s > ROBOTS_FRESH_S


class NoTurn(ScrapeFailed):
    """There is no turn soon: the run comes again, and its target is not to blame."""


class RobotsRefuse(ScrapeFailed):
    """robots.txt does not allow the address; `respect_robots` would have to be off."""


class RobotsUnreadable(ScrapeFailed):
    """What robots.txt allows is not known, so nothing is fetched; it is asked for again later."""


class NoRobots(Exception):
    """Raised by a Fetch: there was an answer, and it cannot be read; the message says why."""


class Daemon(Protocol):
    """The daemon, as a run talks to it."""

    def ask(self, host: str, done: list[str]) -> tuple[float, Robots | None]:
        """Wait for a turn on a host. Returns after how long it may be taken (seconds), and what is known of robots.txt.

        Raises NoTurn when there is none soon.
        """

    def told(self, host: str, wait_s: float, why: str) -> None:
        """A host asked to be left alone."""

    def robots(self, host: str, found: Robots, delay_s: float) -> None:
        """A robots.txt was read, or could not be."""


class Manners:
    """One run's. Not for several threads at once."""

    def __init__(
        self,
        daemon: Daemon,
        *,
        host: str,
        robots: Mapping[str, Robots],
        respect_robots: bool,
        agent: str,
        on_progress: Callable[[str], None],
        deadline: float = math.inf,
    ) -> None:
        """Nothing is asked for yet.

        Args:
            host: The one that the run holds a turn on; empty: it holds none.
            robots: What is known, by host.
            agent: The User-Agent, of which robots.txt names the first word.
            deadline: A reading of the monotonic clock: a turn that comes after it is not waited for.
        """
        self._daemon, self._on_progress, self._deadline = daemon, on_progress, deadline
        self._held, self._spent = host, not host
        self._respect, self._agent = respect_robots, product(agent)
        self._robots = dict(robots)

    def wait_for_turn(self, url: str, fetch: Fetch | None) -> None:
        """Return when an address may be asked for.

        Args:
            fetch: Reads a robots.txt that is not known; None: this address is not for robots.txt to allow.

        Raises:
            ScrapeFailed: There is no turn soon; robots.txt cannot be read; it says no.
        """
        host = host_of(url)
        if fetch is None or not self._respect:
            self._turn(host)
            return
        self._check(host, url)  # what is known to be refused needs no turn
        self._turn(host)
        if not self._check(host, url):
            self._read(host, url, fetch)
            self._check(host, url)
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
            self._robots[host] = robots
        self._held, self._spent = host, True
        until = time.monotonic() + wait_s
        if until > self._deadline - LEAST_S:
            raise NoTurn(f"the next turn at {host} comes too late for this run", retry_after_s=wait_s)
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _SAY_S))
            self._on_progress(f"waiting for a turn at {host}")

    def _check(self, host: str, url: str) -> bool:
        """Whether it is known that an address may be fetched; False: robots.txt is to be read. Raises ScrapeFailed."""
        known = self._robots.get(host)
        if known is None or known.is_stale:
            return False
        if known.is_unreadable:
            why = f"status {known.status}" if known.status else known.text
            text = f"the robots.txt of {host} cannot be read ({why}), so nothing may be fetched there"
            raise RobotsUnreadable(text, retry_after_s=max(0.0, ROBOTS_FRESH_S - known.age_s))
        if 200 <= known.status < 300 and not _parsed(known.text).can_fetch(url, self._agent):
            raise RobotsRefuse(f"the robots.txt of {host} does not allow this address")
        return True

    def _read(self, host: str, url: str, fetch: Fetch) -> None:
        """Fetch it anew; one that cannot be read leaves the old one in force. Raises ScrapeFailed: nobody answers."""
        parts = urlsplit(url)
        try:
            status, text = fetch(urlunsplit((parts.scheme, parts.netloc, "/robots.txt", "", "")))
            found = Robots(status=status, text=rules(text))
        except NoRobots as exc:
            found = Robots(status=0, text=str(exc)[:200])
        if found.is_unreadable:  # known for as long as it is not to be asked for again
            old = self._robots.get(host)
            found = replace(old if old and not old.is_unreadable else found, age_s=ROBOTS_FRESH_S - ROBOTS_RETRY_S)
        self._robots[host] = found
        self._daemon.robots(host, found, self._delay_s(found))

    def _delay_s(self, robots: Robots) -> float:
        """The crawl-delay for us, or what the request-rate comes to (seconds)."""
        if not 200 <= robots.status < 300:
            return 0.0
        found = _parsed(robots.text)
        rate = found.request_rate(self._agent)
        by_rate = rate.seconds / rate.requests if rate is not None and rate.requests else 0.0
        return max(float(found.crawl_delay(self._agent) or 0.0), float(by_rate))


def product(agent: str) -> str:
    """The name that a robots.txt knows us by: the first word of the User-Agent."""
    found = re.match(r"[^\s/]+", agent.strip())
    return found[0] if found else ""


def rules(text: str) -> str:
    """The lines of a robots.txt that are rules, in ASCII; of very many, the first ones."""
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    kept = "\n".join(quote(line, safe=_AS_IT_IS) for line in lines if _RULE.match(line))
    if len(kept) > MAX_ROBOTS_CHARS:
        kept = kept[:MAX_ROBOTS_CHARS].rpartition("\n")[0]  # half a rule would be another one
    return kept


@lru_cache(maxsize=64)
def _parsed(text: str) -> Protego:
    from protego import Protego

    return Protego.parse(text)
