"""The schedulers that come with Stoker: pack, spread, and none (GPUs are not managed)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stoker.contracts import GpuScheduler
from stoker.hookspecs import hookimpl
from stoker.model import EngineSpec, Gpu, GpuProcess, Placement, Refusal, Reservation, Reservations

GIB = 1024**3

_Rank = tuple[float, ...]


class Unmanaged:
    """Gives no GPU and refuses none: engines see whatever their own arguments and environment say."""

    name = "none"

    def place(self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations) -> Placement | Refusal:
        """A placement that names no GPU."""
        return Placement()


class Pack:
    """The tightest fit, so that few GPUs are in use, and the roomiest stay free for engines that need them.

    Of an engine that nobody knows the needs of, it can only be guessed that it wants much: it gets the emptiest.
    """

    name = "pack"

    def place(self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations) -> Placement | Refusal:
        """``spec.gpus`` GPUs of one kind with the least room that is enough."""

        def rank(gpu: Gpu) -> _Rank:
            free = reservations.free(gpu)
            return (1, -free) if reservations.needed.get(gpu.uuid) is None else (0, free)

        return _place(spec, gpus, reservations, rank)


class Spread:
    """The emptiest GPUs, so that engines share as little as possible; among equals, those with fewer engines."""

    name = "spread"

    def place(self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations) -> Placement | Refusal:
        """``spec.gpus`` GPUs of one kind with the most room."""

        def rank(gpu: Gpu) -> _Rank:
            return -reservations.free(gpu), len(reservations.holders(gpu))

        return _place(spec, gpus, reservations, rank)


def _place(
    spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations, rank: Callable[[Gpu], _Rank]
) -> Placement | Refusal:
    """The first GPUs by ``rank`` that make a set: all fit, and all are of one kind, so that none waits for a slower.

    Where several kinds could, that one is taken whose set ranks first, judged by its worst GPU.
    """
    if spec.gpus <= 0:
        return Placement()

    def order(gpu: Gpu) -> tuple[float | str, ...]:
        return (*rank(gpu), gpu.index, gpu.uuid)

    fitting = [gpu for gpu in sorted(gpus, key=order) if reservations.fits(gpu)]
    if spec.gpus > 1:  # an engine can't span parts of divided GPUs
        fitting = [gpu for gpu in fitting if not gpu.uuid.startswith("MIG-")]
    kinds: dict[tuple[str, int], list[Gpu]] = {}
    for gpu in fitting:
        kinds.setdefault((gpu.name, gpu.memory_total), []).append(gpu)
    sets = [alike[: spec.gpus] for alike in kinds.values() if len(alike) >= spec.gpus]
    if not sets:
        return Refusal(reason=_refusal(spec, gpus, fitting, reservations))
    best = min(sets, key=lambda each: order(each[-1]))
    return Placement(gpus=tuple(gpu.uuid for gpu in best))


def _refusal(spec: EngineSpec, gpus: Sequence[Gpu], fitting: Sequence[Gpu], reservations: Reservations) -> str:
    """What was needed, what is free, and who holds the rest."""
    needs = {reservations.needed.get(gpu.uuid) for gpu in gpus}
    wanted = f"{spec.model} needs {_count(spec.gpus)}{' of one kind' if spec.gpus > 1 else ''}"
    if not gpus:
        return f'{wanted}, but there is none to be seen; set gpus = 0, or scheduler = "none" to manage GPUs yourself'
    if needs == {None}:
        alone = "itself" if spec.gpus == 1 else "itself each"
        wanted += f" for {alone} (how much memory it needs is not known; required_memory_gb can say it)"
    elif len(needs) == 1:
        wanted += f" with {_gib(next(iter(needs)) or 0)} free{' each' if spec.gpus > 1 else ''}"
    fits = {gpu.uuid for gpu in fitting}
    there_are = "; ".join(_describe(gpu, reservations, fits, tell_need=len(needs) > 1) for gpu in gpus)
    return f"{wanted}, but only {len(fitting)} of {_count(len(gpus))} can be had: {there_are}"


def _describe(gpu: Gpu, reservations: Reservations, fits: set[str], *, tell_need: bool) -> str:
    name = f"GPU {gpu.index} ({gpu.name}, {_gib(reservations.free(gpu))} of {_gib(gpu.memory_total)} free)"
    holders = [_holder(each) for each in reservations.held.get(gpu.uuid, ())]
    strangers = [_stranger(each) for each in gpu.processes if each.engine_id is None]
    if gpu.uuid in fits:
        verdict = "can be had"
    elif holders:
        verdict = f"is held by {', '.join(holders)}"
    elif reservations.needed.get(gpu.uuid) is None:
        verdict = "is not empty"
    else:
        verdict = "has too little memory free"
    words = [f"{name} {verdict}"]
    if tell_need:
        needed = reservations.needed.get(gpu.uuid)
        words.append("all of it is needed" if needed is None else f"{_gib(needed)} of it are needed")
    if strangers and gpu.uuid not in fits:
        words.append(f"also used by {', '.join(strangers)}" if holders else f"used by {', '.join(strangers)}")
    return ", ".join(words)


def _holder(held: Reservation) -> str:
    return f"{held.engine_id} ({'all of it' if held.memory is None else _gib(held.memory)})"


def _stranger(process: GpuProcess) -> str:
    return f"process {process.pid}" + ("" if process.memory_used is None else f" ({_gib(process.memory_used)})")


def _count(number: int) -> str:
    return f"{number} GPU{'s' if number != 1 else ''}"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"


@hookimpl
def stoker_register_schedulers() -> Sequence[GpuScheduler]:
    """None of them holds any state."""
    return [Unmanaged(), Pack(), Spread()]
