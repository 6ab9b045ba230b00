"""Keeps the list of engines, and what of them runs, where a later Stoker finds it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence

import attrs
import trio

from stoker.core.engine import Engine, Fleet, Phase
from stoker.core.events import AfterStop
from stoker.model import EngineRun, EngineState, KeptEngine, Origin

Save = Callable[[Sequence[KeptEngine]], Awaitable[object]]
"""Keeps a list instead of the one before. Never raises for what disks do."""


@attrs.define(eq=False)
class Keeper:
    """Writes the list whenever it changed, the whole of it, one writing at a time.

    ``configured`` are the ids of the engines that the configuration names.
    """

    save: Save
    configured: Collection[str] = ()
    _fleet: Fleet = attrs.field(factory=Fleet)
    _runs: dict[str, EngineRun] = attrs.field(factory=dict)
    _unwanted: frozenset[str] | None = None
    _version: int = 0
    _saved: int = 0
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _turn: trio.Lock = attrs.field(factory=trio.Lock)

    def fleet_changed(self, fleet: Fleet) -> None:
        """This is the fleet now. It is kept soon."""
        self._fleet = fleet
        self._touch()

    def found(self, run: EngineRun) -> None:
        """It runs since an earlier Stoker."""
        self._runs[run.engine_id] = run

    def marks(self) -> frozenset[str]:
        """The markers of everything that runs, or is about to."""
        runs = (self._run_of(engine) for engine in self._fleet.engines.values())
        return frozenset(run.mark for run in runs if run is not None)

    async def keep(self, run: EngineRun) -> None:
        """It runs, or is about to; kept when this returns, if it can be."""
        self._runs[run.engine_id] = run
        self._touch()
        await self.flush()

    def freeze_wishes(self, *, and_start_what_is_configured: bool = False) -> None:
        """From now on engines stop because Stoker ends: the next one starts those that would run now.

        One of the configuration's that somebody stopped stays stopped over a restart, but not over an end of Stoker.
        """
        if self._unwanted is None:
            unwanted = {engine_id for engine_id, engine in self._fleet.engines.items() if not _is_wanted(engine)}
            self._unwanted = frozenset(unwanted.difference(self.configured if and_start_what_is_configured else ()))
            self._touch()

    async def flush(self) -> None:
        """Have everything kept that is known by now."""
        asked = self._version
        async with self._turn:
            if self._saved < asked:
                version, engines = self._version, tuple(self._list())
                await self.save(engines)
                self._saved = version

    async def run(self) -> None:
        """The task that keeps what changes. In the end, also when it is cancelled, all is kept."""
        try:
            while True:
                await self._changed.wait()
                self._changed = trio.Event()
                await self.flush()
        finally:
            with trio.CancelScope(shield=True):
                await self.flush()

    def _touch(self) -> None:
        self._version += 1
        self._changed.set()

    def _list(self) -> Iterator[KeptEngine]:
        for engine_id, engine in self._fleet.engines.items():
            if engine.leaving:
                continue
            unwanted = not _is_wanted(engine) if self._unwanted is None else engine_id in self._unwanted
            yield KeptEngine(
                engine_id=engine_id,
                spec=engine.next_spec or engine.spec,
                origin=Origin.REGISTERED if engine.origin is Origin.REGISTERED else Origin.MANAGED,
                configured=engine_id in self.configured,
                wanted=not unwanted,
                run=self._run_of(engine),
            )

    def _run_of(self, engine: Engine) -> EngineRun | None:
        run = self._runs.get(engine.engine_id)
        if run is None or run.incarnation != engine.incarnation or engine.phase is Phase.NONE:
            return None
        ready = engine.ready_at is not None or engine.was_ready
        return attrs.evolve(run, adapters=engine.endpoint.adapters, ready=ready)


def _is_wanted(engine: Engine) -> bool:
    """Whether somebody wants it to run, however it does at this moment."""
    if engine.state is EngineState.DRAINING:
        return engine.after_stop is AfterStop.START
    return engine.state is not EngineState.STOPPED
