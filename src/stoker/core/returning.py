"""How engines come back that an earlier Stoker had: with their process, or as stopped."""

from __future__ import annotations

import attrs

from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.engine import Engine, Phase
from stoker.core.outcome import NO_COMMANDS, Outcome
from stoker.core.states import Trigger, next_state
from stoker.model import Origin


def adopted(event: e.EngineAdopted, now: float) -> Outcome:
    """Its process runs. Whether it is ready, its probes say; if it never was, it has as long for that as a new one."""
    engine = Engine(
        engine_id=event.engine_id,
        spec=event.spec,
        origin=Origin.ADOPTED,
        state=next_state(None, Trigger.ADOPTED),
        created_at=now,
        incarnation=event.run.incarnation,
        was_ready=event.run.ready,
        phase=Phase.ALIVE,
        reason="found again",
        startup_deadline=now + event.spec.startup_timeout_seconds,
        endpoint=attrs.evolve(event.endpoint, adapters=event.run.adapters),
    )
    return engine, (c.Adopt(engine.engine_id, engine.incarnation, engine.spec, engine.origin, event.run),)


def kept(event: e.EngineKept, now: float) -> Outcome:
    """It was stopped, and nothing of it is there."""
    engine = Engine(
        engine_id=event.engine_id,
        spec=event.spec,
        origin=event.origin,
        state=next_state(None, Trigger.KEPT),
        created_at=now,
        incarnation=0,
        phase=Phase.NONE,
        reason="stopped before Stoker was restarted",
    )
    return engine, NO_COMMANDS
