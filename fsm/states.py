"""States, triggers and the table of edges; nothing else in the project lists them again."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fsm.guards import Guard, holds_token, not_paused, overdue, owner_gone, worker_gone


class State(Enum):
    """Where a target, a run or a sweep is."""

    IDLE = "IDLE"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    TIMEOUT = "TIMEOUT"


class Trigger(Enum):
    """Why a state changes."""

    START = "start"
    HEARTBEAT = "heartbeat"
    COMPLETE = "complete"
    FAIL = "fail"
    EXPIRE = "expire"
    INTERRUPT = "interrupt"
    RESET = "reset"


#: States in which a run has ended and its outcome is known.
ENDED_STATES = frozenset({State.COMPLETED, State.FAILED, State.TIMEOUT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One permitted step."""

    trigger: Trigger
    source: State
    dest: State
    #: All must hold.
    guards: tuple[Guard, ...] = ()
    #: Guards that an operator's force waives.
    waivable: frozenset[str] = frozenset()


def _edges() -> tuple[Edge, ...]:
    rest = [s for s in State if s is not State.RUNNING]
    running = State.RUNNING
    start = [
        Edge(
            trigger=Trigger.START,
            source=s,
            dest=running,
            guards=(not_paused, worker_gone),
            waivable=frozenset({"not_paused"}),
        )
        for s in rest
    ]
    reset = [Edge(trigger=Trigger.RESET, source=s, dest=State.IDLE) for s in rest]
    token = frozenset({"holds_token"})
    return (
        *start,
        Edge(trigger=Trigger.HEARTBEAT, source=running, dest=running, guards=(holds_token,)),
        Edge(trigger=Trigger.COMPLETE, source=running, dest=State.COMPLETED, guards=(holds_token,)),
        Edge(trigger=Trigger.FAIL, source=running, dest=State.FAILED, guards=(holds_token,), waivable=token),
        Edge(
            trigger=Trigger.EXPIRE,
            source=running,
            dest=State.TIMEOUT,
            guards=(overdue,),
            waivable=frozenset({"overdue"}),
        ),
        Edge(trigger=Trigger.INTERRUPT, source=running, dest=State.FAILED, guards=(owner_gone,)),
        *reset,
        Edge(
            trigger=Trigger.RESET,
            source=running,
            dest=State.IDLE,
            guards=(overdue,),
            waivable=frozenset({"overdue"}),
        ),
    )


#: The whole lifecycle.
EDGES: tuple[Edge, ...] = _edges()
