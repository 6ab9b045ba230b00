"""The records everything else talks about. Frozen, but for what every request makes anew; no behaviour beyond derived
values.

Times inside the program are seconds of a monotonic clock; :class:`EngineInfo` and :class:`RequestRecord`, which leave
it, carry seconds since the Unix epoch. Memory is in bytes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import attrs

NOTHING: Mapping[str, Any] = MappingProxyType({})


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
class Placement:
    """Where an engine will run: which GPUs (by UUID) a scheduler gave it, and which environment's Python."""

    gpus: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    python: Path | None = None


@attrs.frozen(kw_only=True)
class Refusal:
    """A scheduler's "no", with the reason a user needs: what was wanted, what is free, who holds it."""

    reason: str


@attrs.frozen(kw_only=True)
class TokenProbe:
    """The smallest real request of an engine family: proves that it still computes, not only that it listens."""

    path: str
    body: Mapping[str, Any]


@attrs.frozen(kw_only=True)
class SleepPaths:
    """Where an engine family puts an engine to sleep (its memory is given back, its process stays) and wakes it.

    ``sleep`` and ``wake`` are POSTed to; ``asleep`` is asked by GET and answers a JSON object whose one boolean member
    says whether the engine sleeps.
    """

    sleep: str
    wake: str
    asleep: str


@attrs.frozen(kw_only=True)
class AdapterPaths:
    """Where an engine family loads and unloads LoRA adapters as it runs: POST, with ``lora_name`` and ``lora_path``."""

    load: str
    unload: str


@attrs.frozen(kw_only=True)
class LaunchPlan:
    """How to start one engine and how to know that it lives.

    ``argv`` is empty for an engine that is only a URL. ``env`` is laid over Stoker's own environment. ``health_path``
    answers 200 when, and only when, the engine can take requests. ``metrics_path`` is given where the runtime's
    ``scrape`` can read what stands there.

    ``names`` are those under which the engine itself knows the model, its proper one first; None where it knows all of
    the spec's. A request that asks for another is rewritten to ask for the first.

    ``sleeping`` and ``adapters`` are given where this engine, started like this, can sleep and change its adapters.
    """

    argv: tuple[str, ...] = ()
    env: Mapping[str, str] = NOTHING
    cwd: str | None = None
    base_url: str
    health_path: str = "/health"
    metrics_path: str | None = None
    token_probe: TokenProbe | None = None
    names: tuple[str, ...] | None = None
    sleeping: SleepPaths | None = None
    adapters: AdapterPaths | None = None


