"""Gives engines what they need of the machine before they start: GPUs, and the interpreter of their environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import trio

from stoker.contracts import GpuScheduler
from stoker.errors import LaunchError, PermanentLaunchError
from stoker.model import EngineSpec, GpuReport, Placement, Refusal

MEMORY_BACK_SECONDS = 30.0


@attrs.define(eq=False)
class Placer:
    """Places engines, and remembers which GPUs it gave to whom until they are released."""

    scheduler: GpuScheduler
    read_gpus: Callable[[], GpuReport]
    find_python: Callable[[str], Path | None]
    _held: dict[str, tuple[str, ...]] = attrs.field(factory=dict)

    @property
    def held(self) -> Mapping[str, tuple[str, ...]]:
        """Which GPUs (by UUID) each engine holds."""
        return self._held

    async def place(self, engine_id: str, spec: EngineSpec) -> Placement:
        """GPUs and an interpreter for ``spec``. Raises :class:`LaunchError` with the scheduler's reason."""
        python = await trio.to_thread.run_sync(self.find_python, spec.runtime)
        if spec.gpus == 0:
            return Placement(python=python)
        report = await trio.to_thread.run_sync(self.read_gpus)
        # From here to the reservation there is no await: two engines can't be given one GPU.
        if not report.gpus:
            wanted = f"{spec.gpus} GPU{'s' if spec.gpus != 1 else ''}"
            raise PermanentLaunchError(f"it wants {wanted} and there are none: {report.reason or 'NVML lists no GPU'}")
        placed = self._ask_scheduler(spec, report)
        if isinstance(placed, Refusal):
            raise LaunchError(f"no GPUs for it: {placed.reason}")
        self._held[engine_id] = placed.gpus
        return attrs.evolve(placed, python=python)

    def _ask_scheduler(self, spec: EngineSpec, report: GpuReport) -> Placement | Refusal:
        try:
            return self.scheduler.place(spec, report.gpus, self._reservations())
        except Exception as error:  # the plugin boundary: a scheduler's defect costs the engine, and is named
            raise LaunchError(
                f"scheduler {self.scheduler.name!r} could not place it: {type(error).__name__}: {error}"
            ) from error

    def release(self, engine_id: str) -> None:
        """The engine is gone; its GPUs are free."""
        self._held.pop(engine_id, None)

    async def memory_back(self, gpus: tuple[str, ...], pids: frozenset[int]) -> str:
        """Wait until no process of ``pids`` holds memory of ``gpus``; a note when that takes too long."""
        with trio.move_on_after(MEMORY_BACK_SECONDS):
            while await self._holding(gpus, pids):
                await trio.sleep(0.2)
            return ""
        return f"GPU memory was not back {MEMORY_BACK_SECONDS:g} s after the last process ended"

    async def _holding(self, gpus: tuple[str, ...], pids: frozenset[int]) -> bool:
        report = await trio.to_thread.run_sync(self.read_gpus)
        return any(process.pid in pids for gpu in report.gpus if gpu.uuid in gpus for process in gpu.processes)

    def _reservations(self) -> Mapping[str, tuple[str, ...]]:
        holders: dict[str, list[str]] = {}
        for engine_id, gpus in self._held.items():
            for uuid in gpus:
                holders.setdefault(uuid, []).append(engine_id)
        return {uuid: tuple(ids) for uuid, ids in holders.items()}
