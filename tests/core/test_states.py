"""The state table, as people were promised it."""

import itertools

import pytest

from stoker.core.states import TRANSITIONS, Trigger, next_state
from stoker.errors import IllegalTransition
from stoker.model import EngineState


@pytest.mark.parametrize(("before", "trigger"), [*itertools.product([None, *EngineState], Trigger)], ids=str)
def test_a_pair_is_either_in_the_table_or_raises(before: EngineState | None, trigger: Trigger) -> None:
    if (before, trigger) in TRANSITIONS:
        assert next_state(before, trigger) is TRANSITIONS[before, trigger]
    else:
        with pytest.raises(IllegalTransition, match="can't happen"):
            next_state(before, trigger)


def test_every_state_can_be_reached_and_left() -> None:
    reached: set[EngineState | None] = {None}
    while True:
        further = reached | {after for (before, _), after in TRANSITIONS.items() if before in reached}
        if further == reached:
            break
        reached = further
    assert reached == {None, *EngineState}
    for state in EngineState:
        assert any(before is state and after is not state for (before, _), after in TRANSITIONS.items())


def test_nothing_leads_from_draining_back_to_work() -> None:
    after_draining = {after for (before, _), after in TRANSITIONS.items() if before is EngineState.DRAINING}
    assert after_draining == {EngineState.DRAINING, EngineState.STOPPED}
