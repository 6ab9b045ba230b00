"""The fleet and its step function: ``step(fleet, event, now) -> (fleet, commands)``.

What happens to one engine is decided beside this module, in :mod:`~stoker.core.returning`,
:mod:`~stoker.core.starting`, :mod:`~stoker.core.failing`, :mod:`~stoker.core.stopping` and :mod:`~stoker.core.resting`,
as functions of what it is and what happened. A state changes only by :func:`stoker.core.states.next_state`; the rest
of an :class:`Engine` is the detail beside the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.engine import Engine, Fleet, Phase
from stoker.core.failing import fail, port_taken, probe_failed, probe_succeeded, process_exited, stalled, suspected
from stoker.core.launching import launch
from stoker.core.outcome import NO_COMMANDS, Commands, Outcome
from stoker.core.resting import adapters_changed, sleep_changed, sleep_wanted
from stoker.core.returning import adopted, kept
from stoker.core.starting import delayed, launch_failed, launched, progressed, resumed, start, updated
from stoker.core.states import Trigger
from stoker.core.stopping import become_idle, process_stopped, stop, stop_process
from stoker.errors import IllegalTransition
from stoker.model import EngineState

S = EngineState


def step(fleet: Fleet, event: e.Event, now: float) -> tuple[Fleet, Commands]:
    """Let ``event`` happen to ``fleet``. Raises :class:`IllegalTransition` for what the state table forbids."""
    if isinstance(event, e.TimePassed):
        return _time_passed(fleet, now)
    engine = fleet.get(event.engine_id)
    if isinstance(event, e.StartRequested):
        return _put(fleet, event.engine_id, start(fleet, engine, event, now), now)
    if isinstance(event, e.EngineAdopted | e.EngineKept):
        if engine is not None:
            raise IllegalTransition(f"{type(event).__name__} for {event.engine_id!r}, which is in the fleet already")
        taken_back = adopted(event, now) if isinstance(event, e.EngineAdopted) else kept(event, now)
        return _put(fleet, event.engine_id, taken_back, now)
    if engine is None:
        if isinstance(event, e.StopRequested | e.SpecUpdated):
            raise IllegalTransition(f"{type(event).__name__} for {event.engine_id!r}, which is not in the fleet")
        return fleet, NO_COMMANDS  # the last words of an engine that was forgotten
    if isinstance(event, e.StopRequested):
        return _put(fleet, engine.engine_id, stop(fleet, engine, event, now), now)
    if isinstance(event, e.SpecUpdated):
        return fleet.having(updated(engine, event)), NO_COMMANDS
    if event.incarnation != engine.incarnation or engine.phase is Phase.NONE:
        return fleet, NO_COMMANDS  # of a dead incarnation
    handler = _HANDLERS[type(event)]
    return _put(fleet, engine.engine_id, handler(fleet, engine, event, now), now)


def next_deadline(fleet: Fleet) -> float | None:
    """When :class:`~stoker.core.events.TimePassed` is next due, or None while nothing waits for time."""
    return min((due for engine in fleet.engines.values() if (due := _deadline(engine)) is not None), default=None)


def _deadline(engine: Engine) -> float | None:
    if engine.state is S.STARTING:
        return engine.startup_deadline
    if engine.state is S.DRAINING and engine.phase is not Phase.STOPPING:
        return engine.drain_deadline
    if engine.state is S.ERROR and engine.phase is Phase.NONE:
        return engine.restart_at
    return None


def _time_passed(fleet: Fleet, now: float) -> tuple[Fleet, Commands]:
    commands: list[c.Command] = []
    for engine in fleet.engines.values():
        due = _deadline(engine)
        if due is None or due > now:
            continue
        if engine.state is S.STARTING:
            error = f"not ready {engine.spec.startup_timeout_seconds:g} s after its start"
            outcome = fail(fleet, engine, Trigger.START_TIMED_OUT, error, now)
        elif engine.state is S.DRAINING:
            outcome = stop_process(attrs.evolve(engine, reason="stopping: the drain time is over"))
        else:
            outcome = launch(fleet, engine, Trigger.RESTART_DUE, now, attempts=engine.attempts)
        fleet, more = _put(fleet, engine.engine_id, outcome, now)
        commands.extend(more)
    return fleet, tuple(commands)


def _put(fleet: Fleet, engine_id: str, outcome: Outcome, now: float) -> tuple[Fleet, Commands]:
    engine, commands = outcome
    if engine is None:
        return fleet.without(engine_id), commands
    before = fleet.get(engine_id)
    if before is not None and before.state is not engine.state:
        engine = attrs.evolve(engine, state_since=now)
    return fleet.having(engine), commands


_Handler = Callable[[Fleet, Engine, Any, float], Outcome]
_HANDLERS: Mapping[type, _Handler] = MappingProxyType(
    {
        e.LaunchDelayed: delayed,
        e.LaunchResumed: resumed,
        e.Launched: launched,
        e.StartProgressed: progressed,
        e.LaunchFailed: launch_failed,
        e.ProbeSucceeded: probe_succeeded,
        e.ProbeFailed: probe_failed,
        e.EngineStalled: stalled,
        e.PortTaken: port_taken,
        e.ProcessExited: process_exited,
        e.ProcessStopped: process_stopped,
        e.EngineIdle: become_idle,
        e.EngineSuspected: suspected,
        e.SleepWanted: sleep_wanted,
        e.SleepChanged: sleep_changed,
        e.AdaptersChanged: adapters_changed,
    }
)
