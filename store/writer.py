"""The one writer: a thread that commits in groups.

Each operation runs in a savepoint of its own; callers wait for the group's commit; effects run after it, in
commit order, and only then is anybody answered. What it does not do: retry an operation whose commit failed.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from errors import StoreRejected, StoreUnavailable

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Most operations in a group, and the longest a group collects (seconds).
GROUP_SIZE = 128
GROUP_S = 0.05
#: How long a caller waits for an operation that has begun (seconds); the watchdog is faster.
BEGUN_S = 60.0
_HINT = "ask again in a few seconds"


@dataclass(slots=True)
class Tx:
    """What an operation works with."""

    conn: Connection
    effects: list[Callable[[], None]] = field(default_factory=list)

    def after(self, effect: Callable[[], None]) -> None:
        """Run `effect` once the group is committed; never when it is not."""
        self.effects.append(effect)


@dataclass(slots=True)
class _Item(Generic[T]):
    op: Callable[[Tx], T]
    future: Future[T]
    effects: list[Callable[[], None]] = field(default_factory=list)
    result: Any = None  # Any: whatever the operation returned
    error: BaseException | None = None


class Writer:
    """Owner of the only connection that writes."""

    def __init__(self, engine: Engine, *, on_commit: Callable[[], None]) -> None:
        self._engine = engine.execution_options(gleand_writer=True)
        self._on_commit = on_commit
        self._fast: queue.SimpleQueue[_Item[Any] | None] = queue.SimpleQueue()
        self._slow: queue.SimpleQueue[_Item[Any] | None] = queue.SimpleQueue()
        self._wake = threading.Semaphore(0)
        self._stopping = False
        self._begun = False
        self._tick = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        #: None, or why the last group could not be stored.
        self.refusing: str | None = None

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Finish what is queued and end the thread; any number of times."""
        self._stopping = True
        self._wake.release()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)

    def tick_age(self) -> float:
        """Seconds since the loop last went round; grows only while a statement does not return."""
        return time.monotonic() - self._tick

    def submit(self, op: Callable[[Tx], T], *, fast: bool = False) -> Future[T]:
        """Queue an operation; ends of runs take the fast lane. Returns at once."""
        future: Future[T] = Future()
        if self._stopping:
            future.set_exception(StoreUnavailable("the store is closed"))
            return future
        (self._fast if fast else self._slow).put(_Item(op=op, future=future))
        self._wake.release()
        return future

    def run(self, op: Callable[[Tx], T], *, timeout_s: float = 10.0) -> T:
        """Run an operation and wait for its commit.

        Raises:
            StoreRejected: It cannot be stored; trying again would not help.
            StoreUnavailable: It was not stored; an operation that had not begun by then never runs.
        """
        future = self.submit(op)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.cancel():
                raise StoreUnavailable("the database did not answer in time", hint=_HINT) from None
        try:
            return future.result(BEGUN_S)  # it has begun: only its commit can tell what became of it
        except TimeoutError as exc:
            raise StoreUnavailable("the database does not answer", hint=_HINT) from exc

    def _take(self) -> _Item[Any] | None:
        for lane in (self._fast, self._slow):
            try:
                return lane.get_nowait()
            except queue.Empty:
                continue
        return None

    def _run(self) -> None:
        while True:
            self._wake.acquire(timeout=0.5)
            self._tick = time.monotonic()
            group: list[_Item[Any]] = []
            until = time.monotonic() + GROUP_S
            while len(group) < GROUP_SIZE and time.monotonic() < until:
                item = self._take()
                if item is None:
                    break
                if item.future.set_running_or_notify_cancel():
                    group.append(item)
            if group:
                self._commit(group)
            elif self._stopping:
                return

    def _commit(self, group: list[_Item[Any]]) -> None:
        if not self._try(group) and self._begun and len(group) > 1:
            for item in group:  # the transaction is gone: one at a time from here
                self._try([item])
        for item in group:
            if item.error is not None:
                item.future.set_exception(item.error)
            else:
                item.future.set_result(item.result)

    def _try(self, group: list[_Item[Any]]) -> bool:
        """Run a group in one transaction; False when all of it was undone."""
        self._begun = False
        try:
            with self._engine.connect() as conn, conn.begin() as whole:
                self._begun = True
                for item in group:
                    self._tick = time.monotonic()
                    self._one(conn, item)
                whole.commit()
        except (SQLAlchemyError, StoreUnavailable) as exc:
            self.refusing = str(exc.__cause__ or getattr(exc, "orig", None) or exc)
            log.error("group_not_stored size=%d error=%s", len(group), self.refusing)
            for item in group:
                item.effects = []
                item.error = StoreUnavailable("the database refused the write", hint=_HINT)
            return False
        self.refusing = None
        for item in group:
            for effect in item.effects:
                try:
                    effect()
                except Exception:  # noqa: BLE001 - top of the loop: one effect must not stop the others
                    log.exception("effect_failed")
        try:
            self._on_commit()
        except Exception:  # noqa: BLE001 - a view that cannot be drawn must not stop writes
            log.exception("publish_failed")
        return True

    def _one(self, conn: Connection, item: _Item[Any]) -> None:
        """Run one operation in a savepoint. Raises what undid the whole transaction."""
        tx = Tx(conn)
        item.error, item.effects = None, []
        conn.exec_driver_sql("SAVEPOINT one")
        try:
            item.result = item.op(tx)
            conn.exec_driver_sql("RELEASE one")
            item.effects = tx.effects
            return
        except SQLAlchemyError as exc:
            if not _in_transaction(conn) or _is_outage(exc):
                raise
            log.exception("operation_failed")
            item.error = StoreRejected("what was to be written does not fit the database")
        except Exception as exc:  # noqa: BLE001 - belongs to the caller of this operation, not to the group
            item.error = exc
        conn.exec_driver_sql("ROLLBACK TO one")
        conn.exec_driver_sql("RELEASE one")


def _is_outage(exc: SQLAlchemyError) -> bool:
    """Whether the database itself is in trouble (full, locked, read-only), not the statement."""
    words = str(getattr(exc, "orig", exc)).lower()
    return any(w in words for w in ("full", "locked", "readonly", "disk i/o", "malformed"))


def _in_transaction(conn: Connection) -> bool:
    """SQLITE_FULL rolls the whole transaction back; a later SAVEPOINT would commit by itself."""
    raw = conn.connection.dbapi_connection
    return bool(getattr(raw, "in_transaction", True))
