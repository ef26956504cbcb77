"""A writer for tests, operations for it, and a way to make several of them one group."""

from __future__ import annotations

import threading
from collections.abc import Callable

from sqlalchemy import Engine, insert, select

from store import schema as s
from store.writer import Tx, Writer
from tests.support.store import T0


class Room:
    """A writer, and what it published."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.said: list[str] = []
        self.look: Callable[[], None] = lambda: None
        self.writer = Writer(engine, on_commit=self._published)
        self.writer.start()

    def _published(self) -> None:
        self.said.append("published")
        self.look()

    def hosts(self) -> list[str]:
        """What a reader sees."""
        with self.engine.connect() as conn:
            return list(conn.execute(select(s.hosts.c.host).order_by(s.hosts.c.host)).scalars())


def adds(host: str) -> Callable[[Tx], str]:
    """An operation that adds a row, and answers."""

    def op(tx: Tx) -> str:
        tx.conn.execute(insert(s.hosts).values(host=host, next_allowed_at=T0, reason="test"))
        return f"added {host}"

    return op


class Blocker:
    """An operation that holds the writer until released, so that what is submitted meanwhile becomes one group."""

    def __init__(self, writer: Writer, *, after: Callable[[], None] = lambda: None) -> None:
        """Begin; `after` runs once it is committed."""
        self._after = after
        self.inside, self.go = threading.Event(), threading.Event()
        self.future = writer.submit(self._op)
        assert self.inside.wait(5)

    def _op(self, tx: Tx) -> None:
        tx.after(self._after)
        self.inside.set()
        assert self.go.wait(10)
