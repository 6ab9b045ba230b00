"""How an engine stops: drained, then verified, then what was wanted after it."""

from __future__ import annotations

import attrs

from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.engine import Engine, Fleet, Phase
from stoker.core.launching import launch
from stoker.core.outcome import NO_COMMANDS, Outcome
from stoker.core.states import Trigger, next_state
from stoker.errors import IllegalTransition
from stoker.model import EngineState, Origin

S = EngineState


def stop(fleet: Fleet, engine: Engine, event: e.StopRequested, now: float) -> Outcome:
    """Somebody wants it gone: drain it, or hurry a stop that is under way."""
    if engine.state is S.STOPPED:
        next_state(engine.state, Trigger.STOP_REQUESTED)
        if event.after is e.AfterStop.FORGET:
            return None, NO_COMMANDS
        if event.after is e.AfterStop.START:
            spec = event.next_spec or engine.spec
            return launch(fleet, attrs.evolve(engine, spec=spec), Trigger.START_REQUESTED, now, attempts=0)
        return engine, NO_COMMANDS
    if engine.state is S.DRAINING:
        return _shorten(engine, event, now)
    engine = attrs.evolve(
        engine,
        state=next_state(engine.state, Trigger.STOP_REQUESTED),
        reason="draining",
        startup_deadline=None,
        refused=False,
        restart_at=None,
        drain_deadline=now + event.drain_timeout_seconds,
        grace_seconds=event.grace_seconds,
        after_stop=event.after,
        next_spec=event.next_spec,
    )
    if engine.phase is Phase.NONE:
        return stopped(fleet, engine, now, "")
    if engine.phase is Phase.STOPPING:  # it was in ERROR, and is being cleared away
        return engine, (c.StopProcess(engine.engine_id, engine.incarnation, event.grace_seconds),)
    if event.drain_timeout_seconds <= 0:
        return stop_process(engine)
    return engine, (c.AwaitIdle(engine.engine_id, engine.incarnation),)


def _shorten(engine: Engine, event: e.StopRequested, now: float) -> Outcome:
    assert engine.drain_deadline is not None
    # What was asked last decides what follows, except that "forget" is not taken back by a plain stop.
    keep = event.after is e.AfterStop.STAY and engine.after_stop is e.AfterStop.FORGET
    engine = attrs.evolve(
        engine,
        state=next_state(engine.state, Trigger.STOP_REQUESTED),
        drain_deadline=min(engine.drain_deadline, now + event.drain_timeout_seconds),
        grace_seconds=min(engine.grace_seconds, event.grace_seconds),
        after_stop=engine.after_stop if keep else event.after,
        next_spec=event.next_spec or engine.next_spec,
    )
    assert engine.drain_deadline is not None
    if engine.phase is Phase.STOPPING or engine.drain_deadline <= now:
        return stop_process(engine)
    return engine, NO_COMMANDS


def become_idle(_fleet: Fleet, engine: Engine, _event: e.EngineIdle, _now: float) -> Outcome:
    """Its last lease is closed: stop the process."""
    if engine.state is not S.DRAINING or engine.phase is Phase.STOPPING:
        return engine, NO_COMMANDS
    return stop_process(attrs.evolve(engine, reason="stopping"))


def stop_process(engine: Engine) -> Outcome:
    """Have what is left of the incarnation stopped, verified.

    The requests of a process end with it. Behind a URL nothing ends, so there they are ended.
    """
    stopping = attrs.evolve(engine, phase=Phase.STOPPING)
    stop = c.StopProcess(engine.engine_id, engine.incarnation, engine.grace_seconds)
    if engine.origin is not Origin.REGISTERED:
        return stopping, (stop,)
    return stopping, (c.FailRequests(engine.engine_id, engine.incarnation, "it was stopped"), stop)


def process_stopped(fleet: Fleet, engine: Engine, event: e.ProcessStopped, now: float) -> Outcome:
    """Nothing of the incarnation is left."""
    gone = attrs.evolve(engine, phase=Phase.NONE, endpoint=e.Endpoint())
    if engine.state is S.DRAINING:
        return stopped(fleet, gone, now, event.note)
    if engine.state is S.ERROR:
        return gone, NO_COMMANDS
    raise IllegalTransition(f"{engine.engine_id} was stopped while {engine.state}, which nobody asked for")


def stopped(fleet: Fleet, engine: Engine, now: float, note: str) -> Outcome:
    """From DRAINING to STOPPED, and on to what was wanted after it."""
    state = next_state(engine.state, Trigger.STOP_VERIFIED)
    engine = attrs.evolve(
        engine,
        state=state,
        reason=note,
        spec=engine.next_spec or engine.spec,
        next_spec=None,
        drain_deadline=None,
        ready_at=None,
        endpoint=e.Endpoint(),
    )
    if engine.after_stop is e.AfterStop.FORGET:
        return None, NO_COMMANDS
    if engine.after_stop is e.AfterStop.START:
        return launch(fleet, engine, Trigger.START_REQUESTED, now, attempts=0)
    return engine, NO_COMMANDS
