"""What the management side may do besides running engines: what needs the configuration or the machine."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import attrs
import trio

from stoker import config
from stoker.core.naming import expand
from stoker.core.reload import Difference, plan_reload
from stoker.errors import ConfigError, ConflictError, Mistake
from stoker.gpu.ledger import Entry, Ledger
from stoker.model import EngineRun, EngineSpec, GpuReport, KeptEngine
from stoker.returning import Returning
from stoker.settings import Settings
from stoker.supervise import proctable
from stoker.supervise.supervisor import Supervisor


class Ending(enum.Enum):
    """How the program ends: with its engines, without them, or as its own successor."""

    STOP = "stop"
    KEEP_ENGINES = "keep engines"
    RESTART = "restart"


class Ends(Protocol):
    """The program, as far as it can be told to end."""

    def leave(self, ending: Ending, *, now: bool) -> None:
        """End like this; ``now`` without waiting for what is being answered. Raises :class:`ConflictError`."""
        ...

    async def restart(self, *, now: bool) -> None:
        """End as the successor. Raises :class:`StokerError` where that one would not start."""
        ...


@attrs.define(eq=False)
class Operations:
    """The configuration, the machine and the program itself, as the management side asks for them."""

    supervisor: Supervisor
    registry: config.Provided
    read_gpus: Callable[[], Awaitable[GpuReport]]
    about: Mapping[str, Any]
    program: Ends
    config_path: Path | None = None
    ledger: Ledger = attrs.field(factory=Ledger)
    _configured: dict[str, EngineSpec] = attrs.field(factory=dict)
    _started_with: Settings = attrs.field(factory=Settings)
    _reloading: trio.Lock = attrs.field(factory=trio.Lock)

    def start_configured(
        self, settings: Settings, kept: Sequence[KeptEngine] = (), living: Sequence[EngineRun] = ()
    ) -> tuple[str, ...]:
        """Start every engine of the configuration, and those that somebody had started besides, before Stoker ended.

        ``kept`` is the list of the earlier Stoker, ``living`` what of it still runs: that is gone on with, as far as
        it is still wanted so. Raises :class:`ConfigError` with all that is wrong, then nothing is started.
        """
        wanted = self._check(settings)
        self._set_configured(wanted)
        self._started_with = settings
        Returning(self.supervisor, wanted, kept, living).take_back()
        return tuple(wanted)

    async def reload(self) -> Difference:
        """Read the configuration again and do what changed; all of it, or nothing where anything in it is wrong.

        Engines that were started or registered over HTTP are not the configuration's, and stay.
        """
        async with self._reloading:
            if self.config_path is None:
                raise ConflictError("Stoker was started without a configuration file; there is nothing to read again")
            settings = await trio.to_thread.run_sync(config.load, self.config_path)
            difference = self._apply(self._check(settings))
            return attrs.evolve(difference, at_next_start=_changed_settings(self._started_with, settings))

    def _apply(self, wanted: Mapping[str, EngineSpec]) -> Difference:
        there = self.supervisor.specs()
        current = {engine_id: there[engine_id] for engine_id in self._configured if engine_id in there}
        plan = plan_reload(current, wanted)
        for engine_id in plan.stop:
            self.supervisor.stop(engine_id, forget=True)
        for engine_id, spec in plan.restart.items():
            self.supervisor.restart(engine_id, spec=spec)
        for engine_id, spec in plan.update.items():
            self.supervisor.update(engine_id, spec)
        for engine_id, spec in plan.start.items():
            if self.supervisor.is_leaving(engine_id):  # it comes back under the same id when the old one is gone
                self.supervisor.restart(engine_id, spec=spec)
            else:
                self.supervisor.start(spec, engine_id)
        self._set_configured(wanted)
        return plan.difference

    def _set_configured(self, wanted: Mapping[str, EngineSpec]) -> None:
        self._configured = dict(wanted)
        self.supervisor.keeper.configured = frozenset(wanted)

    def _check(self, settings: Settings) -> Mapping[str, EngineSpec]:
        """The engines that ``settings`` want, by id. Raises :class:`ConfigError` with all that is in their way."""
        wanted = expand(settings.engines)
        mistakes = [*config.check_against(settings, self.registry), *self._collisions(settings, wanted)]
        if mistakes:
            raise ConfigError(str(self.config_path or "the configuration"), mistakes)
        return wanted

    def _collisions(self, settings: Settings, wanted: Mapping[str, EngineSpec]) -> Iterator[Mistake]:
        """With engines that are not the configuration's. An id is never moved aside: it would move back some day."""
        for index, spec in enumerate(settings.engines):
            try:
                self.supervisor.check_names(spec, besides=self._configured)
            except ConflictError as error:
                yield Mistake(f"engine[{index}]", str(error))
        for engine_id in wanted:
            if engine_id not in self._configured and engine_id in self.supervisor.specs():
                way_out = "stop and forget that one, or give this one another label"
                yield Mistake("engine", f"the id {engine_id!r} is another engine's; {way_out}")

    def stop_gateway(self, *, keep_engines: bool, now: bool) -> None:
        """End the program, with its engines or without. Raises :class:`ConflictError` while it ends already."""
        if keep_engines and not proctable.HAS_PROC:
            raise ConflictError("this system can't tell which processes are engines, so that none could be found again")
        self.program.leave(Ending.KEEP_ENGINES if keep_engines else Ending.STOP, now=now)

    async def restart_gateway(self, *, now: bool) -> None:
        """Have the program replaced by whatever its file is by now; engines run on.

        Raises :class:`StokerError` with what is wrong with that, and then nothing happens.
        """
        await self.program.restart(now=now)

    def shutting_down(self) -> bool:
        """Whether the program is on its way out."""
        return self.supervisor.leaving

    async def gpus(self) -> GpuReport:
        """The GPUs of this machine, with the engines that hold them and those whose processes use them."""
        return await self.read_gpus()

    def gpu_ledger(self) -> Sequence[Entry]:
        """What engines were measured to use of GPUs, the latest last."""
        return self.ledger.entries

    def status(self) -> Mapping[str, Any]:
        """What stands besides the engines in the status."""
        return self.about


_BY_FLAGS = frozenset({"listen", "log_format"})


def _changed_settings(before: Settings, after: Settings) -> tuple[str, ...]:
    """The paths of all settings that differ, but for those of engines, and those that flags may have set."""
    paths = [f"gateway.{name}" for name in _differing(before.gateway, after.gateway) if name not in _BY_FLAGS]
    paths += [f"sessions.{name}" for name in _differing(before.sessions, after.sessions)]
    names = sorted({*before.runtimes, *after.runtimes})
    paths += [f"runtime.{name}" for name in names if before.runtimes.get(name) != after.runtimes.get(name)]
    names = sorted({*before.policies, *after.policies})
    paths += [f"policy.{name}" for name in names if before.policies.get(name) != after.policies.get(name)]
    tables = ("gateway", "sessions", "engines", "runtimes", "policies")
    return (*paths, *(name for name in _differing(before, after) if name not in tables))


def _differing(before: attrs.AttrsInstance, after: attrs.AttrsInstance) -> list[str]:
    names = [field.name for field in attrs.fields(type(before))]
    return [name for name in names if getattr(before, name) != getattr(after, name)]
