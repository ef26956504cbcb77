"""The 30-second net: catches what the pool missed, and what an earlier boot left. One round is a plain method."""

from __future__ import annotations

import logging

from sqlalchemy.exc import SQLAlchemyError

from errors import Refused, StoreUnavailable
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
        #: Tokens of runs that nobody seemed to own at the last check.
        self._ownerless: set[int] = set()

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
        moved: list[int] = []
        ownerless: set[int] = set()
        for row in tx.conn.execute(queries.RUNNING).all():
            how = self._verdict(row, ownerless)
            if how is not None and self._end(tx, row, how):
                moved.append(row.id)
        self._ownerless = ownerless
        core = self._core
        tx.attempt(lambda: sweeps.check(core, tx, quiet_since=self._quiet_since, next_time=self._runs.next_time))
        return moved

    def _end(self, tx: Tx, row: TargetRow, how: Ending) -> bool:
        """End one run; a fault with it must not keep the check from the others."""
        try:
            tx.attempt(lambda: self._runs.end(tx, row, how))
            return True
        except Refused:
            return False  # it moved, or ended, since it was read
        except SQLAlchemyError:
            raise
        except Exception:  # noqa: BLE001 - whatever it is: no run stays RUNNING for it
            log.exception("timeout_check_failed target=%d", row.id)
        try:
            tx.attempt(lambda: self._runs.abandon(tx, row.id, how))
            return True
        except SQLAlchemyError:
            raise
        except Exception:  # noqa: BLE001 - it is tried again at the next round
            log.exception("timeout_check_gave_up target=%d", row.id)
            return False

    def _verdict(self, row: TargetRow, ownerless: set[int]) -> Ending | None:
        """How a run is to end, if it is; `ownerless` gets the tokens of runs that nobody seems to own."""
        core, live, now = self._core, self._core.live.get(row.token), self._core.clock.monotonic()
        if live is not None and (live.told or live.unsaved):
            return None  # it has ended; how is on its way into the store
        kind = None if live is None else live.overdue(now)
        if kind is not None:
            error = f"the scrape was ended by the timeout check ({kind})"
            return Ending(trigger=Trigger.EXPIRE, actor="timeout-check", error=error, reason=kind, overdue=True)
        if not core.facts(row).owner_gone:
            return None
        if live is None and row.boot_id == core.boot_id:  # its claim may be in this very group of commits
            ownerless.add(row.token)
            known = row.token in self._ownerless
        else:
            known = live is None or now - live.started > HAND_OVER_S
        return interrupted("timeout-check", "no worker holds this run") if known else None


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
