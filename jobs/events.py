"""Events: transitions and refusals, as those who follow them get them. The journal is their one source.

An event's id is its journal row's id. There is one writer, so a higher id is never committed before a lower one: who
has seen an id has seen what came before it. Here: one event, and the ring of the newest that all followers share.
Not here: reading the journal (reading.py), and who follows (web/streams.py).
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jobs import views

#: What a ring holds at most (count, bytes); who fell behind further reads the journal.
RING_EVENTS = 2048
RING_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One transition or refusal, ready to send."""

    #: Of the journal row.
    id: int
    #: `transition` or `refusal`.
    name: str
    #: The journal row as clients see it: JSON in ASCII, on one line.
    data: bytes


def event(row: Any) -> Event:  # Any: a row of `journal`
    """Render a journal row."""
    name = "transition" if row.refused_by is None else "refusal"
    return Event(id=row.id, name=name, data=json.dumps(views.journal(row), separators=(",", ":")).encode())


class Ring:
    """The newest events, bounded: a follower that stands within it is served from memory.

    Not for several threads.
    """

    def __init__(self, *, start: int, most: int = RING_EVENTS, most_bytes: int = RING_BYTES) -> None:
        """`start`: the id after which it holds everything."""
        #: Everything after this id, up to `last`, is held.
        self.floor = start
        self.last = start
        self._most, self._most_bytes = most, most_bytes
        self._events: deque[Event] = deque()
        self._bytes = 0

    def add(self, events: Sequence[Event]) -> None:
        """Append what comes after `last`, ids ascending; the oldest go."""
        for one in events:
            self._events.append(one)
            self._bytes += len(one.data)
            self.last = one.id
        while len(self._events) > self._most or self._bytes > self._most_bytes:
            gone = self._events.popleft()
            self._bytes -= len(gone.data)
            self.floor = gone.id

    def after(self, last_id: int, limit: int) -> list[Event] | None:
        """Give what comes after an id, oldest first; None when the ring does not reach back that far."""
        if last_id < self.floor:
            return None
        newer = itertools.takewhile(lambda one: one.id > last_id, reversed(self._events))
        return list(newer)[::-1][:limit]
