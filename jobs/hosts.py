"""The politeness engine: who may ask which host, and when. The only place that knows, shared by all runs.

In memory, by the monotonic clock; what a host asked for, and how it wants to be asked, is in the table `hosts` too and
comes back at the start. A run holds a place on its target's own host from the claim on, and asks for every further
request: on its own host for the next page, or on another one that a redirect or a page led to. Between two requests of
a run others may have the host. A worker never waits here for another worker's answer, only for its turn.

Any thread may call; nothing here does I/O or blocks for longer than a lock.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from clock import Clock
from model import MAX_WAIT_S

#: Longest wait for a turn that a worker sits out (seconds); what takes longer ends the run, which comes again.
MAX_TURN_S = 60.0
#: Longest delay between two requests that is kept inside a run (seconds).
MAX_DELAY_S = 300.0
#: Longest crawl-delay that a host is granted (seconds).
MAX_CRAWL_DELAY_S = 3600.0
#: A host that nobody has asked for this long is forgotten (seconds).
FORGET_S = 600.0
#: Weight of the newest run in the time that runs take on a host.
_NEW = 0.3
DELAY = "delay between two requests"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """The answer to a run that wants to ask a host."""

    token: int
    host: str
    #: Whether it may, after `wait_s`.
    granted: bool
    #: Seconds; of a refusal: when it is worth to come again.
    wait_s: float
    #: Of a refusal: one sentence.
    why: str = ""


@dataclass(slots=True)
class _Host:
    #: Nobody asks before (monotonic).
    free_at: float
    why: str = DELAY
    crawl_delay_s: float = 0.0
    #: Tokens of runs that have a request here, or may.
    asking: set[int] = field(default_factory=set)
    #: Runs whose target is here: when each began (monotonic), by token.
    runs: dict[int, float] = field(default_factory=dict)
    #: Tokens that wait for a turn, first come first served.
    waiting: deque[int] = field(default_factory=deque)
    #: About how long a run takes here (seconds).
    takes_s: float = 0.0


class Hosts:
    """See the module."""

    def __init__(self, clock: Clock, settings: Callable[[], Any]) -> None:  # Any: config.Settings, or a test's own
        """`settings` gives those of the moment: host_delay_s, host_concurrency, workers, respect_robots."""
        self._clock, self._settings = clock, settings
        self._lock = threading.Lock()
        self._hosts: dict[str, _Host] = {}
        #: Hosts on which a run has a place, by its token.
        self._of: dict[int, set[str]] = {}
        #: Runs that wait for a turn: the host, by token.
        self._waits: dict[int, str] = {}
        self._swept_at = clock.monotonic()
        #: When hosts may be asked that runs are led to, and that were not asked since the start (monotonic).
        self._rested_at = -math.inf
        #: Called, outside the lock, with a turn that came up for a run that waited.
        self.on_turn: Callable[[Turn], None] = lambda turn: None

    # -- the claim -----------------------------------------------------------------------------------------------

    def wait_s(self, host: str, *, beside: int = 0) -> float:
        """How long until a run may begin on a host (seconds); 0: now; inf: when another has ended.

        Args:
            beside: So many others are about to begin there.
        """
        with self._lock:
            st, found = self._settings(), self._hosts.get(host)
            if found is None:
                return 0.0 if not beside else math.inf if beside >= st.host_concurrency else float(st.host_delay_s)
            if max(len(found.runs), len(found.asking)) + beside >= st.host_concurrency or found.waiting:
                return math.inf
            return max(0.0, found.free_at - self._clock.monotonic(), self._delay_s(found) if beside else 0.0)

    def pace_s(self, host: str) -> float:
        """About how far apart runs can begin on a host (seconds)."""
        with self._lock:
            st, found = self._settings(), self._hosts.get(host)
            if found is None:
                return float(st.host_delay_s)
            return float(max(self._delay_s(found), (found.takes_s + self._delay_s(found)) / st.host_concurrency))

    def begin(self, host: str, token: int) -> bool:
        """A run is claimed: no other begins on its host.

        Returns:
            Whether it has the first request there; False when somebody else came first since it was looked at.
        """
        with self._lock:
            found, now = self._host(host), self._clock.monotonic()
            found.runs[token] = now
            self._of.setdefault(token, set()).add(host)
            is_free = len(found.asking) < self._settings().host_concurrency and not found.waiting
            if is_free and found.free_at <= now:
                self._give(host, found, token, wait_s=0.0)
                return True
            return False

    def gone(self, token: int) -> None:
        """A run is over and its processes are gone, or it was never handed over."""
        turns: list[Turn] = []
        with self._lock:
            self._stop_waiting(token)
            for host in self._of.pop(token, ()):
                found = self._hosts.get(host)
                if found is None:  # forgotten: the run has long been done with it
                    continue
                began = found.runs.pop(token, None)
                if began is not None:
                    found.takes_s += _NEW * (self._clock.monotonic() - began - found.takes_s)
                turns += self._leave(host, found, token)
            self._sweep()
        self._tell(turns)

    # -- inside a run --------------------------------------------------------------------------------------------

    def ask(self, token: int, host: str, *, done: Collection[str]) -> Turn | None:
        """A run wants to ask a host, and is done with its requests to others (or to the same).

        Returns:
            The answer; None: it waits for others, and `on_turn` gives the answer.
        """
        turns: list[Turn] = []
        with self._lock:
            for name in done:
                if name in self._hosts:
                    turns += self._leave(name, self._hosts[name], token)
            answer = self._answer(token, host)
        self._tell(turns)
        return answer

    def give_up(self, token: int) -> None:
        """A run does not wait for its turn any more."""
        with self._lock:
            self._stop_waiting(token)

    # -- what hosts want -----------------------------------------------------------------------------------------

    def block(self, host: str, seconds: float, why: str) -> None:
        """Nobody asks a host for so long; never shortens a longer wait."""
        with self._lock:
            found, until = self._host(host), self._clock.monotonic() + seconds
            if until > found.free_at:
                found.free_at, found.why = until, why

    def crawl_delay(self, host: str, seconds: float) -> None:
        """A host wants at least so long between two requests."""
        with self._lock:
            self._host(host).crawl_delay_s = min(max(0.0, seconds), MAX_CRAWL_DELAY_S)

    def load(self, rows: Iterable[Any], *, now: datetime) -> None:  # Any: rows of `hosts`
        """Take over what was kept: waits that are not over, and crawl-delays.

        When hosts were asked last that runs are only led to is not kept: they rest from now.
        """
        with self._lock:
            self._rested_at = self._clock.monotonic() + float(self._settings().host_delay_s)
        for row in rows:
            if row.crawl_delay_s:
                self.crawl_delay(row.host, row.crawl_delay_s)
            wait_s = (row.next_allowed_at - now).total_seconds()
            if 0 < wait_s <= MAX_WAIT_S:  # a longer one is of a clock that was set back
                self.block(row.host, wait_s, row.reason)

    def rest(self, host: str, *, ago_s: float) -> None:
        """A host was asked so long ago, before this start (seconds)."""
        with self._lock:
            found = self._host(host)
            until = self._clock.monotonic() + self._delay_s(found) - ago_s
            if until > found.free_at:
                found.free_at, found.why = until, DELAY

    def view(self) -> list[dict[str, Any]]:  # Any: the fields of a view
        """Hosts that make us wait, or have runs, by name: times are wall clock."""
        with self._lock:
            mono, now = self._clock.monotonic(), self._clock.now()
            return [
                {
                    "host": name,
                    "next_allowed_at": now + timedelta(seconds=max(0.0, found.free_at - mono)),
                    "reason": found.why if found.free_at > mono else "a run is in progress",
                    "running": len(found.runs),
                    "waiting": len(found.waiting),
                    "delay_s": self._delay_s(found),
                }
                for name, found in sorted(self._hosts.items())
                if found.free_at > mono or found.asking or found.runs
            ]

    # -- under the lock ------------------------------------------------------------------------------------------

    def _host(self, name: str) -> _Host:
        return self._hosts.setdefault(name, _Host(free_at=-math.inf))

    def _delay_s(self, found: _Host) -> float:
        st = self._settings()
        return max(float(st.host_delay_s), found.crawl_delay_s if st.respect_robots else 0.0)

    def _answer(self, token: int, host: str) -> Turn | None:
        """A turn now, a refusal, or a place in the queue."""
        found = self._hosts.setdefault(host, _Host(free_at=self._rested_at))
        if token in found.asking or (len(found.asking) < self._settings().host_concurrency and not found.waiting):
            return self._turn(host, found, token)
        if len(self._waits) >= max(1, self._settings().workers // 4):  # the other workers are for other hosts
            why = f"{host} is busy with other runs"
            return Turn(token=token, host=host, granted=False, wait_s=MAX_TURN_S, why=why)
        found.waiting.append(token)
        self._waits[token] = host
        return None

    def _turn(self, name: str, found: _Host, token: int) -> Turn:
        """It may ask when the host's wait is over, unless that takes too long."""
        wait = max(0.0, found.free_at - self._clock.monotonic())
        if wait > (MAX_DELAY_S if found.why == DELAY else MAX_TURN_S):
            why = f"{name} is to be left alone: {found.why}"
            return Turn(token=token, host=name, granted=False, wait_s=wait, why=why)
        self._give(name, found, token, wait_s=wait)
        return Turn(token=token, host=name, granted=True, wait_s=wait)

    def _give(self, name: str, found: _Host, token: int, *, wait_s: float) -> None:
        """It asks in `wait_s` seconds; whoever else may ask beside it, not before the delay is over."""
        found.asking.add(token)
        self._of.setdefault(token, set()).add(name)
        self._delay(found, wait_s)

    def _delay(self, found: _Host, wait_s: float = 0.0) -> None:
        until = self._clock.monotonic() + wait_s + self._delay_s(found)
        if until > found.free_at:
            found.free_at, found.why = until, DELAY

    def _leave(self, name: str, found: _Host, token: int) -> list[Turn]:
        """A run has no request here any more: the delay begins, and who waits is next."""
        if token not in found.asking:
            return []
        found.asking.discard(token)
        self._delay(found)
        turns = []
        while found.waiting and len(found.asking) < self._settings().host_concurrency:
            following = found.waiting.popleft()
            del self._waits[following]
            turns.append(self._turn(name, found, following))
        return turns

    def _stop_waiting(self, token: int) -> None:
        host = self._waits.pop(token, None)
        if host is not None:
            self._hosts[host].waiting.remove(token)

    def _sweep(self) -> None:
        """Forget hosts with which there is nothing going on, once in a while."""
        now = self._clock.monotonic()
        if now - self._swept_at < FORGET_S:
            return
        self._swept_at = now
        for name, found in list(self._hosts.items()):
            idle = not (found.asking or found.runs or found.waiting or found.crawl_delay_s)
            if idle and found.free_at < now - FORGET_S:
                del self._hosts[name]

    def _tell(self, turns: Iterable[Turn]) -> None:
        for turn in turns:
            self.on_turn(turn)
