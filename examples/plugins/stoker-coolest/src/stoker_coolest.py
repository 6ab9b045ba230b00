"""A scheduler: the coolest GPUs that have the memory."""

from __future__ import annotations

from collections.abc import Sequence

from stoker.contracts import GpuScheduler
from stoker.hookspecs import hookimpl
from stoker.model import EngineSpec, Gpu, Placement, Refusal, Reservations


class Coolest:
    """GPUs that don't tell their temperature come last. A set is of one kind, so that no GPU waits for a slower one."""

    name = "coolest"

    def place(self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations) -> Placement | Refusal:
        """The ``spec.gpus`` coolest of a kind."""
        fitting = sorted((gpu for gpu in gpus if reservations.fits(gpu)), key=heat)
        for coolest in fitting:
            alike = [gpu for gpu in fitting if kind(gpu) == kind(coolest)]
            if len(alike) >= spec.gpus:
                return Placement(gpus=tuple(gpu.uuid for gpu in alike[: spec.gpus]))
        if spec.gpus == 0:
            return Placement()
        holders = sorted({holder for gpu in gpus for holder in reservations.holders(gpu)})
        held = f"; {', '.join(holders)} hold memory" if holders else ""
        return Refusal(reason=f"{spec.gpus} GPUs of a kind are wanted, {len(fitting)} of {len(gpus)} have room{held}")


def heat(gpu: Gpu) -> tuple[float, int]:
    """The temperature; among equals the first."""
    return (float("inf") if gpu.temperature is None else gpu.temperature), gpu.index


def kind(gpu: Gpu) -> tuple[str, int]:
    """What makes two GPUs alike."""
    return gpu.name, gpu.memory_total


@hookimpl
def stoker_register_schedulers() -> Sequence[GpuScheduler]:
    """The one scheduler of this plugin."""
    return [Coolest()]
