"""A service without processes: a pool that a test plays, a clock that a test turns, a real SQLite.

`with House(tmp_path) as house: house.add("good:a"); house.round(); house.finish("a")`. The pool's listener is called as
the real pool calls it, and each such call waits until what it queued is stored.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from config import Settings
from jobs.core import Core
from jobs.service import Service
from model import Order, Outcome, Post
from sources.urls import host_of
from store import schema as s
from store.engine import migrate, open_engine
from store.writer import Writer

START = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)


class FakeClock:
    """Both clocks stand still until a test turns them."""

    def __init__(self) -> None:
        self.mono, self.wall = 1000.0, START

    def monotonic(self) -> float:
        return self.mono

    def now(self) -> datetime:
        return self.wall

    def advance(self, seconds: float) -> None:
        """Time passes."""
        self.mono += seconds
        self.jump(seconds)

    def jump(self, seconds: float) -> None:
        """Somebody sets the wall clock."""
        self.wall += timedelta(seconds=seconds)


class FakePool:
    """Places for orders; nothing happens to an order until a test says what."""

    def __init__(self, size: int) -> None:
        self.size = size
        #: Whether a stopped worker is gone at once; else a test calls `bury`.
        self.dies_at_once = True
        #: Every order, as they were handed over.
        self.orders: list[Order] = []
        self.running: dict[int, Order] = {}
        self.stopping: dict[int, Order] = {}
        self.reserved: set[int] = set()
        self.slots = 0
        #: What runs were told.
        self.answers: list[dict[str, Any]] = []
        self.gone: Callable[[Order], None] = lambda order: None

    def free(self) -> int:
        return max(0, self.size - len(self.reserved) - len(self.running) - len(self.stopping))

    def reserve(self, n: int) -> list[int]:
        taken = list(range(self.slots + 1, self.slots + 1 + min(n, self.free())))
        self.slots += len(taken)
        self.reserved.update(taken)
        return taken

    def release(self, slot: int) -> None:
        self.reserved.discard(slot)

    def hand_over(self, slot: int, order: Order) -> None:
        self.reserved.discard(slot)
        self.orders.append(order)
        self.running[order.token] = order

    def revoke(self, token: int) -> None:
        order = self.running.pop(token, None)
        if order is not None and not self.dies_at_once:
            self.stopping[token] = order
        elif order is not None:
            self.gone(order)

    def bury(self) -> None:
        """Whatever was stopping is gone."""
        while self.stopping:
            self.gone(self.stopping.popitem()[1])

    def answer(self, token: int, message: dict[str, Any]) -> None:
        self.answers.append(message)

    def worker_of(self, target_id: int) -> str:
        if any(order.target.id == target_id for order in self.stopping.values()):
            return "stopping"
        return "running" if any(order.target.id == target_id for order in self.running.values()) else "none"

    def holds(self, token: int) -> bool:
        return token in self.running

    def wait_gone(self, target_id: int, timeout_s: float) -> bool:
        return self.worker_of(target_id) != "stopping"

    def wait_all_gone(self, timeout_s: float) -> bool:
        return not self.stopping

    def able(self) -> bool:
        return True

    def tick_age(self) -> float:
        return 0.0


@cache
def _template() -> Path:
    """An empty database at the current schema, made once."""
    path = Path(tempfile.mkdtemp(prefix="gleand-")) / "empty.db"
    engine = open_engine(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


class House:
    """Use as a context manager. A second one on the same directory is the daemon after a restart."""

    def __init__(self, home: Path, *, size: int = 2, clock: FakeClock | None = None, **settings: Any) -> None:
        own = "good waits other third".split()
        given = {"data_dir": home, "scrapers": {name: f"scrapers:{name}" for name in own}, "host_delay_s": 0}
        given |= {"scrape_timeout_s": 60, "stall_timeout_s": 60, "timezone": "UTC"}
        self.settings = Settings(**(given | settings))
        if not (home / "gleand.db").exists():
            shutil.copy(_template(), home / "gleand.db")
        self.clock = clock or FakeClock()
        self.engine = open_engine(self.settings.db_url)
        self.writer = Writer(self.engine, on_commit=lambda: self.core.board.publish())
        self.core = Core(engine=self.engine, writer=self.writer, clock=self.clock, settings=self.settings)
        self.service = Service(self.core)
        self.pool = FakePool(size)
        self.core.pool = self.pool
        #: What the pool tells is told here.
        self.listener = self.service.previews
        self.pool.gone = self.listener.gone

    def __enter__(self) -> House:
        self.writer.start()
        self.service.boot()
        self.flush()
        return self

    def __exit__(self, *_: object) -> None:
        """As after kill -9: nothing is told to the database."""
        self.writer.stop()
        self.engine.dispose()

    # -- what clients do -----------------------------------------------------------------------------------------

    def add(self, name: str, *, again: bool = True, **more: Any) -> int:
        """Ask for a target; returns its id."""
        return int(self.ask(name, again=again, **more)["user"]["id"])

    def ask(self, name: str, *, again: bool = True, **more: Any) -> dict[str, Any]:
        return self.service.add(target=name, again=again, **more)

    def track(self, name: str, *, due_in_s: float | None = None, **more: Any) -> int:
        """Track a target without asking for it, due then."""
        target_id = int(self.service.add(target=name, start=False, **more)["target"]["id"])
        if due_in_s is not None:
            self.set(target_id, due_at=self.clock.now() + timedelta(seconds=due_in_s))
        return target_id

    def status(self, target_id: int) -> dict[str, Any]:
        return self.service.target_status(target_id)

    def shown(self, sweep_id: int | None = None) -> dict[str, Any]:
        """STATUS."""
        return self.service.scrape_status(sweep_id)

    def journal(self, target_id: int) -> list[dict[str, Any]]:
        """Newest first."""
        view = self.service.journal(target_id, limit=200, cursor=None)
        return list(view["journal"])

    # -- what the daemon and its workers do ----------------------------------------------------------------------

    def round(self) -> list[str]:
        """One claim round; returns the handles that were handed to workers."""
        before = len(self.pool.orders)
        self.service.round()
        return [order.target.handle for order in self.pool.orders[before:]]

    def order(self, handle: str) -> Order:
        """The order that is in a worker."""
        return next(o for o in self.pool.running.values() if o.target.handle == handle)

    def finish(self, handle: str, *posts: Post, **more: Any) -> None:
        self._tell(handle, Outcome(ok=True, posts=posts or (Post(native_id="1", title="one"),), **more))

    def fail(
        self,
        handle: str,
        error: str = "no luck",
        *,
        ours: bool = True,
        retry_after_s: float | None = None,
        **more: Any,
    ) -> None:
        if ours and retry_after_s is not None and self.order(handle).target.url:  # a session of ours tells it at once
            why = "the host asked to wait (Retry-After)"
            order = self.order(handle)
            host = host_of(order.target.url)
            told = {"t": "told", "token": order.token, "host": host, "wait_s": retry_after_s, "why": why}
            self.listener.said(order, told)
        known = {"error": error, "error_is_ours": ours, "untold": not ours, "retry_after_s": retry_after_s}
        self._tell(handle, Outcome(**({"ok": False, "reached": "status" in more} | known | more)))

    def overdue(self, handle: str, kind: str = "deadline") -> None:
        """The pool's clock says so."""
        self.listener.overdue(self.order(handle), kind)
        self.flush()

    def progress(self, handle: str, text: str = "1 posts") -> None:
        self.listener.progressed(self.order(handle), text)

    def _tell(self, handle: str, outcome: Outcome) -> None:
        order = self.order(handle)
        del self.pool.running[order.token]
        self.listener.finished(order, outcome)
        self.listener.gone(order)
        self.flush()

    def run(self, name: str, **more: Any) -> int:
        """Ask for a target and see it scraped."""
        target_id = self.add(name, **more)
        handle = self.status(target_id)["username"]
        assert handle in self.round()
        self.finish(handle)
        return target_id

    def check(self) -> list[int]:
        """One timeout check."""
        return self.service.timeout_check.once()

    def flush(self) -> None:
        """Until everything that was queued is stored."""
        self.writer.run(lambda tx: None)

    # -- the database --------------------------------------------------------------------------------------------

    def set(self, target_id: int, **columns: Any) -> None:
        """Change a row past the service."""
        self.writer.run(
            lambda tx: tx.conn.execute(s.targets.update().where(s.targets.c.id == target_id).values(columns))
        )

    def block(self, host: str, seconds: float, reason: str = "Retry-After") -> None:
        """A host wants to be left alone."""
        self.writer.run(lambda tx: self.service.runs.host_asked(tx, host, seconds, reason, self.clock.now()))

    def column(self, target_id: int, name: str) -> Any:
        with self.engine.connect() as conn:
            return conn.execute(select(s.targets.c[name]).where(s.targets.c.id == target_id)).scalar_one()

    def count(self, table: str) -> int:
        with self.engine.connect() as conn:
            return int(conn.execute(text(f"SELECT count(*) FROM {table}")).scalar_one())
