"""Many targets before few hosts: put into the database at once, and what a claim looks at counted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import event, insert

from jobs import choice
from store import queries
from store import schema as s
from tests.support.fake_pool import House


def fill(house: House, host: str, count: int, *, ago_s: float = 0.0, **columns: Any) -> list[str]:
    """Targets on a host, all due for so long, each a little later than the one before; their handles."""
    due = house.clock.now() - timedelta(seconds=ago_s, milliseconds=count)
    handles = [f"http://{host}/{n}" for n in range(count)]
    own = {"source": "feed", "host": f"{host}:80", "schedule": "every 1h", "added_at": due} | columns
    rows = [
        own | {"handle": handle, "url": handle, "due_at": due + timedelta(milliseconds=n)}
        for n, handle in enumerate(handles)
    ]
    house.writer.run(lambda tx: tx.conn.execute(insert(s.targets), rows), timeout_s=60)
    house.core.board.load()
    return handles


@dataclass(slots=True)
class Seen:
    """What rounds cost."""

    #: Waiting targets that were read (count).
    rows: int = 0
    statements: int = 0


@contextmanager
def looking(house: House) -> Iterator[Seen]:
    """Count what the rounds in the block look at."""
    seen, waiting = Seen(), queries.waiting

    def count(*args: Any, **more: Any) -> Any:
        found = waiting(*args, **more)
        seen.rows += len(found)
        return found

    def statement(*_: Any) -> None:
        seen.statements += 1

    event.listen(house.engine, "before_cursor_execute", statement)
    choice.queries.waiting = count
    try:
        yield seen
    finally:
        choice.queries.waiting = waiting
        event.remove(house.engine, "before_cursor_execute", statement)


def rounds(house: House) -> list[str]:
    """Claim rounds as the daemon does them: again at once while there is more to look at; the handles claimed."""
    claimed = house.round()
    while house.service.claims.choice.more:
        claimed += house.round()
    return claimed


def serve(house: House, *, for_s: float, step_s: float = 0.25, takes_s: float = 0.5) -> list[str]:
    """Let time pass, in which every run takes so long (at least a step); the handles in the order of their claims."""
    until, ends, claimed = house.clock.mono + for_s, dict[str, float](), list[str]()
    for order in house.pool.running.values():
        ends[order.target.handle] = house.clock.mono + takes_s
    while house.clock.mono < until:
        for handle in [handle for handle, at in ends.items() if at <= house.clock.mono]:
            del ends[handle]
            house.finish(handle)
        for handle in rounds(house):
            claimed.append(handle)
            ends[handle] = house.clock.mono + takes_s
        house.clock.advance(step_s)
    return claimed
