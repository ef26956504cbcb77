"""The one writer: a thread that commits in groups.

Each operation runs in a savepoint of its own; callers wait for the group's commit; effects run after it, in
commit order, and only then is anybody answered. An operation may run twice, when its group had to be undone, so it
must not count on what it did outside the transaction. What the writer does not do: retry what failed by itself.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from errors import StoreRejected, StoreUnavailable
from store.engine import in_transaction
from store.queries import take_tokens

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Most operations in a group, and the longest a group collects (seconds).
GROUP_SIZE = 128
GROUP_S = 0.05
#: How long a group waits for more operations when more are likely to come (seconds).
LINGER_S = 0.0015
#: How long a caller waits for an operation that has begun (seconds); the watchdog is faster.
BEGUN_S = 60.0
#: How often it is tried, at least, whether the store takes a write: while it refuses, and else (seconds).
PROVE_REFUSING_S = 1.0
PROVE_S = 5.0
#: Result codes of SQLite that speak of the database, not of the statement.
_OUTAGES = frozenset(
    {
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)
_HINT = "ask again in a few seconds"


@dataclass(slots=True)
class Tx:
    """What an operation works with."""

    conn: Connection
    effects: list[Callable[[], None]] = field(default_factory=list)

    def after(self, effect: Callable[[], None]) -> None:
        """Run `effect` once the group is committed; never when it is not."""
        self.effects.append(effect)

    def attempt(self, op: Callable[[], T]) -> T:
        """Run a part that is undone by itself, effects included, when it raises; the rest of the operation stays.

        Raises:
            StoreRejected: The database took nothing of this part, and would not the next time either.
        """
        kept = len(self.effects)
        self.conn.exec_driver_sql("SAVEPOINT part")
        try:
            answer = op()
        except Exception as exc:
            del self.effects[kept:]
            if isinstance(exc, SQLAlchemyError) and (not in_transaction(self.conn) or _is_outage(exc)):
                raise  # the whole operation is lost
            self.conn.exec_driver_sql("ROLLBACK TO part")
            self.conn.exec_driver_sql("RELEASE part")
            if isinstance(exc, SQLAlchemyError):
                raise StoreRejected("what was to be written does not fit the database") from exc
            raise
        self.conn.exec_driver_sql("RELEASE part")
        return answer


@dataclass(slots=True)
class _Item(Generic[T]):
    op: Callable[[Tx], T]
    future: Future[T]
    effects: list[Callable[[], None]] = field(default_factory=list)
    result: Any = None  # Any: whatever the operation returned
    error: BaseException | None = None


class Writer:
    """Owner of all that is written."""

    def __init__(self, engine: Engine, *, on_commit: Callable[[], None]) -> None:
        """Nothing is opened yet.

        Args:
            on_commit: Publishes; called after the effects of each commit and before anybody is answered.
        """
        self._engine = engine.execution_options(gleand_writer=True)
        self._on_commit = on_commit
        self._fast: queue.SimpleQueue[_Item[Any]] = queue.SimpleQueue()
        self._slow: queue.SimpleQueue[_Item[Any]] = queue.SimpleQueue()
        self._wake = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._stopping = False
        self._begun = False
        self._tick = time.monotonic()
        #: When the last transaction ended that surely wrote, or was refused; None: there was none of any kind.
        self._proved: float | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        #: None, or why the last write could not be stored: what the next caller will meet. The writer spends a token
        #: now and then to see whether the store takes it, since a commit that changes nothing succeeds on a full disk.
        self.refusing: str | None = None
        #: Whether more operations are likely to come soon, so that a larger group costs less than the wait for it.
        self.may_linger: Callable[[], bool] = lambda: False

    def start(self) -> None:
        """Start the thread; once."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Finish what is queued and end the thread; any number of times."""
        with self._lock:
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
        with self._lock:  # nothing is queued behind the last look of a thread that ends
            if not self._stopping:
                (self._fast if fast else self._slow).put(_Item(op=op, future=future))
                self._wake.release()
                return future
        future.set_exception(StoreUnavailable("the store is closed"))
        return future

    def run(self, op: Callable[[Tx], T], *, timeout_s: float = 10.0) -> T:
        """Run an operation and wait for its commit.

        Raises:
            StoreRejected: It cannot be stored; trying again would not help.
            StoreUnavailable: It was not stored; an operation that had not begun by then never runs.
        """
        return self.wait(self.submit(op), timeout_s=timeout_s)

    def wait(self, future: Future[T], *, timeout_s: float = 10.0) -> T:
        """Wait for an operation that was submitted; raises as `run` does."""
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.cancel():
                raise StoreUnavailable("the database did not answer in time", hint=_HINT) from None
        try:
            return future.result(BEGUN_S)  # it has begun: only its commit can tell what became of it
        except TimeoutError as exc:
            raise StoreUnavailable("the database does not answer", hint=_HINT) from exc

    # -- the thread ----------------------------------------------------------------------------------------------

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
            if self.may_linger():
                time.sleep(LINGER_S)
            item, until = self._take(), time.monotonic() + GROUP_S
            while item is not None:
                if item.future.set_running_or_notify_cancel():
                    group.append(item)
                full = len(group) >= GROUP_SIZE or time.monotonic() >= until
                item = None if full else self._take()
            if group:
                self._commit(group)
            elif self._stopping and self._fast.empty() and self._slow.empty():
                return
            elif self._proof_due(PROVE_S if self.refusing is None else PROVE_REFUSING_S):
                self._try([])

    def _proof_due(self, wait_s: float) -> bool:
        return self._proved is not None and time.monotonic() - self._proved >= wait_s

    def _commit(self, group: list[_Item[Any]]) -> None:
        if not self._try(group) and self._begun and len(group) > 1:
            for item in group:  # the transaction is gone: one at a time from here
                if not self._try([item]) and not self._begun:
                    break  # nobody can write now; every item has its error from the whole group
        for item in group:
            if item.error is not None:
                item.future.set_exception(item.error)
            else:
                item.future.set_result(item.result)

    def _try(self, group: list[_Item[Any]]) -> bool:
        """Run a group in one transaction; False when all of it was undone."""
        self._begun = False
        prove = self.refusing is not None or self._proof_due(PROVE_S)
        try:
            with self._engine.connect() as conn:
                try:
                    self._transaction(conn, group, prove=prove)
                except BaseException:
                    conn.invalidate()  # a commit that failed may have left its transaction open: nobody gets that
                    raise
        except Exception as exc:  # noqa: BLE001 - top of the loop: nobody may wait for ever, and the thread goes on
            self._refused(group, exc)
            return False
        if prove or self._proved is None:
            self._proved = time.monotonic()
        if self.refusing is not None:
            log.warning("store_writes_again")
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

    def _transaction(self, conn: Connection, group: list[_Item[Any]], *, prove: bool) -> None:
        """Run all of a group, and commit. Raises what kept that from being stored."""
        with conn.begin() as whole:
            self._begun = True
            if prove:
                take_tokens(conn, 1)
            for item in group:
                self._tick = time.monotonic()
                self._one(conn, item)
            whole.commit()

    def _refused(self, group: list[_Item[Any]], exc: Exception) -> None:
        why = str(getattr(exc, "orig", None) or exc)
        if why != self.refusing:  # said once, not at every try
            trace = None if isinstance(exc, SQLAlchemyError) else exc
            log.error('store_refuses size=%d error="%s"', len(group), why, exc_info=trace)
        self.refusing, self._proved = why, time.monotonic()
        for item in group:
            item.effects = []
            item.error = StoreUnavailable("the database refused the write", hint=_HINT)

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
            if not in_transaction(conn) or _is_outage(exc):
                raise
            log.exception("operation_failed")
            item.error = StoreRejected("what was to be written does not fit the database")
        except Exception as exc:  # noqa: BLE001 - belongs to the caller of this operation, not to the group
            item.error = exc
        conn.exec_driver_sql("ROLLBACK TO one")
        conn.exec_driver_sql("RELEASE one")


def _is_outage(exc: SQLAlchemyError) -> bool:
    """Whether the database itself is in trouble (full, locked, read-only), not the statement."""
    code = getattr(getattr(exc, "orig", None), "sqlite_errorcode", None)
    if code is None:
        return isinstance(exc, (OperationalError, InterfaceError))
    return (code & 0xFF) in _OUTAGES