@attrs.frozen(kw_only=True)
class EngineRun:
    """One run of an engine's process, as a later Stoker finds it again.

    A process is known by ``pid``, ``started`` (clock ticks since boot) and ``boot_id`` together; ``mark`` stands in its
    environment. ``pid`` is None where Stoker ended while it was being started: then ``mark`` alone tells.
    ``plan`` is how it was started, less its command and environment. ``promised`` is what it was promised of each of
    its ``gpus`` (None: all).
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
class EnvironmentSpec:
    """What a runtime needs installed beside it, in a virtual environment of its own.

    ``requirements`` are pip requirements with their dependencies, ``bare_requirements`` without (``--no-deps``, for
    packages that only carry weights), ``remove`` are packages to take out again afterwards. ``env`` are variables
    set for the installing pip where the user has not set them. ``files`` are written into the environment's
    ``share/stoker`` folder; ``prepare`` is a command run last, in which ``{python}`` and ``{share}`` are replaced.
    """

    requirements: tuple[str, ...]
    bare_requirements: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    env: Mapping[str, str] = NOTHING
    files: Mapping[str, str] = NOTHING
    prepare: tuple[str, ...] = ()
    summary: str = ""


@attrs.frozen(kw_only=True)
class Backend:
    """One engine as the data plane sees it: where it is, what it serves, and whether it takes requests.

    ``accepting`` is true for a READY engine. ``expected`` is true for one that may soon be: starting, or due to be
    restarted; requests wait for it. ``renames`` maps names that the engine does not know to the one that it knows.
    ``policy`` is what the engine's spec says of how to choose among the engines of the model. ``api_key`` is sent to
    the engine and never shown.
    """

    engine_id: str
    incarnation: int
    base_url: str
    model: str
    names: tuple[str, ...]
    kind: str
    runtime: str
    paths: frozenset[str]
    max_concurrency: int | None = None
    renames: Mapping[str, str] = NOTHING
    policy: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    accepting: bool = False
    expected: bool = False
    detail: str = ""


@attrs.frozen(kw_only=True)
class Activity:
    """What the data plane knows of an engine: its open leases, when a byte last came from it (monotonic), its load."""

    active_requests: int = 0
    progress_at: float | None = None
    load: EngineLoad | None = None


@attrs.define(kw_only=True, eq=False)
class RouteRequest:
    """What a routing policy may look at: never the connection, and of the rest only what its ``needs`` name.

    ``model`` is the name that the client sent. ``headers`` (``headers``) have lower-case names; those with credentials
    (``authorization``, ``proxy-authorization``, ``cookie``, ``api-key``, ``x-api-key``) are left out. ``body``
    (``body``) is the whole body. ``prompt`` (``prompt``) is what the engine is to read, as the client wrote it: the
    JSON texts of the body's ``instructions``, ``system``, ``tools``, ``messages``, ``prompt``, ``input`` that are
    there, in this order and joined.
    ``session`` (``session``) is the first text among the body's ``session_id``, ``prompt_cache_key``, ``user``. What is
    not asked for, or not there, is empty.
    """

    request_id: str
    model: str
    path: str
    headers: Mapping[str, str] = NOTHING
    body: bytes = b""
    prompt: bytes = b""
    session: str = ""


@attrs.define(kw_only=True, eq=False)
class Candidate:
    """A READY engine a request may go to. A live view: ``in_flight`` is the engine's load whenever it is read.

    ``load`` is what the engine's own metrics last said, some seconds ago at most; None where they can't be read.
    Only the gateway writes to it. An engine stays the same candidate for as long as its process lives, so that whatever
    is remembered of a candidate (what its cache holds) is forgotten with the process.
    """

    engine_id: str
    in_flight: int = 0
    max_concurrency: int | None = None
    load: EngineLoad | None = None


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
class GpuProcess:
    """A process that holds memory of a GPU."""

    pid: int
    memory_used: int | None = None
    engine_id: str | None = None


@attrs.frozen(kw_only=True)
class Gpu:
    """One GPU as NVML describes it. Memory in bytes, utilisation in percent, temperature in °C, power in watts.

    ``engines`` hold something of it, each by one of ``reservations``; ``memory_promised`` is the sum of those.
    """

    index: int
    uuid: str
    name: str
    memory_total: int
    memory_used: int
    utilisation: int | None = None
    temperature: int | None = None
    power: float | None = None
    power_limit: float | None = None
    processes: tuple[GpuProcess, ...] = ()
    engines: tuple[str, ...] = ()
    memory_promised: int = 0
    reservations: tuple[Reservation, ...] = ()

    @property
    def memory_free(self) -> int:
        """Bytes that nobody uses at this moment; some of them may be promised."""
        return max(0, self.memory_total - self.memory_used)

    @property
    def is_empty(self) -> bool:
        """Whether next to nothing of it is used: a tenth at most, or the 1 GiB that a desktop takes of a small one."""
        return self.memory_used <= max(self.memory_total // 10, 2**30)


@attrs.frozen(kw_only=True)
class Reservation:
    """What one engine holds of one GPU: ``memory`` bytes were promised to it (None: the whole GPU), of which its
    processes use ``used`` by now. ``starting`` is true until it is READY.
    """

    engine_id: str
    memory: int | None = None
    used: int = 0
    starting: bool = False


@attrs.frozen(kw_only=True)
class Reservations:
    """What is promised of the GPUs, and what an engine that is to be placed needs of each. Keys are UUIDs of GPUs.

    ``needed`` bytes of a GPU are known from the spec, from an earlier run or from the runtime; None means that nobody
    knows, and that the engine must have the GPU for itself, empty of strangers' memory too.
    """

    held: Mapping[str, tuple[Reservation, ...]] = NOTHING
    needed: Mapping[str, int | None] = NOTHING

    def holders(self, gpu: Gpu) -> tuple[str, ...]:
        """The ids of the engines that hold something of ``gpu``."""
        return tuple(each.engine_id for each in self.held.get(gpu.uuid, ()))

    def free(self, gpu: Gpu) -> int:
        """Bytes that can be promised: what is measured as free, less what was promised and is not used yet."""
        promised = 0
        for each in self.held.get(gpu.uuid, ()):
            if each.memory is None:
                return 0
            promised += max(0, each.memory - each.used)
        return max(0, gpu.memory_free - promised)

    def fits(self, gpu: Gpu) -> bool:
        """Whether the engine can have what it needs of ``gpu``; where nobody knows how much, it must be empty."""
        needed = self.needed.get(gpu.uuid)
        if needed is None:
            return gpu.is_empty and not self.held.get(gpu.uuid)
        return self.free(gpu) >= needed


@attrs.frozen(kw_only=True)
class GpuReport:
    """The GPUs of this machine. ``reason`` says why there are none to see, or which of them could not be read.

    ``incomplete`` is true where another reading may find more: the driver failed or did not answer, or a GPU did not.
    """

    gpus: tuple[Gpu, ...] = ()
    reason: str | None = None
    incomplete: bool = False


@attrs.frozen(kw_only=True)
class EngineInfo:
    """An engine as the management interface shows it. Times are seconds since the Unix epoch."""

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
    policy: str | None = None
    asleep: bool = False
    adapters: tuple[str, ...] = ()
    load: EngineLoad | None = None
    progress: StartProgress | None = None


@attrs.frozen(kw_only=True)
class RequestRecord:
    """One request that is over, for observers. Times are seconds, ``began_at`` since the Unix epoch.

    ``model`` is the engine's model and ``engine_id`` the engine that answered last; both are empty where none was
    reached. ``asked`` is the name that the client sent. ``status`` is the answer's, or 499 for a client that left.
    ``waited_seconds`` passed before the request had an engine; ``first_byte_seconds`` before the answer began, None
    where it never did. Tokens are None where the engine did not report them. ``session_id`` is the stored conversation
    that it went on with.

    ``caller`` says who asked, as the audit trail does (``key`` and its id, never the key). ``trace_id``, ``span_id``
    and the rest are its place in a trace (W3C Trace Context), the ids in hexadecimal: the engine was given ``span_id``
    as its parent; ``parent_span_id`` is what the client sent, empty where it sent none and the trace began here.
    """

    request_id: str
    path: str
    asked: str
    model: str
    engine_id: str
    status: int
    stream: bool
    began_at: float
    duration_seconds: float
    waited_seconds: float
    first_byte_seconds: float | None
    attempts: int
    received_bytes: int
    sent_bytes: int
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str = ""
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    sampled: bool = False
    tracestate: str = ""
    caller: str = ""
    session_id: str = ""
