"""The lifecycle goes through every (state, trigger, guard outcome)."""

import itertools

import pytest

from errors import GuardRejected, InvalidTransition
from fsm.guards import Facts
from fsm.machine import fire, mermaid
from fsm.states import EDGES, State, Trigger

BY_KEY = {(e.source, e.trigger): e for e in EDGES}
NAMES = ("paused", "worker_gone", "holds_token", "overdue", "owner_gone")


def facts_of(values):
    paused, gone, token, late, owner = values
    return Facts(
        token=5, claimed_token=5 if token else 4, paused=paused, worker_gone=gone, overdue=late, owner_gone=owner
    )


def holds(values):
    d = dict(zip(NAMES, values, strict=True))
    d["not_paused"] = not d["paused"]
    return d


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("trigger", list(Trigger))
@pytest.mark.parametrize("state", list(State))
def test_every_state_trigger_and_guard_outcome_follows_the_table(state, trigger, force):
    for values in itertools.product([False, True], repeat=5):
        edge = BY_KEY.get((state, trigger))
        if edge is None:
            with pytest.raises(InvalidTransition):
                fire(state, trigger, facts_of(values), force=force)
            continue
        true = holds(values)
        bad = [g.__name__ for g in edge.guards if not true[g.__name__] and not (force and g.__name__ in edge.waivable)]
        if bad:
            with pytest.raises(GuardRejected) as caught:
                fire(state, trigger, facts_of(values), force=force)
            assert caught.value.details["refused_by"] == bad[0]
        else:
            assert fire(state, trigger, facts_of(values), force=force).dest is edge.dest


def test_force_never_waives_the_worker_that_is_still_there():
    with pytest.raises(GuardRejected) as caught:
        fire(State.IDLE, Trigger.START, Facts(worker_gone=False), force=True)
    assert caught.value.details["refused_by"] == "worker_gone"


def test_ending_a_run_revokes_its_token_and_stops_its_worker():
    step = fire(State.RUNNING, Trigger.EXPIRE, Facts(overdue=True))
    assert step.effects == ("revoke_token", "stop_worker")


def test_the_diagram_has_every_edge():
    assert mermaid().count("-->") == len(EDGES) + 1
