"""One event at a time, and deadlines that come when they are due."""

from __future__ import annotations

import attrs
import pytest
import trio
import trio.testing

from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.engine import Engine, Fleet
from stoker.errors import IllegalTransition
from stoker.model import EngineSpec, EngineState, Origin
from stoker.supervise.dispatcher import Dispatcher

SPEC = EngineSpec(model="m", startup_timeout_seconds=100)


def state_of(dispatcher: Dispatcher, engine_id: str) -> EngineState:
    engine = dispatcher.fleet.get(engine_id)
    assert engine is not None
    return engine.state


async def test_an_event_changes_the_fleet_tells_observers_then_executes_commands() -> None:
    heard: list[object] = []

    def observe(before: Engine | None, after: Engine | None) -> None:
        assert after is not None
        heard.append((before, after.state))

    dispatcher = Dispatcher(Fleet(), heard.append, [observe])
    dispatcher.dispatch(e.StartRequested("a", SPEC))
    assert heard == [(None, EngineState.STARTING), c.Launch("a", 1, SPEC, Origin.MANAGED)]


async def test_a_command_that_dispatches_is_a_defect_that_shows() -> None:
    dispatcher: Dispatcher

    def execute(command: c.Command) -> None:
        dispatcher.dispatch(e.ProbeSucceeded(command.engine_id, 1))

    dispatcher = Dispatcher(Fleet(), execute)
    with pytest.raises(AssertionError, match="while another event was being handled"):
        dispatcher.dispatch(e.StartRequested("a", SPEC))


async def test_an_illegal_event_raises_and_changes_nothing() -> None:
    dispatcher = Dispatcher(Fleet(), lambda _: None)
    dispatcher.dispatch(e.StartRequested("a", SPEC))
    before = dispatcher.fleet
    with pytest.raises(IllegalTransition):
        dispatcher.dispatch(e.StartRequested("a", SPEC))
    assert dispatcher.fleet is before


async def test_deadlines_come_in_their_order_and_new_ones_are_noticed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    dispatcher = Dispatcher(Fleet(), lambda _: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dispatcher.run_timer)
        dispatcher.dispatch(e.StartRequested("slow", SPEC))
        await trio.sleep(10)
        dispatcher.dispatch(e.StartRequested("quick", attrs.evolve(SPEC, startup_timeout_seconds=20)))
        await trio.sleep(20.5)
        assert state_of(dispatcher, "quick") is EngineState.ERROR
        assert state_of(dispatcher, "slow") is EngineState.STARTING
        await trio.sleep(70)
        assert state_of(dispatcher, "slow") is EngineState.ERROR
        nursery.cancel_scope.cancel()
