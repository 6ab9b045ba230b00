"""What can happen to the fleet. An event names the incarnation it speaks of; those of a dead one are dropped."""

from __future__ import annotations

import enum

import attrs

from stoker.model import EngineRun, EngineSpec, ExitStatus, Origin, StartProgress


class AfterStop(enum.Enum):
    """What becomes of an engine once it is STOPPED."""

    STAY = "stay"
    START = "start"
    FORGET = "forget"


@attrs.frozen(kw_only=True)
class Endpoint:
    """Where an incarnation can be found, what it calls its model, and how it rests. All empty while there is none.

    ``names`` are the plan's: None where the engine knows all that its spec has. ``adapters`` are what it loaded since
    it runs: further names. Those ``held`` are being loaded or unloaded: taken, but nobody is sent there for them yet or
    any more. One that is ``withheld`` is given no requests, because it is about to be put to sleep.
    """

    base_url: str | None = None
    host: str | None = None
    port: int | None = None
    pid: int | None = None
    gpus: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    adapters: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    withheld: bool = False
    asleep: bool = False


@attrs.frozen
class StartRequested:
    """Somebody wants this engine: a new one, or one that is STOPPED or in ERROR.."""

    engine_id: str
    spec: EngineSpec
    origin: Origin = Origin.MANAGED


@attrs.frozen
class EngineAdopted:
    """An earlier Stoker started it, and its process ``run`` still lives at ``endpoint``."""

    engine_id: str
    spec: EngineSpec
    run: EngineRun
    endpoint: Endpoint


@attrs.frozen
class EngineKept:
    """It was stopped when an earlier Stoker ended, and so it stays."""

    engine_id: str
    spec: EngineSpec
    origin: Origin


@attrs.frozen
class StopRequested:
    """Somebody wants this engine gone. On a DRAINING engine it can only shorten what is under way.

    ``drain_timeout_seconds`` 0 means "don't wait for its requests"; ``grace_seconds`` is the time between SIGTERM and
    SIGKILL. ``next_spec`` replaces the spec for the start that ``after`` asks for.
    """

    engine_id: str
    drain_timeout_seconds: float
    grace_seconds: float
    after: AfterStop = AfterStop.STAY
    next_spec: EngineSpec | None = None


@attrs.frozen
class SpecUpdated:
    """The spec changed in a way that needs no restart (other names, another limit)."""

    engine_id: str
    spec: EngineSpec


@attrs.frozen
class LaunchDelayed:
    """It waits for its GPUs: another one is starting there, or (``refused``) they are not free."""

    engine_id: str
    incarnation: int
    reason: str
    refused: bool


@attrs.frozen
class LaunchResumed:
    """It has the GPUs that it waited for."""

    engine_id: str
    incarnation: int


@attrs.frozen
class Launched:
    """The process runs (or, for a URL, its watching began) and will answer at ``endpoint``."""

    engine_id: str
    incarnation: int
    endpoint: Endpoint


@attrs.frozen
class StartProgressed:
    """Its log says that it is so far."""

    engine_id: str
    incarnation: int
    progress: StartProgress


@attrs.frozen
class LaunchFailed:
    """There is no process: it could not be planned, placed or spawned. Not retried unless ``retryable``."""

    engine_id: str
    incarnation: int
    error: str
    retryable: bool = True


@attrs.frozen
class ProbeSucceeded:
    """The engine answered its probe."""

    engine_id: str
    incarnation: int


@attrs.frozen
class ProbeFailed:
    """The engine did not answer its probe, and is not excused by being busy (:mod:`stoker.core.liveness`).

    ``silent`` says that it holds requests besides, and that none of them has moved for ``stall_seconds``.
    """

    engine_id: str
    incarnation: int
    error: str
    silent: bool = False


@attrs.frozen
class EngineStalled:
    """The engine holds requests, makes no progress, and did not answer a one-token request either: it is dead."""

    engine_id: str
    incarnation: int
    error: str


@attrs.frozen
class PortTaken:
    """Somebody else listens where the engine was told to: it can never be reached there."""

    engine_id: str
    incarnation: int
    error: str


@attrs.frozen
class ProcessExited:
    """The engine's main process ended, seen at once through its pidfd. ``log_excerpt`` is what it said last.

    ``left`` counts processes of it that go on; it is counted where the first ended as if all were well.
    """

    engine_id: str
    incarnation: int
    status: ExitStatus
    log_excerpt: str = ""
    left: int = 0


@attrs.frozen
class ProcessStopped:
    """Every process of the incarnation is gone (verified), or ``note`` says what could not be verified."""

    engine_id: str
    incarnation: int
    note: str = ""


@attrs.frozen
class EngineIdle:
    """The last lease on a draining engine was closed."""

    engine_id: str
    incarnation: int


@attrs.frozen
class EngineSuspected:
    """The data plane saw a connection to the engine fail: look at it now, not at the next probe."""

    engine_id: str
    incarnation: int
    error: str


@attrs.frozen
class SleepWanted:
    """Somebody is about to put the engine to sleep (``wanted``), or is done with it, however that ended."""

    engine_id: str
    incarnation: int
    wanted: bool


@attrs.frozen
class SleepChanged:
    """The engine sleeps, or does not (any more), whoever told it to."""

    engine_id: str
    incarnation: int
    asleep: bool


@attrs.frozen
class AdaptersChanged:
    """The engine loaded an adapter, or unloaded one: these are all it has, and all that are ``held``."""

    engine_id: str
    incarnation: int
    adapters: tuple[str, ...]
    held: tuple[str, ...] = ()


@attrs.frozen
class TimePassed:
    """A deadline in the fleet may have come: see :func:`stoker.core.fleet.next_deadline`."""


Event = (
    StartRequested
    | EngineAdopted
    | EngineKept
    | StopRequested
    | SpecUpdated
    | LaunchDelayed
    | LaunchResumed
    | Launched
    | StartProgressed
    | LaunchFailed
    | ProbeSucceeded
    | ProbeFailed
    | EngineStalled
    | PortTaken
    | ProcessExited
    | ProcessStopped
    | EngineIdle
    | EngineSuspected
    | SleepWanted
    | SleepChanged
    | AdaptersChanged
    | TimePassed
)
