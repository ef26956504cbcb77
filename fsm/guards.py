"""Guards: pure predicates over facts, named as a statement that is true when the edge may be taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a guard may look at; gathered by the service, never by the lifecycle."""

    #: The target's current token, and the one the caller came with (None: an operator).
    token: int = 0
    claimed_token: int | None = None
    paused: bool = False
    #: No process of an earlier run is left.
    worker_gone: bool = True
    #: Deadline passed or stalled, by the monotonic clock of whoever knows.
    overdue: bool = False
    #: The run belongs to another boot, this boot is ending, or no reservation of this pool holds the token.
    owner_gone: bool = False


Guard = Callable[[Facts], bool]


def not_paused(facts: Facts) -> bool:
    """The target is not paused."""
    return not facts.paused


def worker_gone(facts: Facts) -> bool:
    """No process of an earlier run is left."""
    return facts.worker_gone


def holds_token(facts: Facts) -> bool:
    """The caller holds the token of the current run."""
    return facts.claimed_token is not None and facts.claimed_token == facts.token


def overdue(facts: Facts) -> bool:
    """The run passed its deadline, or stalled."""
    return facts.overdue


def owner_gone(facts: Facts) -> bool:
    """Nobody alive owns the run."""
    return facts.owner_gone


GUARDS: tuple[Guard, ...] = (not_paused, worker_gone, holds_token, overdue, owner_gone)
