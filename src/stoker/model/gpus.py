"""GPUs, and what is promised of them."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from stoker.model.nothing import NOTHING


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
class Refusal:
    """A scheduler's "no", with the reason a user needs: what was wanted, what is free, who holds it."""

    reason: str


@attrs.frozen(kw_only=True)
class GpuReport:
    """The GPUs of this machine. ``reason`` says why there are none to see, or which of them could not be read.

    ``incomplete`` is true where another reading may find more: the driver failed or did not answer, or a GPU did not.
    """

    gpus: tuple[Gpu, ...] = ()
    reason: str | None = None
    incomplete: bool = False
