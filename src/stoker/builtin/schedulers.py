"""The schedulers that come with Stoker: none (GPUs are not managed) and pack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stoker.contracts import GpuScheduler
from stoker.hookspecs import hookimpl
from stoker.model import EngineSpec, Gpu, Placement, Refusal

GIB = 1024**3


class Unmanaged:
    """Gives no GPU and refuses none: engines see whatever their own arguments and environment say."""

    name = "none"

    def place(
        self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Mapping[str, Sequence[str]]
    ) -> Placement | Refusal:
        """A placement that names no GPU."""
        return Placement()


class Pack:
    """Whole GPUs, and the tightest fit, so that the roomiest GPUs stay free for engines that need them.

    A GPU held by an engine is never given to another. ``required_memory_bytes`` is what the whole engine wants, shared
    evenly by its GPUs. Of an engine that doesn't say, it can only be guessed that it wants much: it gets the emptiest.
    """

    name = "pack"

    def place(
        self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Mapping[str, Sequence[str]]
    ) -> Placement | Refusal:
        """``spec.gpus`` GPUs that nobody holds and that have the memory."""
        if spec.gpus <= 0:
            return Placement()
        needed = -(-(spec.required_memory_bytes or 0) // spec.gpus)
        fitting = [gpu for gpu in gpus if not reservations.get(gpu.uuid) and _free(gpu) >= needed]
        if len(fitting) < spec.gpus:
            return Refusal(reason=_refusal(spec, needed, gpus, fitting, reservations))
        tightest_first = 1 if spec.required_memory_bytes else -1
        fitting.sort(key=lambda gpu: (tightest_first * _free(gpu), gpu.index))
        return Placement(gpus=tuple(gpu.uuid for gpu in fitting[: spec.gpus]))


def _free(gpu: Gpu) -> int:
    return max(0, gpu.memory_total - gpu.memory_used)


def _refusal(
    spec: EngineSpec,
    needed: int,
    gpus: Sequence[Gpu],
    fitting: Sequence[Gpu],
    reservations: Mapping[str, Sequence[str]],
) -> str:
    """What was needed, what is free, and who holds the rest."""
    wanted = f"{spec.model} needs {_count(spec.gpus)}"
    if needed:
        wanted += f" with {_gib(needed)} free{' each' if spec.gpus > 1 else ''}"
    if not gpus:
        return f'{wanted}, but there is none to be seen; set gpus = 0, or scheduler = "none" to manage GPUs yourself'
    fits = {gpu.uuid for gpu in fitting}
    there_are = "; ".join(_describe(gpu, gpu.uuid in fits, reservations) for gpu in gpus)
    return f"{wanted}, but only {len(fitting)} of {_count(len(gpus))} can be had: {there_are}"


def _describe(gpu: Gpu, fits: bool, reservations: Mapping[str, Sequence[str]]) -> str:
    name = f"GPU {gpu.index} ({gpu.name}, {_gib(_free(gpu))} free of {_gib(gpu.memory_total)})"
    if holders := reservations.get(gpu.uuid):
        return f"{name} is held by {', '.join(holders)}"
    return f"{name} is free" if fits else f"{name} has too little memory free"


def _count(number: int) -> str:
    return f"{number} GPU{'s' if number != 1 else ''}"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


@hookimpl
def stoker_register_schedulers() -> Sequence[GpuScheduler]:
    """Both hold no state."""
    return [Unmanaged(), Pack()]
