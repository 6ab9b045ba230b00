"""The next incarnation of an engine."""

from __future__ import annotations

import attrs

from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.engine import Engine, Fleet, Phase
from stoker.core.outcome import Outcome
from stoker.core.states import Trigger, next_state
from stoker.model import Origin


def launch(fleet: Fleet, engine: Engine, trigger: Trigger, now: float, *, attempts: int) -> Outcome:
    """A new incarnation, under the same id and in the same place."""
    registered = engine.origin is Origin.REGISTERED
    engine = attrs.evolve(
        engine,
        state=next_state(engine.state, trigger),
        origin=Origin.MANAGED if engine.origin is Origin.ADOPTED else engine.origin,
        incarnation=fleet.launches + 1,
        was_ready=False,
        phase=Phase.LAUNCHING,
        reason="restarting" if trigger is Trigger.RESTART_DUE else "starting",
        progress=None,
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
