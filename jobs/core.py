"""What every verb stands on: the transaction in which fire() meets a conditional UPDATE, and the journal row.

Lives here: moving targets, refusals, runs in memory. Not here: who asks and why.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Engine, and_, update

from clock import Clock
from errors import LostRace, NotFound, Refused
from fsm.guards import Facts
from fsm.machine import Step, fire
from fsm.states import State, Trigger
from jobs.hosts import Hosts
from jobs.network import Network
from jobs.robots import KnownRobots
from jobs.snapshot import Board
from model import Order
from store import queries
from store import schema as s
from store.queries import TargetRow, Values
from store.writer import Tx, Writer

#: So many runs at once end and begin often: what is written of them is worth waiting for each other (count).
SIBLINGS = 4


class PoolLike(Protocol):
    """What the service needs of the pool."""

    def free(self) -> int: ...
    def answer(self, token: int, message: dict[str, Any]) -> None: ...  # Any: JSON values
    def reserve(self, n: int) -> list[int]: ...
    def release(self, slot: int) -> None: ...
    def hand_over(self, slot: int, order: Order) -> None: ...
    def revoke(self, token: int) -> None: ...
    def worker_of(self, target_id: int) -> str: ...
    def holds(self, token: int) -> bool: ...
    def wait_gone(self, target_id: int, timeout_s: float) -> bool: ...
    def wait_all_gone(self, timeout_s: float) -> bool: ...
    def able(self) -> bool: ...
    def tick_age(self) -> float: ...


@dataclass(slots=True)
class Live:
    """A run in memory; the row has a copy."""

    order: Order
    host: str
    #: Monotonic seconds.
    started: float
    progressed: float
    beat_at: datetime
    progress_at: datetime
    deadline_at: datetime
    #: Active sweeps that wait for it.
    sweeps: set[int]
    text: str = "starting"
    phase: str = "starting"
    #: It has ended, and that is on its way into the store.
    told: bool = False
    #: It has ended, and the store has refused to take that.
    unsaved: bool = False

    def overdue(self, now: float) -> str | None:
        """`deadline`, `stalled` or None, by the monotonic clock."""
        if now - self.started >= self.order.timeout_s:
            return "deadline"
        return "stalled" if now - self.progressed >= self.order.stall_timeout_s else None


@dataclass(slots=True)
class Core:
    """Shared by the verbs; built once."""

    engine: Engine
    writer: Writer
    clock: Clock
    settings: Any  # Any: config.Settings; not imported, so that a test can pass its own
    boot_id: int = 0
    pool: PoolLike | None = None
    #: False until the database is open and recovered.
    ready: bool = False
    draining: bool = False
    #: The drain is over: what still runs is interrupted.
    ending: bool = False
    #: Runs by token.
    live: dict[int, Live] = field(default_factory=dict)
    #: Targets that are being removed, and by how many: nothing starts them.
    removing: Counter[int] = field(default_factory=Counter)
    #: Previews, by token, that wait for a worker: claims leave so many places.
    awaited: set[int] = field(default_factory=set)
    #: Sources that installed packages bring: name to `module:function`.
    plugins: dict[str, str] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    board: Board = field(init=False)
    hosts: Hosts = field(init=False)
    network: Network = field(init=False)
    robots: KnownRobots = field(init=False)

    def __post_init__(self) -> None:
        self.board = Board(self)
        self.hosts = Hosts(self.clock, lambda: self.settings)
        self.network = Network(self.clock)
        self.robots = KnownRobots(self.clock)
        self.writer.may_linger = lambda: len(self.live) >= SIBLINGS

    def worker_of(self, target_id: int) -> str:
        """`none`, `running` or `stopping`."""
        return "none" if self.pool is None else self.pool.worker_of(target_id)

    def facts(self, row: TargetRow, *, claimed_token: int | None = None) -> Facts:
        """Gather what the guards look at."""
        live = self.live.get(row.token)
        running = row.state == State.RUNNING.value
        owned = row.boot_id == self.boot_id and self.pool is not None and self.pool.holds(row.token)
        return Facts(
            token=row.token,
            claimed_token=claimed_token,
            paused=row.paused_until is not None and row.paused_until > self.clock.now(),
            worker_gone=self.worker_of(row.id) == "none",
            overdue=running and live is not None and live.overdue(self.clock.monotonic()) is not None,
            owner_gone=running and (self.ending or not owned),
        )

    def row(self, tx: Tx, target_id: int) -> TargetRow:
        """Read a target. Raises NotFound."""
        row = tx.conn.execute(queries.TARGET, {"b_id": target_id}).one_or_none()
        if row is None:
            raise NotFound(f"there is no target {target_id}")
        return row

    def move(
        self,
        tx: Tx,
        row: TargetRow,
        trigger: Trigger,
        facts: Facts,
        *,
        actor: str,
        reason: str | None = None,
        force: bool = False,
        values: Values | None = None,
    ) -> Step:
        """Take one step: fire(), one conditional UPDATE on (id, state, token), one journal row.

        A run's token is revoked with it: the number after its own was kept for that when it was claimed.

        Raises:
            Refused: The lifecycle or a faster writer said no; nothing was changed.
        """
        step = fire(State(row.state), trigger, facts, force=force)
        new = dict(values or {}, state=step.dest.value)
        if "revoke_token" in step.effects:
            new["token"] = row.token + 1
        if not queries.step(tx.conn, [row], [new]):
            raise LostRace("somebody else closed this run first", refused_by="holds_token", state=row.state)
        entry = self.entry(row, trigger, to=step.dest, actor=actor, reason=reason, forced=force, run_id=row.run_id)
        tx.conn.execute(queries.ADD_JOURNAL, entry)
        self.moved(tx, [row.id], step)
        if "stop_worker" in step.effects:
            tx.after(lambda: self.stop_worker(row.token))
        return step

    def moved(self, tx: Tx, ids: Sequence[int], step: Step) -> None:
        """Tell the board, once it is committed."""
        tx.after(lambda: self.board.moved(ids, step.source.value, step.dest.value))

    def stop_worker(self, token: int) -> None:
        """Effect: the run's token is revoked; now its worker is stopped."""
        self.live.pop(token, None)
        if self.pool is not None:
            self.pool.revoke(token)

    def entry(
        self,
        row: TargetRow,
        trigger: Trigger,
        *,
        actor: str,
        to: State | None = None,
        refused_by: str | None = None,
        reason: str | None = None,
        forced: bool = False,
        run_id: int | None = None,
    ) -> Values:
        """Write down one step or refusal, as a row of the journal."""
        return {
            "target_id": row.id,
            "label": f"{row.source}:{row.handle}",
            "at": self.clock.now(),
            "trigger": trigger.value,
            "from_state": row.state,
            "to_state": None if to is None else to.value,
            "refused_by": refused_by,
            "actor": actor,
            "reason": None if reason is None else reason[:1000],
            "forced": forced,
            "run_id": run_id,
            "token": row.token,
        }

    def refuse(self, tx: Tx, row: TargetRow, trigger: Trigger, exc: Refused, *, actor: str) -> Refused:
        """Journal a refusal; the same one within a minute is counted, not repeated.

        Returned as a value, so that its row is kept.
        """
        now, j, name = self.clock.now(), s.journal.c, str(exc.details.get("refused_by", exc.code))
        same = and_(
            j.target_id == row.id,
            j.trigger == trigger.value,
            j.refused_by == name,
            j.actor == actor,
            j.at.between(now - timedelta(minutes=1), now),
        )
        if not tx.conn.execute(update(s.journal).where(same).values(times=j.times + 1)).rowcount:
            entry = self.entry(row, trigger, actor=actor, refused_by=name, reason=exc.message, run_id=row.run_id)
            tx.conn.execute(queries.ADD_JOURNAL, entry)
        return exc


def raised(value: Any | Refused) -> Any:  # Any: whatever the operation answers
    """Raise what an operation returned as a refusal."""
    if isinstance(value, Refused):
        raise value
    return value
