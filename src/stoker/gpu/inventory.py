"""What NVML says of this machine's GPUs. Blocking: for a worker thread, never for the event loop."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from stoker.model import Gpu, GpuProcess, GpuReport

with warnings.catch_warnings():
    # Where the old distribution "pynvml" is installed beside nvidia-ml-py, it warns of itself on every import.
    warnings.simplefilter("ignore", FutureWarning)
    import pynvml  # type: ignore[import-untyped]

T = TypeVar("T")


def read_gpus() -> GpuReport:
    """Every GPU that answers. ``reason`` says why there are none, or which of them could not be read.

    Raises nothing for what drivers and hardware do: a missing driver is a report without GPUs, a GPU that has fallen
    off the bus leaves the others in the report.
    """
    try:
        with _nvml():
            return _read_all(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError_LibraryNotFound:
        return GpuReport(reason="no NVIDIA driver is installed: there is no libnvidia-ml.so.1")
    except pynvml.NVMLError as error:
        return GpuReport(reason=f"the NVIDIA driver can't be asked: {error}")


@contextmanager
def _nvml() -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        _try(pynvml.nvmlShutdown)


def _read_all(count: int) -> GpuReport:
    gpus: list[Gpu] = []
    lost: list[str] = []
    for index in range(count):
        try:
            gpus.append(_read(index))
        except pynvml.NVMLError as error:
            lost.append(f"GPU {index} can't be read: {error}")
    if not count:
        lost.append("the NVIDIA driver knows no GPU")
    return GpuReport(gpus=tuple(gpus), reason="; ".join(lost) or None)


def _read(index: int) -> Gpu:
    """One GPU. What it is and its memory must be readable; the rest may be missing."""
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    rates = _try(pynvml.nvmlDeviceGetUtilizationRates, handle)
    return Gpu(
        index=index,
        uuid=pynvml.nvmlDeviceGetUUID(handle),
        name=pynvml.nvmlDeviceGetName(handle),
        memory_total=memory.total,
        memory_used=memory.used,
        utilisation=None if rates is None else rates.gpu,
        temperature=_try(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        processes=_processes(handle),
    )


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
    """``ask(*args)``, or None where NVML can't say."""
    try:
        return ask(*args)
    except pynvml.NVMLError:
        return None
