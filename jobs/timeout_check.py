"""The 30-second net: catches what the pool missed, and what an earlier boot left. One round is a plain method."""

from __future__ import annotations

import logging

from errors import StoreUnavailable
from fsm.states import Trigger
from jobs import sweeps
from jobs.core import Core
from jobs.endings import Ending
from jobs.runs import Runs
from store import queries
from store.queries import TargetRow
from store.writer import Tx

log = logging.getLogger(__name__)
#: A run that no worker holds is interrupted once it is this old: its hand-over may be under way (seconds).
HAND_OVER_S = 5.0


class TimeoutCheck:
    """Every RUNNING target against deadline, stall and owner; every sweep against its members."""

    def __init__(self, core: Core, runs: Runs) -> None:
        self._core = core
        self._runs = runs
        self._quiet_since: dict[tuple[int, int], float] = {}

    def once(self) -> list[int]:
        """One round; returns the targets it moved. A store that refuses is tried again at the next round."""
        if not self._core.ready or self._core.draining:
            return []
        try:
            moved: list[int] = self._core.writer.run(self._check)
        except StoreUnavailable as exc:
            log.warning('timeout_check_postponed error="%s"', exc)
            return []
        if moved:
            log.warning("timeout_check_moved targets=%s", moved)
            self._runs.kick()
        return moved

    def _check(self, tx: Tx) -> list[int]:
        moved = []
        for row in tx.conn.execute(queries.RUNNING).all():
            how = self._verdict(row)
            if how is not None:
                self._runs.end(tx, row, how)
                moved.append(row.id)
        sweeps.check(self._core, tx, quiet_since=self._quiet_since, next_time=self._runs.next_time)
        return moved

    def _verdict(self, row: TargetRow) -> Ending | None:
        core, live, now = self._core, self._core.live.get(row.token), self._core.clock.monotonic()
        if live is not None and live.unsaved:
            return None  # it has ended; the backlog says how
        kind = None if live is None else live.overdue(now)
        if kind is not None:
            error = f"the scrape was ended by the timeout check ({kind})"
            return Ending(trigger=Trigger.EXPIRE, actor="timeout-check", error=error, reason=kind)
        if core.facts(row).owner_gone and (live is None or now - live.started > HAND_OVER_S):
            return interrupted("timeout-check", "no worker holds this run")
        return None


def interrupted(actor: str, why: str) -> Ending:
    """A run that nobody alive owns."""
    return Ending(trigger=Trigger.INTERRUPT, actor=actor, error=f"interrupted: {why}", reason="interrupted")


def interrupt_all(core: Core, runs: Runs, tx: Tx, *, actor: str, why: str) -> int:
    """Close every RUNNING run that nobody owns: those of earlier boots, or all when this boot is ending."""
    closed = 0
    for row in tx.conn.execute(queries.RUNNING).all():
        if core.facts(row).owner_gone:
            runs.end(tx, row, interrupted(actor, why))
            closed += 1
    return closed
