"""`fire`: the one way a state changes, run by the `transitions` library.

The library's machine is shared and stateless here: each call puts a small model through it. A guard that
refuses makes the library return False without a reason; the recording conditions below name it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

from transitions import EventData, Machine, MachineError

from errors import GuardRejected, InvalidTransition
from fsm.guards import GUARDS, Facts, Guard
from fsm.states import EDGES, Edge, State, Trigger

logging.getLogger("transitions").setLevel(logging.WARNING)


@dataclass(slots=True, kw_only=True)
class Passage:
    """One attempt; what the callbacks collect. Never leaves this module but as a Step."""

    state: State
    facts: Facts
    force: bool = False
    refused_by: str | None = None
    effects: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A permitted step: where it leads, and what is to be done in the world after the commit."""

    source: State
    dest: State
    trigger: Trigger
    #: Of "start_worker", "stop_worker", "revoke_token".
    effects: tuple[str, ...]


def _condition(edge: Edge, guard: Guard) -> Any:  # Any: the library types its callbacks so
    def holds(event: EventData) -> bool:
        passage = event.model
        assert isinstance(passage, Passage)
        name = guard.__name__
        if guard(passage.facts) or (passage.force and name in edge.waivable):
            return True
        passage.refused_by = name
        return False

    return holds


def _collect(event: EventData) -> None:
    """Collect effects; runs before the state changes, so a fault here leaves it as it was."""
    passage = event.model
    assert isinstance(passage, Passage)
    trigger = Trigger(event.event.name)
    if trigger is Trigger.START:
        passage.effects.append("start_worker")
    elif passage.state is State.RUNNING and trigger in (Trigger.EXPIRE, Trigger.RESET, Trigger.INTERRUPT, Trigger.FAIL):
        passage.effects += ["revoke_token", "stop_worker"]
    elif trigger is Trigger.COMPLETE:
        passage.effects.append("revoke_token")


def build_machine() -> Machine:
    """Build the lifecycle on `transitions` (no automatic `to_X()`: those walk round every guard)."""
    machine = Machine(
        model=None,
        states=State,
        initial=State.IDLE,
        auto_transitions=False,
        send_event=True,
        before_state_change=_collect,
    )
    for edge in EDGES:
        machine.add_transition(
            edge.trigger.value, edge.source, edge.dest, conditions=[_condition(edge, g) for g in edge.guards]
        )
    return machine


_MACHINE = build_machine()
#: Steps the machine gave, by all that it looks at: walking through it takes twenty times as long as looking here.
_KNOWN: dict[tuple[object, ...], Step] = {}


def fire(state: State, trigger: Trigger, facts: Facts, *, force: bool = False) -> Step:
    """Ask the lifecycle for one step.

    Args:
        state: Where the target is.
        trigger: What happens to it.
        facts: What the guards look at.
        force: An operator's force; waives only the guards the edge names as waivable.

    Returns:
        The step; nothing has been stored.

    Raises:
        InvalidTransition: The table has no such edge.
        GuardRejected: A guard did not hold; `details["refused_by"]` names it.
    """
    asked = (state, trigger, force, *(guard(facts) for guard in GUARDS))
    known = _KNOWN.get(asked)
    if known is not None:
        return known
    passage = Passage(state=state, facts=facts, force=force)
    try:
        moved = _MACHINE.events[trigger.value].trigger(passage)
    except MachineError as exc:
        raise InvalidTransition(
            f"a target that is {state.value} has no transition '{trigger.value}'",
            refused_by="no_such_edge",
            state=state.value,
            trigger=trigger.value,
        ) from exc
    if not moved:
        raise GuardRejected(
            f"'{trigger.value}' was refused: {passage.refused_by} does not hold",
            refused_by=passage.refused_by,
            state=state.value,
            trigger=trigger.value,
        )
    step = Step(source=state, dest=passage.state, trigger=trigger, effects=tuple(passage.effects))
    _KNOWN[asked] = step
    return step


def possible(state: State, facts: Facts) -> dict[str, str | None]:
    """Say for each trigger an operator may pull which guard refuses it now (None: possible)."""
    answer: dict[str, str | None] = {}
    for trigger in (Trigger.START, Trigger.RESET, Trigger.EXPIRE, Trigger.FAIL):
        try:
            fire(state, trigger, facts)
            answer[trigger.value] = None
        except InvalidTransition:
            answer[trigger.value] = "no_such_edge"
        except GuardRejected as exc:
            answer[trigger.value] = str(exc.details["refused_by"])
    return answer


def mermaid() -> str:
    """Draw the running machine as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> IDLE"]
    for edge in EDGES:
        guards = f" [{', '.join(g.__name__ for g in edge.guards)}]" if edge.guards else ""
        lines.append(f"    {edge.source.value} --> {edge.dest.value}: {edge.trigger.value}{guards}")
    return "\n".join(lines) + "\n"
