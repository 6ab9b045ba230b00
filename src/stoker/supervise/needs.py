"""How much of each GPU an engine needs, as far as anybody knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from stoker.containing import contained
from stoker.errors import LaunchError, PermanentLaunchError
from stoker.model import EngineSpec, Gpu

Estimate = Callable[[EngineSpec, Gpu], int | None]
"""What a runtime says that an engine will want of each of its GPUs, if they are like this one."""


class Measurements(Protocol):
    """What engines were measured to use, kept between runs."""

    def needed(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """Bytes that an engine like this used of a GPU like this; None: never measured."""
        ...

    def measured(self, spec: EngineSpec, gpu: Gpu, used: int, *, anew: bool) -> None:
        """An engine uses that much. ``anew`` is said by the first measurement of a run."""
        ...

    async def save(self) -> None:
        """Keep what was noted."""
        ...


class NoMeasurements:
    """Remembers nothing."""

    def needed(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        """Never measured."""
        return None

    def measured(self, spec: EngineSpec, gpu: Gpu, used: int, *, anew: bool) -> None:
        """Forgotten at once."""

    async def save(self) -> None:
        """Nothing to keep."""


def needs_of(
    spec: EngineSpec, gpus: Sequence[Gpu], estimate: Estimate, ledger: Measurements
) -> Mapping[str, int | None]:
    """Bytes by the UUID of the GPU; None: nobody knows. Blocks, if the runtime does.

    What the spec says counts for the whole engine, and is shared evenly by its GPUs. Else it is the larger of what was
    measured and what the runtime estimates: an engine that reserves memory by a rule (vLLM does) won't start with less.
    Raises :class:`PermanentLaunchError` that names a runtime that breaks.
    """
    if spec.required_memory_bytes:
        return dict.fromkeys((gpu.uuid for gpu in gpus), -(-spec.required_memory_bytes // max(1, spec.gpus)))
    needs: dict[str, int | None] = {}
    for gpu in gpus:
        with contained(
            f"runtime {spec.runtime!r} could not estimate its memory", PermanentLaunchError, passing=LaunchError
        ):
            estimated = _bytes(estimate(spec, gpu))
        needs[gpu.uuid] = max(estimated or 0, ledger.needed(spec, gpu) or 0) or None
    return needs


def _bytes(estimated: object) -> int | None:
    if estimated is None or (isinstance(estimated, int) and not isinstance(estimated, bool) and estimated >= 0):
        return estimated
    raise TypeError(f"it gave {estimated!r}; it must give bytes, as a whole number, or None")
