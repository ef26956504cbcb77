"""What every verb stands on: the transaction in which fire() meets a conditional UPDATE, and the journal row.

Lives here: moving one target, giving out tokens, refusals, runs in memory. Not here: who asks and why.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from sqlalchemy import Engine, Row, and_, insert, select, update

from clock import Clock
from errors import GuardRejected, NotFound, Refused
from fsm.guards import Facts
from fsm.machine import Step, fire
from fsm.states import State, Trigger
from model import Order
from store import schema as s
from store.writer import Tx, Writer

TargetRow = Row[Any]  # Any: a row of `targets`


class PoolLike(Protocol):
    """What the service needs of the pool."""

    def free(self) -> int: ...
    def reserve(self, n: int) -> list[int]: ...
    def release(self, slot: int) -> None: ...
    def hand_over(self, slot: int, order: Order) -> None: ...
    def revoke(self, token: int) -> None: ...
    def worker_of(self, target_id: int) -> str: ...
    def holds(self, token: int) -> bool: ...
    def wait_gone(self, target_id: int, timeout_s: float) -> bool: ...
    def busy(self) -> int: ...
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
    text: str = "starting"
    phase: str = "starting"

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
    draining: bool = False
    #: Runs by token.
    live: dict[int, Live] = field(default_factory=dict)
    #: Targets per state; kept by deltas after each commit.
    counts: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    dirty: bool = True

    def worker_of(self, target_id: int) -> str:
        """`none`, `running` or `stopping`."""
        return "none" if self.pool is None else self.pool.worker_of(target_id)

    def facts(self, row: TargetRow, *, claimed_token: int | None = None) -> Facts:
        """Gather what the guards look at."""
        live = self.live.get(row.token)
        running = row.state == State.RUNNING.value
        owned = self.pool is not None and self.pool.holds(row.token)
        return Facts(
            token=row.token,
            claimed_token=claimed_token,
            paused=row.paused_until is not None and row.paused_until > self.clock.now(),
            worker_gone=self.worker_of(row.id) == "none",
            overdue=running and live is not None and live.overdue(self.clock.monotonic()) is not None,
            owner_gone=running and (row.boot_id != self.boot_id or self.draining or not owned),
        )

    def count(self, tx: Tx, source: str | None, dest: str | None) -> None:
        """Keep the counts, once committed."""

        def apply() -> None:
            self.dirty = True
            if source:
                self.counts[source] = self.counts.get(source, 0) - 1
            if dest:
                self.counts[dest] = self.counts.get(dest, 0) + 1

        tx.after(apply)

    def row(self, tx: Tx, target_id: int) -> TargetRow:
        """Read a target. Raises NotFound."""
        row = tx.conn.execute(select(s.targets).where(s.targets.c.id == target_id)).one_or_none()
        if row is None:
            raise NotFound(f"there is no target {target_id}")
        return row

    def next_token(self, tx: Tx) -> int:
        """Give out a token; one sequence for the whole database."""
        stmt = update(s.tokens).values(last=s.tokens.c.last + 1).returning(s.tokens.c.last)
        return int(tx.conn.execute(stmt).scalar_one())

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
        values: dict[str, Any] | None = None,  # Any: column values
    ) -> Step:
        """Take one step: fire(), one conditional UPDATE on (id, state, token), one journal row.

        Raises:
            Refused: The lifecycle or a faster writer said no; nothing was changed.
        """
        step = fire(State(row.state), trigger, facts, force=force)
        new = dict(values or {}, state=step.dest.value)
        if trigger is Trigger.START or "revoke_token" in step.effects:
            new["token"] = self.next_token(tx)
        own = and_(s.targets.c.id == row.id, s.targets.c.state == row.state, s.targets.c.token == row.token)
        if tx.conn.execute(update(s.targets).where(own).values(new)).rowcount != 1:
            raise GuardRejected("somebody else closed this run first", refused_by="holds_token", state=row.state)
        run_id = new.get("run_id", row.run_id)
        self.journal(tx, row, trigger, to=step.dest, actor=actor, reason=reason, forced=force, run_id=run_id)
        self.count(tx, row.state, step.dest.value)
        if "stop_worker" in step.effects:
            old = row.token
            tx.after(lambda: self.stop_worker(old))
        return step

    def forget(self, token: int) -> None:
        """Effect: the run is over."""
        self.live.pop(token, None)

    def stop_worker(self, token: int) -> None:
        """Effect: the run's token is revoked; now its worker is stopped."""
        self.live.pop(token, None)
        if self.pool is not None:
            self.pool.revoke(token)

    def journal(
        self,
        tx: Tx,
        row: TargetRow,
        trigger: Trigger,
        *,
        actor: str,
        to: State | None = None,
        refused_by: str | None = None,
        reason: str | None = None,
        forced: bool = False,
        run_id: int | None = None,
    ) -> None:
        """Write one journal row; the same refusal within a minute is counted, not repeated."""
        j, now = s.journal.c, self.clock.now()
        if refused_by is not None:
            same = and_(
                j.target_id == row.id,
                j.trigger == trigger.value,
                j.refused_by == refused_by,
                j.actor == actor,
                j.at > now - timedelta(minutes=1),
            )
            if tx.conn.execute(update(s.journal).where(same).values(times=j.times + 1)).rowcount:
                return
        tx.conn.execute(
            insert(s.journal).values(
                target_id=row.id,
                label=f"{row.source}:{row.handle}",
                at=now,
                trigger=trigger.value,
                from_state=row.state,
                to_state=None if to is None else to.value,
                refused_by=refused_by,
                actor=actor,
                reason=reason,
                forced=forced,
                run_id=run_id,
                token=row.token,
            )
        )

    def refuse(self, tx: Tx, row: TargetRow, trigger: Trigger, exc: Refused, *, actor: str) -> Refused:
        """Journal a refusal; returned as a value, so that its row is kept."""
        name = str(exc.details.get("refused_by", exc.code))
        self.journal(tx, row, trigger, actor=actor, refused_by=name, reason=exc.message)
        return exc


def raised(value: Any | Refused) -> Any:  # Any: whatever the operation answers
    """Raise what an operation returned as a refusal."""
    if isinstance(value, Refused):
        raise value
    return value


Effect = Callable[[], None]
