"""Engines: what they should be, what they are, and what a later Stoker is told of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

import attrs

from stoker.model.launching import LaunchPlan
from stoker.model.nothing import NOTHING


class EngineState(enum.StrEnum):
    """The five public states of an engine. Detail stands beside the state, never in a sixth."""

    STARTING = "STARTING"
    READY = "READY"
    DRAINING = "DRAINING"
    STOPPED = "STOPPED"
    ERROR = "ERROR"


class Origin(enum.StrEnum):
    """Where an engine came from, and so what Stoker may do to it."""

    MANAGED = "managed"  # a process tree that Stoker started and will stop
    ADOPTED = "adopted"  # one that an earlier Stoker started, and that this one found again
    REGISTERED = "registered"  # a URL that somebody named; Stoker only watches it


@attrs.frozen(kw_only=True)
class EngineSpec:
    """What an engine should be. The same names are used in ``stoker.toml``, over HTTP and here.

    ``model`` is what the engine loads (a name, a path or a URL's model name); ``names`` are what clients may call it
    besides. ``args`` go to the engine as argv, never through a shell. ``gpus`` is a count; a scheduler chooses which.
    ``policy`` chooses among the engines of the model (None: the gateway's own policy). All durations are seconds.
    """

    model: str
    runtime: str = "vllm"
    names: tuple[str, ...] = ()
    kind: str = "llm"
    label: str | None = None
    replicas: int = 1
    gpus: int = 0
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = NOTHING
    cwd: str | None = None
    command: tuple[str, ...] = ()
    port: int | None = None
    url: str | None = None
    api_key_env: str | None = None
    max_concurrency: int | None = None
    policy: str | None = None
    required_memory_bytes: int | None = None
    tensor_parallel_size: int | None = None
    pipeline_parallel_size: int | None = None
    metadata: Mapping[str, Any] = NOTHING
    health_path: str | None = None
    startup_timeout_seconds: float = 900.0
    drain_timeout_seconds: float = 30.0
    stop_grace_seconds: float = 10.0
    stall_seconds: float = 120.0
    probe_interval_seconds: float = 2.0
    probe_timeout_seconds: float = 5.0
    probe_failures: int = 3
    restart_limit: int = 5
    restart_base_seconds: float = 1.0
    restart_cap_seconds: float = 60.0
    healthy_seconds: float = 60.0

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every name a client may send for this model: ``model`` first, then the aliases, each once."""
        return tuple(dict.fromkeys((self.model, *self.names)))


@attrs.frozen(kw_only=True)
class EngineLoad:
    """What an engine's own metrics say. ``progress`` is any number that moves while the engine computes.

    ``running`` and ``waiting`` are requests; ``kv_cache_used`` is the part of the KV cache in use, 0 to 1.
    """

    running: float = 0.0
    waiting: float = 0.0
    kv_cache_used: float | None = None
    progress: float = 0.0


@attrs.frozen
class StartProgress:
    """How far an engine is that starts: what it does, in a few words, and how much of that is done, 0 to 1 if known."""

    phase: str
    fraction: float | None = None

    def __str__(self) -> str:
        return self.phase if self.fraction is None else f"{self.phase}, {self.fraction:.0%}"


@attrs.frozen(kw_only=True)
class EngineInfo:
    """An engine as the management interface shows it. Times are seconds since the Unix epoch.

    ``state_since`` is when its state last changed, as far as this run of Stoker saw it.
    """

    engine_id: str
    model: str
    names: tuple[str, ...]
    runtime: str
    kind: str
    origin: Origin
    state: EngineState
    reason: str
    host: str | None
    port: int | None
    base_url: str | None
    pid: int | None
    gpus: tuple[str, ...]
    created_at: float
    ready_at: float | None
    last_heartbeat: float | None
    consecutive_failures: int
    restarts: int
    restart_at: float | None
    active_requests: int
    max_concurrency: int | None
    last_error: str | None
    last_exit: str | None
    metadata: Mapping[str, Any]
    state_since: float | None = None
    policy: str | None = None
    asleep: bool = False
    adapters: tuple[str, ...] = ()
    load: EngineLoad | None = None
    progress: StartProgress | None = None


@attrs.frozen(kw_only=True)
class ExitStatus:
    """How a process ended: an exit code, or the signal that killed it. Never trust code 0: engines crash with it.

    Both are None for one that was not Stoker's child, and so told nobody.
    """

    code: int | None = None
    signal: int | None = None

    def __str__(self) -> str:
        if self.signal is not None:
            return f"killed by signal {self.signal}"
        if self.code is None:
            return "exit code not known"
        return f"exit code {self.code}"


@attrs.frozen(kw_only=True)
class EngineRun:
    """One run of an engine's process, as a later Stoker finds it again.

    A process is known by ``pid``, ``started`` (clock ticks since boot) and ``boot_id`` together; ``mark`` stands in its
    environment. ``pid`` is None where Stoker ended while it was being started: then ``mark`` alone tells.
    ``plan`` is how it was started, less its command and environment. ``promised`` is what it was promised of each of
    its ``gpus`` (None: all). ``ready`` says that it was READY at some time.
    """

    engine_id: str
    incarnation: int
    mark: str
    boot_id: str
    pid: int | None
    started: int | None
    host: str
    port: int
    plan: LaunchPlan
    gpus: tuple[str, ...] = ()
    promised: Mapping[str, int | None] = NOTHING
    adapters: tuple[str, ...] = ()
    ready: bool = False


@attrs.frozen(kw_only=True)
class KeptEngine:
    """One engine of the list. ``configured`` ones come from ``stoker.toml``; the others were started by somebody.

    One that is not ``wanted`` was stopped. ``run`` is its process, if it had one.
    """

    engine_id: str
    spec: EngineSpec
    origin: Origin
    configured: bool
    wanted: bool
    run: EngineRun | None = None


@attrs.frozen(kw_only=True)
class Stray:
    """A process with the marker of this home that no engine goes on with. ``engine_id`` is what its marker says.

    ``began_at`` is in seconds since the Unix epoch, ``command`` its command line, as far as it is to be seen.
    """

    pid: int
    engine_id: str
    began_at: float
    command: str
