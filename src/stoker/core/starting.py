"""How an engine starts, and how its spec changes."""

from __future__ import annotations

import attrs

from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.engine import Engine, Fleet, Phase
from stoker.core.failing import fail
from stoker.core.launching import launch
from stoker.core.outcome import NO_COMMANDS, Outcome
from stoker.core.states import Trigger, next_state
from stoker.core.stopping import stop, stopped
from stoker.model import EngineState, Origin

S = EngineState


def start(fleet: Fleet, engine: Engine | None, event: e.StartRequested, now: float) -> Outcome:
    """Somebody wants it: a new engine, or one that is STOPPED or in ERROR."""
    if engine is None:
        registered = event.origin is Origin.REGISTERED
        trigger = Trigger.REGISTERED if registered else Trigger.START_REQUESTED
        new = Engine(
            engine_id=event.engine_id,
            spec=event.spec,
            origin=event.origin,
            state=next_state(None, trigger),
            created_at=now,
            incarnation=fleet.launches + 1,
            reason="starting",
            startup_deadline=None if registered else now + event.spec.startup_timeout_seconds,
        )
        return new, (c.Launch(new.engine_id, new.incarnation, new.spec, new.origin),)
    next_state(engine.state, Trigger.START_REQUESTED)
    same = (engine.spec, engine.origin) == (event.spec, event.origin)
    watched = engine.origin is Origin.REGISTERED and engine.phase is not Phase.NONE
    engine = attrs.evolve(engine, spec=event.spec, origin=event.origin)
    if engine.phase is Phase.NONE:
        return launch(fleet, engine, Trigger.START_REQUESTED, now, attempts=0)
    if watched and same:
        return engine, (c.ProbeNow(engine.engine_id, engine.incarnation),)
    if watched:  # at another URL, or not as a URL any more: whoever watches the old one ends first
        return stop(fleet, engine, e.StopRequested(engine.engine_id, 0.0, 0.0, e.AfterStop.START), now)
    # What is left of the old incarnation goes first; the restart is then due at once.
    return attrs.evolve(engine, attempts=0, restart_at=now, reason="starts again when its old processes are gone"), ()


def delayed(_fleet: Fleet, engine: Engine, event: e.LaunchDelayed, _now: float) -> Outcome:
    """It waits for GPUs, for as long as it takes: neither its start-up time nor its restart budget is used up."""
    if engine.state is not S.STARTING:  # a stop came first
        return engine, NO_COMMANDS
    return attrs.evolve(engine, reason=event.reason, refused=event.refused, startup_deadline=None), NO_COMMANDS


def resumed(_fleet: Fleet, engine: Engine, _event: e.LaunchResumed, now: float) -> Outcome:
    """Its start-up time counts from here."""
    if engine.state is not S.STARTING:
        return engine, NO_COMMANDS
    deadline = now + engine.spec.startup_timeout_seconds
    return attrs.evolve(engine, reason="starting", refused=False, startup_deadline=deadline), NO_COMMANDS


def launched(_fleet: Fleet, engine: Engine, event: e.Launched, _now: float) -> Outcome:
    """Its process runs, or its URL is watched."""
    phase = Phase.ALIVE if engine.phase is Phase.LAUNCHING else engine.phase  # a stop may have come first
    return attrs.evolve(engine, phase=phase, endpoint=event.endpoint), NO_COMMANDS


def progressed(_fleet: Fleet, engine: Engine, event: e.StartProgressed, _now: float) -> Outcome:
    """It is so far. What its log says later, as one that is READY or stops, is no start any more."""
    if engine.state is not S.STARTING:
        return engine, NO_COMMANDS
    return attrs.evolve(engine, progress=event.progress), NO_COMMANDS


def launch_failed(fleet: Fleet, engine: Engine, event: e.LaunchFailed, now: float) -> Outcome:
    """There is no process."""
    gone = attrs.evolve(engine, phase=Phase.NONE, last_error=event.error)
    if engine.state is S.STARTING:
        return fail(fleet, gone, Trigger.LAUNCH_FAILED, event.error, now, retryable=event.retryable)
    if engine.state is S.ERROR:  # its start-up time ran out while it was being planned
        return gone, NO_COMMANDS
    return stopped(fleet, gone, now, "")


def updated(engine: Engine, event: e.SpecUpdated) -> Engine:
    """Of an engine that is about to come back as another spec, that one is meant."""
    if engine.next_spec is not None:
        return attrs.evolve(engine, next_spec=event.spec)
    return attrs.evolve(engine, spec=event.spec)
