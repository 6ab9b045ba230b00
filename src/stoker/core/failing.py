"""How an engine fails, and how it comes back."""

from __future__ import annotations

import attrs

from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.engine import Engine, Fleet, Phase
from stoker.core.outcome import NO_COMMANDS, Outcome
from stoker.core.restart import attempts_so_far, backoff_seconds, draw
from stoker.core.states import Trigger, next_state
from stoker.core.stopping import stop_process
from stoker.model import EngineState, Origin

S = EngineState


def probe_succeeded(_fleet: Fleet, engine: Engine, _event: e.ProbeSucceeded, now: float) -> Outcome:
    """It answered: it is READY, if it was starting or is a URL that was not answering."""
    heard = attrs.evolve(engine, last_heartbeat=now, consecutive_failures=0)
    recovers = engine.state is S.ERROR and engine.origin is Origin.REGISTERED and engine.phase is not Phase.STOPPING
    if engine.state is S.STARTING or recovers:
        ready = next_state(engine.state, Trigger.PROBE_SUCCEEDED)
        heard = attrs.evolve(heard, state=ready, reason="", ready_at=now, startup_deadline=None, restart_at=None)
    return heard, NO_COMMANDS


def probe_failed(fleet: Fleet, engine: Engine, event: e.ProbeFailed, now: float) -> Outcome:
    """It did not answer; enough of that in a row is an error."""
    if engine.state is S.STARTING:
        waiting = attrs.evolve(engine, consecutive_failures=engine.consecutive_failures + 1)
        if waiting.consecutive_failures < engine.spec.probe_failures or not _has_had_its_time(engine, now):
            return waiting, NO_COMMANDS
        return fail(fleet, waiting, Trigger.START_TIMED_OUT, event.error, now)
    if engine.state is S.ERROR and engine.origin is not Origin.REGISTERED:
        return engine, NO_COMMANDS  # a probe that was under way when it failed; why it failed is known better
    # It may have stopped listening and still answer what it holds; if that does not move either, it is over.
    over = (_fail_requests(engine, event.error),) if event.silent and engine.state is S.ERROR else NO_COMMANDS
    failing = attrs.evolve(engine, consecutive_failures=engine.consecutive_failures + 1, last_error=event.error)
    if engine.state is not S.READY or failing.consecutive_failures < engine.spec.probe_failures:
        return failing, over
    error = f"{failing.consecutive_failures} probes in a row failed, the last with: {event.error}"
    return fail(fleet, failing, Trigger.PROBES_FAILED, error, now)


def _has_had_its_time(engine: Engine, now: float) -> bool:
    """Whether one that starts is over if it fails its probes, before its start-up time is.

    A URL that does not answer is simply not there (yet). A process that was READY does not start, however it looks to
    a Stoker that just found it; it may be busy with what an earlier one gave it.
    """
    if engine.was_ready:
        return now - engine.created_at >= engine.spec.stall_seconds
    return engine.origin is Origin.REGISTERED


def stalled(fleet: Fleet, engine: Engine, event: e.EngineStalled, now: float) -> Outcome:
    """It holds requests and does nothing: dead, and so are they. Behind a URL no end of a process would tell them."""
    over = _fail_requests(engine, event.error)
    if engine.state is not S.READY:
        return engine, (over,)
    failed, commands = fail(fleet, engine, Trigger.PROBES_FAILED, event.error, now)
    return failed, (over, *commands)


def port_taken(fleet: Fleet, engine: Engine, event: e.PortTaken, now: float) -> Outcome:
    """It will never be heard where it was told to listen; the next start finds another port."""
    if engine.state is not S.STARTING:
        return engine, NO_COMMANDS
    return fail(fleet, engine, Trigger.LAUNCH_FAILED, event.error, now)


def process_exited(fleet: Fleet, engine: Engine, event: e.ProcessExited, now: float) -> Outcome:
    """Its process ended, asked or not."""
    engine = attrs.evolve(engine, last_exit=str(event.status))
    if engine.phase is Phase.STOPPING:
        return engine, NO_COMMANDS  # as it was told to
    if engine.state is S.DRAINING:
        state = next_state(engine.state, Trigger.PROCESS_EXITED)
        return stop_process(attrs.evolve(engine, state=state, reason="its process exited while draining"))
    during = "while starting" if engine.state is S.STARTING else "while ready"
    error = f"its process ended {during}: {event.status}"
    if event.left and engine.state is S.STARTING:  # later it may be what a crash left
        error += f"; it left {event.left} in the background, where engines can't be watched: keep it in the foreground"
    if event.log_excerpt:
        error += f"; the end of its log:\n{event.log_excerpt}"
    return fail(fleet, engine, Trigger.PROCESS_EXITED, error, now)


def suspected(_fleet: Fleet, engine: Engine, event: e.EngineSuspected, _now: float) -> Outcome:
    """The data plane saw it fail: look at it now."""
    if engine.state is not S.READY:
        return engine, NO_COMMANDS
    doubted = attrs.evolve(engine, last_error=event.error)
    return doubted, (c.ProbeNow(engine.engine_id, engine.incarnation),)


def _fail_requests(engine: Engine, error: str) -> c.FailRequests:
    return c.FailRequests(engine.engine_id, engine.incarnation, error)


def fail(fleet: Fleet, engine: Engine, trigger: Trigger, error: str, now: float, *, retryable: bool = True) -> Outcome:
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
        refused=False,
        grace_seconds=engine.spec.stop_grace_seconds,
    )
    if engine.phase is Phase.NONE or watched:
        return engine, NO_COMMANDS
    return stop_process(engine)
