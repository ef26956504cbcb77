"""Whose turn it is: which of the waiting targets a claim takes, and until when it does not look at the others again.

Waiting targets are looked at in order: asked for alone, by a refresh-all, by schedule; in each the oldest first. One
whose host makes it wait is passed over. The first two of a host stay in sight, since a run may end sooner than
expected; the others are deferred, each to about when its host will have come to it. So a claim costs what it takes,
and not what waits. Pure but for the statements: no run is started here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from jobs.core import Core
from store import queries
from store.queries import Values
from store.writer import Tx

#: Waiting targets looked at beyond those that are wanted, at a time, and in one round (count).
LOOK_AHEAD, LOOK_MOST = 30, 1000
#: Waiting targets of a line that stay in sight while its host is busy, or will be free within SOON_S (count; seconds).
FRONT, SOON_S = 2, 1.0
#: How long a target is deferred while nothing is known of its host's pace, and the longest at once (seconds).
DEFER_UNKNOWN_S, DEFER_MOST_S = 0.1, 300.0
#: One that was deferred before and came too soon is deferred for no longer, if the line of such ones permits (seconds).
AGAIN_S = 60.0
#: Lines whose ends are remembered before old ones are forgotten (count).
LINES = 10_000
#: A line: the waiting targets of one lane before one host.
Line = tuple[str, int]


@dataclass(slots=True)
class _Look:
    """One round."""

    now: datetime
    mono: float
    most: int
    #: Targets that are not to be looked at (again).
    skip: set[int]
    chosen: list[int] = field(default_factory=list)
    #: How many of those chosen begin on a host.
    taken: Counter[str] = field(default_factory=Counter)
    #: How many of a line stay in sight.
    front: Counter[Line] = field(default_factory=Counter)
    looked: int = 0


class Choice:
    """Keeps from round to round how long the lines are."""

    def __init__(self, core: Core) -> None:
        self._core = core
        #: Whether the last round stopped before it had looked at all that waits.
        self.more = False
        #: When a line ends, and the line of those that came too soon (monotonic).
        self._ends: dict[Line, float] = {}
        self._ends_again: dict[Line, float] = {}
        #: When the first of the hosts that were passed over is free (monotonic).
        self._free_at = math.inf

    def take_wait_s(self) -> float:
        """How long until a host is free that the last round passed over (seconds); inf: none is, or it was taken."""
        at, self._free_at = self._free_at, math.inf
        return max(0.0, at - self._core.clock.monotonic())

    def forget(self) -> None:
        """Nothing is deferred any more."""
        self._ends, self._ends_again = {}, {}

    def choose(self, tx: Tx, most: int, *, now: datetime, skip: set[int]) -> list[int]:
        """Ids of targets that may start, best first; defers what has to wait.

        Args:
            most: How many are wanted.
            skip: Targets that cannot be started now.
        """
        look = _Look(now=now, mono=self._core.clock.monotonic(), most=most, skip=set(skip))
        self.more = False
        while len(look.chosen) < most:
            is_over = look.looked >= LOOK_MOST  # the rest in the next round: other writes must not wait for long
            limit = 1 if is_over else most - len(look.chosen) + LOOK_AHEAD
            rows = queries.waiting(tx.conn, now=now, skip=look.skip, limit=limit)
            self.more = is_over and bool(rows)
            if is_over or not rows:
                break
            deferred = self._look_at(look, rows)
            if deferred:
                tx.conn.execute(queries.DEFER, deferred)
        for ends in (self._ends, self._ends_again):
            if len(ends) > LINES:
                for line in [line for line, at in ends.items() if at <= look.mono]:
                    del ends[line]
        return look.chosen

    def _look_at(self, look: _Look, rows: Sequence[Any]) -> list[Values]:  # Any: rows of queries.waiting
        """Choose among these; what is to be deferred, and until when."""
        deferred: list[Values] = []
        passed: dict[Line, list[Any]] = {}
        for row in sorted(rows, key=lambda row: (row.lane, row.since)):  # who was deferred too long is first
            if len(look.chosen) == look.most:
                break
            look.looked += 1
            look.skip.add(row.id)
            if row.paused_until is not None and row.paused_until > look.now and not row.request_forced:
                deferred.append({"b_id": row.id, "b_until": row.paused_until})
            elif not row.host or is_fresh(row, look.now):
                self._take(look, row.id)
            elif self._core.hosts.wait_s(row.host, beside=look.taken[row.host]) > 0:
                passed.setdefault((row.host, row.lane), []).append(row)
            elif self._take(look, row.id):
                look.taken[row.host] += 1
        for line, waiting in passed.items():
            deferred += self._defer(look, line, waiting)
        return deferred

    def _take(self, look: _Look, target_id: int) -> bool:
        """Choose a target, unless its old worker is still stopping."""
        gone = self._core.worker_of(target_id) == "none"
        if gone:
            look.chosen.append(target_id)
        return gone

    def _defer(self, look: _Look, line: Line, rows: Sequence[Any]) -> list[Values]:  # Any: rows of queries.waiting
        """Put off what waits in a line: a new one behind all others, one that came too soon for a little longer."""
        hosts, (host, _) = self._core.hosts, line
        wait, pace = hosts.wait_s(host, beside=look.taken[host]), hosts.pace_s(host)
        self._free_at = min(self._free_at, look.mono + wait)
        begins = look.mono + ((pace or DEFER_UNKNOWN_S) if wait == math.inf else wait)
        keeps = (wait == math.inf or wait <= SOON_S) and look.looked <= LOOK_MOST // 2
        most = look.mono + DEFER_MOST_S
        end, again = max(self._ends.get(line, 0.0), begins), max(self._ends_again.get(line, 0.0), begins)
        deferred: list[Values] = []
        for row in rows:
            if keeps and look.front[line] < FRONT:
                look.front[line] += 1
                continue
            if row.deferred_until is not None and again <= look.mono + AGAIN_S:
                until, again = again, again + pace
            else:
                until, end = min(end, most), min(end + pace, most)
            deferred.append({"b_id": row.id, "b_until": look.now + timedelta(seconds=until - look.mono)})
        self._ends[line], self._ends_again[line] = end, again
        return deferred


def is_fresh(row: Any, now: datetime) -> bool:  # Any: a row of `targets`
    """Whether the site has said that there is nothing new yet: a run asks for nothing, and needs no turn."""
    return row.fresh_until is not None and row.fresh_until > now and not row.request_forced
