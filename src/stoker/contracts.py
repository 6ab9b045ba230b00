"""What plugins implement. A plugin's hooks (:mod:`stoker.hookspecs`) return objects of these shapes.

They are called on the event loop and must return at once: no I/O, no sleeping, no locks. The exceptions are the
runtime's ``plan``, ``estimate_memory``, ``scrape`` and ``start_progress``: those are called in worker threads, several
at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

from stoker.model import (
    Candidate,
    EngineLoad,
    EngineSpec,
    EnvironmentSpec,
    Gpu,
    LaunchPlan,
    Placement,
    Refusal,
    Reservations,
    RouteRequest,
    StartProgress,
)

NEEDS = frozenset({"headers", "body", "prompt", "session"})
"""What a :class:`RoutingPolicy` may need of a request. What they are is said at :class:`stoker.model.RouteRequest`."""

CREDENTIALS = frozenset({"api-key", "authorization", "cookie", "proxy-authorization", "x-api-key"})
"""The headers with which clients authenticate themselves to the gateway. Neither engines nor policies are told them."""


@runtime_checkable
class EngineRuntime(Protocol):
    """Knows one engine family: how it is started, how it is asked whether it lives, and what it serves."""

    @property
    def name(self) -> str:
        """What ``runtime = "…"`` says in a spec. Lower case, stable."""
        ...

    @property
    def environment(self) -> EnvironmentSpec | None:
        """What ``stoker runtime install NAME`` installs; None where the runtime needs nothing of ours."""
        ...

    def check(self, spec: EngineSpec) -> Sequence[str]:
        """Everything in ``spec`` this runtime can't work with, one sentence each; empty when it can."""
        ...

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        """The command that starts ``spec`` on ``port``. ``placement.python`` is the environment's interpreter.

        Called in a worker thread, so that it may look at the disk. It starts nothing and changes nothing.
        Raises :class:`stoker.errors.LaunchError` (or the permanent kind) with a remedy when there is none.
        """
        ...

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        """The request paths an engine of this spec answers, such as ``/v1/chat/completions``."""
        ...

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """Bytes of memory the engine will want of each of its GPUs, if they are like ``gpu``; None: can't tell."""
        ...

    def scrape(self, text: str) -> EngineLoad:
        """Read the engine's own metrics page. Unknown text gives an empty load, never an error."""
        ...


@runtime_checkable
class Narrating(Protocol):
    """What a runtime may have besides: it reads in its engine's log how far the start is."""

    def start_progress(self, line: str) -> StartProgress | None:
        """What a line of the log tells of that; None for a line that tells nothing, as most do.

        Called in a worker thread with the newest lines, the newest first, until one tells something, while the engine
        is STARTING. Whatever a line holds, it raises nothing.
        """
        ...


@runtime_checkable
class RoutingPolicy(Protocol):
    """Chooses among the READY engines of a model for one request."""

    @property
    def name(self) -> str:
        """What ``policy = "…"`` says in the configuration."""
        ...

    @property
    def needs(self) -> frozenset[str]:
        """What it must see of a request besides model and path: any of ``headers``, ``body``, ``prompt``, ``session``.

        What they are is said at :class:`stoker.model.RouteRequest`. Each costs the gateway some time.
        """
        ...

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        """One of ``candidates``, which is never empty. ``now`` is seconds of a monotonic clock.

        It promises nothing: the request may fail before it has its lease, and ``stoker route explain`` asks too. What
        the policy remembers of requests it learns from ``opened`` and ``closed``.
        """
        ...

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        """A lease on ``candidate`` was opened for ``request``."""
        ...

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        """That lease was closed. Called exactly once for each ``opened``."""
        ...


@runtime_checkable
class Explaining(Protocol):
    """What a policy may have besides: it can say why it chooses as it does."""

    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        """One sentence on why :meth:`RoutingPolicy.choose` gives what it gives for the same arguments."""
        ...


@runtime_checkable
class Configurable(Protocol):
    """What a policy may have besides: options, from its table ``[policy.NAME]`` of the configuration."""

    def configured(self, options: Mapping[str, Any]) -> Self:
        """A new policy with these options; those not given keep their defaults.

        Raises ValueError that names the option and says what it may be. Called at start-up and by ``config check``.
        """
        ...


@runtime_checkable
class GpuScheduler(Protocol):
    """Chooses GPUs for an engine that is about to start."""

    @property
    def name(self) -> str:
        """What ``scheduler = "…"`` says in the configuration."""
        ...

    def place(self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations) -> Placement | Refusal:
        """``spec.gpus`` of ``gpus`` for ``spec`` (their UUIDs in a Placement), or a Refusal that says what is missing.

        ``reservations`` knows what the engine needs of each GPU, what of it can be had, and who holds the rest. A
        placement on a GPU that does not fit is refused by Stoker, in the scheduler's name.
        """
        ...
