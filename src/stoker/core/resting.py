"""Sleep and adapters: what an engine tells of itself beside its state, for as long as its process lives."""

from __future__ import annotations

import attrs

from stoker.core import events as e
from stoker.core.engine import Engine, Fleet
from stoker.core.outcome import NO_COMMANDS, Outcome


def sleep_wanted(_fleet: Fleet, engine: Engine, event: e.SleepWanted, _now: float) -> Outcome:
    """It gets no requests while somebody puts it to sleep."""
    return _with(engine, attrs.evolve(engine.endpoint, withheld=event.wanted))


def sleep_changed(_fleet: Fleet, engine: Engine, event: e.SleepChanged, _now: float) -> Outcome:
    """It sleeps, or it is awake."""
    return _with(engine, attrs.evolve(engine.endpoint, asleep=event.asleep))


def adapters_changed(_fleet: Fleet, engine: Engine, event: e.AdaptersChanged, _now: float) -> Outcome:
    """It knows other names now."""
    return _with(engine, attrs.evolve(engine.endpoint, adapters=event.adapters, held=event.held))


def _with(engine: Engine, endpoint: e.Endpoint) -> Outcome:
    return attrs.evolve(engine, endpoint=endpoint), NO_COMMANDS
