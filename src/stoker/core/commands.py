"""What the core wants done. The dispatcher executes them; none of them may call back into it synchronously."""

from __future__ import annotations

import attrs

from stoker.model import EngineRun, EngineSpec, Origin


@attrs.frozen
class Launch:
    """Start the task that plans, spawns, probes and at last stops this incarnation."""

    engine_id: str
    incarnation: int
    spec: EngineSpec
    origin: Origin


@attrs.frozen
class Adopt:
    """Start the task that probes this incarnation, whose process runs already, and at last stops it."""

    engine_id: str
    incarnation: int
    spec: EngineSpec
    origin: Origin
    run: EngineRun


@attrs.frozen
class AwaitIdle:
    """Say :class:`~stoker.core.events.EngineIdle` as soon as the engine has no open lease."""

    engine_id: str
    incarnation: int


@attrs.frozen
class StopProcess:
    """Stop what is left of this incarnation, verified. Said again with a shorter grace, it hurries."""

    engine_id: str
    incarnation: int
    grace_seconds: float


@attrs.frozen
class ProbeNow:
    """Don't wait for the next probe's turn."""

    engine_id: str
    incarnation: int


@attrs.frozen
class FailRequests:
    """End what this incarnation is at for clients: nothing will come of it. ``error`` says why."""

    engine_id: str
    incarnation: int
    error: str


Command = Launch | Adopt | AwaitIdle | StopProcess | ProbeNow | FailRequests
