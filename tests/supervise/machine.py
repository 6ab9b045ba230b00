"""GPUs for tests of the books and of placing."""

from __future__ import annotations

from collections.abc import Mapping

from stoker.model import Gpu, GpuProcess, GpuReport

GIB = 2**30


def gpu(
    index: int, *, used_gib: float = 0, processes: Mapping[int, tuple[str | None, float | None]] | None = None
) -> Gpu:
    """A GPU of 80 GiB. ``processes``: by pid, whose it is and the GiB it holds (None: the driver does not say)."""
    held = tuple(
        GpuProcess(pid=pid, engine_id=owner, memory_used=None if gib is None else int(gib * GIB))
        for pid, (owner, gib) in (processes or {}).items()
    )
    used = int(used_gib * GIB) + sum(process.memory_used or 0 for process in held)
    return Gpu(index=index, uuid=f"GPU-{index}", name="Test", memory_total=80 * GIB, memory_used=used, processes=held)


def report(*gpus: Gpu) -> GpuReport:
    """A whole reading."""
    return GpuReport(gpus=gpus)
