"""What the web app asks of the rest of the program. Its methods return at once, but for those that are ``async``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import trio

from stoker.core.reload import Difference
from stoker.model import EngineInfo, EngineSpec, GpuReport, Stray


class Change(Protocol):
    """One change of one engine. ``before`` is None for a new one, ``after`` for one that is forgotten."""

    @property
    def before(self) -> EngineInfo | None:
        """The engine as it was."""
        ...

    @property
    def after(self) -> EngineInfo | None:
        """The engine as it is now."""
        ...


class Tending(Protocol):
    """What may be done to a READY engine that can do it. Raises ConflictError otherwise, UpstreamError if it fails."""

    async def sleep(self, engine_id: str) -> None:
        """Drain it and put it to sleep. Raises ConflictError if it does not get idle within its drain time-out."""
        ...

    async def wake(self, engine_id: str) -> None:
        """Wake it."""
        ...

    async def load_adapter(self, engine_id: str, name: str, path: str) -> None:
        """Have it load an adapter that clients ask for as ``name``. Raises ConflictError for a name that is taken."""
        ...

    async def unload_adapter(self, engine_id: str, name: str) -> None:
        """Have it unload one. Raises NotFoundError for one that it did not load."""
        ...


class Control(Protocol):
    """The engines, and what an administrator may do to them. An unknown engine id raises NotFoundError everywhere."""

    @property
    def tending(self) -> Tending:
        """What else may be done to an engine."""
        ...

    def infos(self) -> tuple[EngineInfo, ...]:
        """All engines, in the order they came."""
        ...

    def info(self, engine_id: str) -> EngineInfo:
        """One engine."""
        ...

    def start(self, spec: EngineSpec, engine_id: str | None = None) -> tuple[str, ...]:
        """Start ``spec.replicas`` engines and return their ids.

        Raises NotFoundError for an unknown runtime, ConfigError for a spec its runtime can't work with, ConflictError
        for an id that is taken.
        """
        ...

    def start_again(self, engine_id: str) -> None:
        """Start an engine that is STOPPED or in ERROR. Raises ConflictError for any other."""
        ...

    def register(self, spec: EngineSpec, engine_id: str | None = None) -> str:
        """Route to a URL and return the id of its engine. Raises ConflictError for a duplicate, ConfigError."""
        ...

    def stop(self, engine_id: str, *, drain_timeout_seconds: float | None = None, forget: bool = False) -> None:
        """Drain and stop an engine, and forget it then if asked to. The drain time is the spec's own if None."""
        ...

    def restart(self, engine_id: str, *, drain_timeout_seconds: float | None = None) -> None:
        """Drain and stop an engine, then start it again."""
        ...

    async def wait_until_settled(self, engine_id: str) -> EngineInfo:
        """Return when the engine is READY, STOPPED, in ERROR, or still STARTING because it waits for GPUs to be free.

        Raises NotFoundError if it is forgotten meanwhile.
        """
        ...

    async def strays(self) -> Sequence[Stray]:
        """Processes with this home's marker that belong to no engine."""
        ...

    async def end_strays(self) -> Ended:
        """End them: which were found, and which remain."""
        ...

    def forget_ended(self) -> Sequence[str]:
        """Take engines that have ended off the list; their ids."""
        ...

    async def wait_until_stopped(self, engine_id: str) -> EngineInfo | None:
        """Return when the engine is STOPPED, or None when it is forgotten."""
        ...

    def subscribe(self) -> AbstractContextManager[trio.MemoryReceiveChannel[Change]]:
        """Every change from now on. A reader that falls too far behind finds the channel's end and subscribes anew."""
        ...

    async def log_text(self, engine_id: str, tail: int | None) -> str:
        """The last ``tail`` lines of the engine's log, or all of it."""
        ...

    def follow_log(self, engine_id: str, tail: int) -> AsyncIterator[bytes]:
        """The last ``tail`` lines of the engine's log, then what is added to it, without an end."""
        ...


class Ended(Protocol):
    """What became of processes, as pids."""

    @property
    def found(self) -> Sequence[int]:
        """Those that there were."""
        ...

    @property
    def remaining(self) -> Sequence[int]:
        """Those that could not be ended."""
        ...


class Operations(Protocol):
    """What an administrator may do to the whole program."""

    async def reload(self) -> Difference:
        """Read the configuration again and carry out what changed.

        Raises ConfigError with everything that is wrong in it, and then nothing changed; StokerError if there is none.
        """
        ...

    async def gpus(self) -> GpuReport:
        """The GPUs of this machine."""
        ...

    def gpu_ledger(self) -> Sequence[object]:
        """What engines were measured to use of GPUs: records."""
        ...

    def status(self) -> Mapping[str, Any]:
        """What else ``status`` shows, ready for JSON: ``lanes``, ``plugins``, …."""
        ...

    def stop_gateway(self, *, keep_engines: bool, now: bool) -> None:
        """End the program. Raises ConflictError while it ends already."""
        ...

    async def restart_gateway(self, *, now: bool) -> None:
        """Have the program replaced by its successor, engines running on. Raises StokerError with what is wrong."""
        ...

    def shutting_down(self) -> bool:
        """Whether the program is on its way out."""
        ...
