"""One reading of this machine's GPUs through NVML. Blocking: for a worker thread, never for the event loop.

NVML is initialised for each reading and shut down after it. That costs some milliseconds (on machines without the
persistence daemon more), and no GPU is held meanwhile: it can be reset while Stoker runs, and a driver that failed once
is asked afresh. (The library stays loaded: after another version of the driver was installed, restart Stoker.)
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from stoker.gpu.visible import Visible
from stoker.model import Gpu, GpuProcess, GpuReport

with warnings.catch_warnings():
    # Where the old distribution "pynvml" is installed beside nvidia-ml-py, it warns of itself on every import.
    warnings.simplefilter("ignore", FutureWarning)
    import pynvml  # type: ignore[import-untyped]

T = TypeVar("T")


def read_gpus(visible: str | None = None) -> GpuReport:
    """Every GPU that answers and that ``visible``, a value of CUDA_VISIBLE_DEVICES, lets us have.

    ``reason`` says why there are none, or which of them could not be read. Raises nothing for what drivers and hardware
    do: a missing driver is a report without GPUs, a GPU that has fallen off the bus leaves the others in the report.
    """
    try:
        with _nvml():
            return _read_all(pynvml.nvmlDeviceGetCount(), Visible.parse(visible))
    except pynvml.NVMLError_LibraryNotFound:
        return GpuReport(reason="no NVIDIA driver is installed: there is no libnvidia-ml.so.1")
    except pynvml.NVMLError as error:
        return GpuReport(reason=f"the NVIDIA driver can't be asked: {error}", incomplete=True)


@contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        _try(pynvml.nvmlShutdown)


def _read_all(count: int, visible: Visible) -> GpuReport:
    gpus: list[Gpu] = []
    troubles: list[str] = []
    hidden = 0
    for index in range(count):
        try:
            found = _read(index)
        except pynvml.NVMLError as error:
            if visible.may_allow(index):
                troubles.append(f"GPU {index} can't be read: {error}")
            continue
        allowed = [gpu for gpu in found if visible.allows(gpu.index, gpu.uuid)]
        gpus.extend(allowed)
        hidden += not allowed and bool(found)
        if not found:
            troubles.append(f"GPU {index} is in MIG mode and has no MIG devices")
    incomplete = bool(troubles)
    if hidden:
        troubles.append(f"CUDA_VISIBLE_DEVICES={visible.text} keeps {hidden} of {count} GPUs from Stoker")
    if not count:
        troubles.append("the NVIDIA driver knows no GPU")
    return GpuReport(gpus=tuple(gpus), reason="; ".join(troubles) or None, incomplete=incomplete)


def _read(index: int) -> list[Gpu]:
    """One GPU; or, where it is divided, its MIG devices, since only those can be given away."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    mode = _try(pynvml.nvmlDeviceGetMigMode, handle)
    if mode is None or mode[0] != pynvml.NVML_DEVICE_MIG_ENABLE:
        return [_describe(index, handle, handle)]
    most = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    parts = (_try(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, slot) for slot in range(most))
    return [_describe(index, part, handle) for part in parts if part is not None]


def _describe(index: int, handle: Any, board: Any) -> Gpu:
    """What it is and its memory must be readable; the rest may be missing. Heat and power are those of the board."""
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    rates = _try(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return Gpu(
        index=index,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory_total=memory.total,
        # Not ``memory.used``: drivers differ in whether that has the part which they keep for themselves.
        memory_used=memory.total - memory.free,
        utilisation=None if rates is None else rates.gpu,
        temperature=_try(pynvml.nvmlDeviceGetTemperature, board, pynvml.NVML_TEMPERATURE_GPU),
        power=_watts(_try(pynvml.nvmlDeviceGetPowerUsage, board)),
        power_limit=_watts(_try(pynvml.nvmlDeviceGetEnforcedPowerLimit, board)),
        processes=_processes(handle),
    )


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _processes(handle: Any) -> tuple[GpuProcess, ...]:
    """Who holds memory, each process once: one that computes and draws is in both lists of NVML."""
    computing = _first(
        handle, pynvml.nvmlDeviceGetComputeRunningProcesses_v3, pynvml.nvmlDeviceGetComputeRunningProcesses_v2
    )
    drawing = _first(
        handle, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v3, pynvml.nvmlDeviceGetGraphicsRunningProcesses_v2
    )
    held = {process.pid: process.usedGpuMemory for process in (*drawing, *computing)}
    return tuple(GpuProcess(pid=pid, memory_used=memory) for pid, memory in sorted(held.items()))


def _first(handle: Any, *ways: Callable[[Any], list[Any]]) -> list[Any]:
    """What the first way gives that this driver has (old ones lack the newer functions)."""
    for ask in ways:
        found = _try(ask, handle)
        if found is not None:
            return found
    return []


def _try(ask: Callable[..., T], *args: Any) -> T | None:
    """``ask(*args)``, or None where NVML can't say. That the whole GPU is gone is never passed over."""
    try:
        return ask(*args)
    except pynvml.NVMLError_GpuIsLost:
        raise
    except pynvml.NVMLError:
        return None
