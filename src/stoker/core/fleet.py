"""The fleet and its step function: ``step(fleet, event, now) -> (fleet, commands)``.

Every decision about an engine's life is here, as a function of what it is and what happened. The state itself changes
only by :func:`stoker.core.states.next_state`; the rest of an :class:`Engine` is the detail beside the state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.engine import Engine, Fleet, Phase
from stoker.core.restart import attempts_so_far, backoff_seconds, draw
from stoker.core.states import Trigger, next_state
from stoker.errors import IllegalTransition
from stoker.model import EngineState, Origin

S = EngineState


Commands = tuple[c.Command, ...]
Outcome = tuple[Engine | None, Commands]
NO_COMMANDS: Commands = ()


def step(fleet: Fleet, event: e.Event, now: float) -> tuple[Fleet, Commands]:
    """Let ``event`` happen to ``fleet``. Raises :class:`IllegalTransition` for what the state table forbids."""
    if isinstance(event, e.TimePassed):
        return _time_passed(fleet, now)
    engine = fleet.get(event.engine_id)
    if isinstance(event, e.StartRequested):
        return _put(fleet, event.engine_id, _start(fleet, engine, event, now))
    if engine is None:
        if isinstance(event, e.StopRequested | e.SpecUpdated):
            raise IllegalTransition(f"{type(event).__name__} for {event.engine_id!r}, which is not in the fleet")
        return fleet, NO_COMMANDS  # the last words of an engine that was forgotten
    if isinstance(event, e.StopRequested):
        return _put(fleet, engine.engine_id, _stop(fleet, engine, event, now))
    if isinstance(event, e.SpecUpdated):
        return fleet.having(_updated(engine, event)), NO_COMMANDS
    if event.incarnation != engine.incarnation or engine.phase is Phase.NONE:
        return fleet, NO_COMMANDS  # of a dead incarnation
    handler = _HANDLERS[type(event)]
    return _put(fleet, engine.engine_id, handler(fleet, engine, event, now))


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
            outcome = _fail(fleet, engine, Trigger.START_TIMED_OUT, error, now)
        elif engine.state is S.DRAINING:
            outcome = _stop_process(attrs.evolve(engine, reason="stopping: the drain time is over"))
        else:
            outcome = _launch(fleet, engine, Trigger.RESTART_DUE, now, attempts=engine.attempts)
        fleet, more = _put(fleet, engine.engine_id, outcome)
        commands.extend(more)
    return fleet, tuple(commands)


def _put(fleet: Fleet, engine_id: str, outcome: Outcome) -> tuple[Fleet, Commands]:
    engine, commands = outcome
    return (fleet.without(engine_id) if engine is None else fleet.having(engine)), commands


# Starting


def _start(fleet: Fleet, engine: Engine | None, event: e.StartRequested, now: float) -> Outcome:
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
        return _launch(fleet, engine, Trigger.START_REQUESTED, now, attempts=0)
    if watched and same:
        return engine, (c.ProbeNow(engine.engine_id, engine.incarnation),)
    if watched:  # at another URL, or not as a URL any more: whoever watches the old one ends first
        return _stop(fleet, engine, e.StopRequested(engine.engine_id, 0.0, 0.0, e.AfterStop.START), now)
    # What is left of the old incarnation goes first; the restart is then due at once.
    return attrs.evolve(engine, attempts=0, restart_at=now, reason="starts again when its old processes are gone"), ()


def _launch(fleet: Fleet, engine: Engine, trigger: Trigger, now: float, *, attempts: int) -> Outcome:
    registered = engine.origin is Origin.REGISTERED
    engine = attrs.evolve(
        engine,
        state=next_state(engine.state, trigger),
        incarnation=fleet.launches + 1,
        phase=Phase.LAUNCHING,
        reason="restarting" if trigger is Trigger.RESTART_DUE else "starting",
        attempts=attempts,
        restarts=engine.restarts + 1,
        startup_deadline=None if registered else now + engine.spec.startup_timeout_seconds,
        ready_at=None,
        restart_at=None,
        drain_deadline=None,
        consecutive_failures=0,
        after_stop=e.AfterStop.STAY,
        endpoint=e.Endpoint(),
    )
    return engine, (c.Launch(engine.engine_id, engine.incarnation, engine.spec, engine.origin),)


def _launched(_fleet: Fleet, engine: Engine, event: e.Launched, _now: float) -> Outcome:
    phase = Phase.ALIVE if engine.phase is Phase.LAUNCHING else engine.phase  # a stop may have come first
    return attrs.evolve(engine, phase=phase, endpoint=event.endpoint), NO_COMMANDS


def _launch_failed(fleet: Fleet, engine: Engine, event: e.LaunchFailed, now: float) -> Outcome:
    gone = attrs.evolve(engine, phase=Phase.NONE, last_error=event.error)
    if engine.state is S.STARTING:
        return _fail(fleet, gone, Trigger.LAUNCH_FAILED, event.error, now, retryable=event.retryable)
    if engine.state is S.ERROR:  # its start-up time ran out while it was being planned
        return gone, NO_COMMANDS
    return _stopped(fleet, gone, now, "")


def _updated(engine: Engine, event: e.SpecUpdated) -> Engine:
    """Of an engine that is about to come back as another spec, that one is meant."""
    if engine.next_spec is not None:
        return attrs.evolve(engine, next_spec=event.spec)
    return attrs.evolve(engine, spec=event.spec)


# Failing and recovering


def _fail(fleet: Fleet, engine: Engine, trigger: Trigger, error: str, now: float, *, retryable: bool = True) -> Outcome:
    """To ERROR: stop what is left, and decide whether and when to try again."""
    state = next_state(engine.state, trigger)
    attempts = attempts_so_far(engine.spec, engine.attempts, engine.ready_at, now)
    limit = engine.spec.restart_limit
    restart_at = None
    watched = engine.origin is Origin.REGISTERED and engine.phase is not Phase.NONE
    if watched:
        reason = "not answering; taken back when it does"
    elif not retryable:
        reason = "can't start as it is; change what the error names, then restart it"
    elif attempts >= limit:
        reason = f"given up after {attempts} restart{'s' if attempts != 1 else ''}"
    else:
        attempts += 1
        restart_at = now + backoff_seconds(
            engine.spec, attempts, draw(fleet.seed, engine.engine_id, engine.incarnation)
        )
        reason = f"restart {attempts} of {limit} follows"
    engine = attrs.evolve(
        engine,
        state=state,
        reason=reason,
        last_error=error,
        attempts=attempts,
        restart_at=restart_at,
        startup_deadline=None,
        grace_seconds=engine.spec.stop_grace_seconds,
    )
    if engine.phase is Phase.NONE or watched:
        return engine, NO_COMMANDS
    return _stop_process(engine)


def _probe_succeeded(_fleet: Fleet, engine: Engine, _event: e.ProbeSucceeded, now: float) -> Outcome:
    heard = attrs.evolve(engine, last_heartbeat=now, consecutive_failures=0)
    recovers = engine.state is S.ERROR and engine.origin is Origin.REGISTERED and engine.phase is not Phase.STOPPING
    if engine.state is S.STARTING or recovers:
        ready = next_state(engine.state, Trigger.PROBE_SUCCEEDED)
        heard = attrs.evolve(heard, state=ready, reason="", ready_at=now, startup_deadline=None, restart_at=None)
    return heard, NO_COMMANDS


def _probe_failed(fleet: Fleet, engine: Engine, event: e.ProbeFailed, now: float) -> Outcome:
    if engine.state is S.STARTING:
        # A managed engine has until its deadline. A URL that does not answer is simply not there (yet).
        waiting = attrs.evolve(engine, consecutive_failures=engine.consecutive_failures + 1)
        if engine.origin is Origin.REGISTERED and waiting.consecutive_failures >= engine.spec.probe_failures:
            return _fail(fleet, waiting, Trigger.START_TIMED_OUT, event.error, now)
        return waiting, NO_COMMANDS
    if engine.state is S.ERROR and engine.origin is Origin.MANAGED:
        return engine, NO_COMMANDS  # a probe that was under way when it failed; why it failed is known better
    failing = attrs.evolve(engine, consecutive_failures=engine.consecutive_failures + 1, last_error=event.error)
    if engine.state is not S.READY or failing.consecutive_failures < engine.spec.probe_failures:
        return failing, NO_COMMANDS
    error = f"{failing.consecutive_failures} probes in a row failed, the last with: {event.error}"
    return _fail(fleet, failing, Trigger.PROBES_FAILED, error, now)


def _stalled(fleet: Fleet, engine: Engine, event: e.EngineStalled, now: float) -> Outcome:
    if engine.state is not S.READY:
        return engine, NO_COMMANDS
    return _fail(fleet, engine, Trigger.PROBES_FAILED, event.error, now)


def _process_exited(fleet: Fleet, engine: Engine, event: e.ProcessExited, now: float) -> Outcome:
    engine = attrs.evolve(engine, last_exit=str(event.status))
    if engine.phase is Phase.STOPPING:
        return engine, NO_COMMANDS  # as it was told to
    if engine.state is S.DRAINING:
        state = next_state(engine.state, Trigger.PROCESS_EXITED)
        return _stop_process(attrs.evolve(engine, state=state, reason="its process exited while draining"))
    during = "while starting" if engine.state is S.STARTING else "while ready"
    error = f"its process ended {during}: {event.status}"
    if event.log_excerpt:
        error += f"; the end of its log:\n{event.log_excerpt}"
    return _fail(fleet, engine, Trigger.PROCESS_EXITED, error, now)


def _suspected(_fleet: Fleet, engine: Engine, event: e.EngineSuspected, _now: float) -> Outcome:
    if engine.state is not S.READY:
        return engine, NO_COMMANDS
    suspected = attrs.evolve(engine, last_error=event.error)
    return suspected, (c.ProbeNow(engine.engine_id, engine.incarnation),)


# Stopping


def _stop(fleet: Fleet, engine: Engine, event: e.StopRequested, now: float) -> Outcome:
    if engine.state is S.STOPPED:
        next_state(engine.state, Trigger.STOP_REQUESTED)
        if event.after is e.AfterStop.FORGET:
            return None, NO_COMMANDS
        if event.after is e.AfterStop.START:
            spec = event.next_spec or engine.spec
            return _launch(fleet, attrs.evolve(engine, spec=spec), Trigger.START_REQUESTED, now, attempts=0)
        return engine, NO_COMMANDS
    if engine.state is S.DRAINING:
        return _shorten(engine, event, now)
    engine = attrs.evolve(
        engine,
        state=next_state(engine.state, Trigger.STOP_REQUESTED),
        reason="draining",
        startup_deadline=None,
        restart_at=None,
        drain_deadline=now + event.drain_timeout_seconds,
        grace_seconds=event.grace_seconds,
        after_stop=event.after,
        next_spec=event.next_spec,
    )
    if engine.phase is Phase.NONE:
        return _stopped(fleet, engine, now, "")
    if engine.phase is Phase.STOPPING:  # it was in ERROR, and is being cleared away
        return engine, (c.StopProcess(engine.engine_id, engine.incarnation, event.grace_seconds),)
    if event.drain_timeout_seconds <= 0:
        return _stop_process(engine)
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
        return _stop_process(engine)
    return engine, NO_COMMANDS


def _idle(_fleet: Fleet, engine: Engine, _event: e.EngineIdle, _now: float) -> Outcome:
    if engine.state is not S.DRAINING or engine.phase is Phase.STOPPING:
        return engine, NO_COMMANDS
    return _stop_process(attrs.evolve(engine, reason="stopping"))


def _stop_process(engine: Engine) -> Outcome:
    stopping = attrs.evolve(engine, phase=Phase.STOPPING)
    return stopping, (c.StopProcess(engine.engine_id, engine.incarnation, engine.grace_seconds),)


def _process_stopped(fleet: Fleet, engine: Engine, event: e.ProcessStopped, now: float) -> Outcome:
    gone = attrs.evolve(engine, phase=Phase.NONE, endpoint=e.Endpoint())
    if engine.state is S.DRAINING:
        return _stopped(fleet, gone, now, event.note)
    if engine.state is S.ERROR:
        return gone, NO_COMMANDS
    raise IllegalTransition(f"{engine.engine_id} was stopped while {engine.state}, which nobody asked for")


def _stopped(fleet: Fleet, engine: Engine, now: float, note: str) -> Outcome:
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
        return _launch(fleet, engine, Trigger.START_REQUESTED, now, attempts=0)
    return engine, NO_COMMANDS


_Handler = Callable[[Fleet, Engine, Any, float], Outcome]
_HANDLERS: Mapping[type, _Handler] = MappingProxyType(
    {
        e.Launched: _launched,
        e.LaunchFailed: _launch_failed,
        e.ProbeSucceeded: _probe_succeeded,
        e.ProbeFailed: _probe_failed,
        e.EngineStalled: _stalled,
        e.ProcessExited: _process_exited,
        e.ProcessStopped: _process_stopped,
        e.EngineIdle: _idle,
        e.EngineSuspected: _suspected,
    }
)
