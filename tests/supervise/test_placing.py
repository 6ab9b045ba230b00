"""GPUs are given once, and come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import trio

from stoker.errors import LaunchError
from stoker.model import EngineSpec, Gpu, GpuProcess, GpuReport, Placement, Refusal
from stoker.supervise.placing import Placer

GIB = 2**30
TWO = GpuReport(
    gpus=tuple(Gpu(index=n, uuid=f"GPU-{n}", name="Test", memory_total=80 * GIB, memory_used=0) for n in range(2))
)


class FirstFree:
    """The simplest scheduler there is."""

    name = "first-free"

    def place(
        self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Mapping[str, Sequence[str]]
    ) -> Placement | Refusal:
        free = [gpu.uuid for gpu in gpus if gpu.uuid not in reservations]
        if len(free) < spec.gpus:
            return Refusal(reason=f"{spec.gpus} wanted, {len(free)} free")
        return Placement(gpus=tuple(free[: spec.gpus]))


def placer(report: GpuReport = TWO) -> Placer:
    return Placer(FirstFree(), lambda: report, lambda runtime: Path("/env") / runtime)


async def test_engines_that_start_at_once_get_different_gpus() -> None:
    placing = placer()
    spec = EngineSpec(model="m", gpus=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(placing.place, "a", spec)
        nursery.start_soon(placing.place, "b", spec)
    assert sorted(placing.held.values()) == [("GPU-0",), ("GPU-1",)]
    with pytest.raises(LaunchError, match="1 wanted, 0 free"):
        await placing.place("c", spec)
    placing.release("a")
    assert (await placing.place("c", spec)).python == Path("/env/vllm")


async def test_an_engine_without_gpus_asks_nobody() -> None:
    placing = Placer(FirstFree(), lambda: pytest.fail("asked"), lambda _: None)
    assert await placing.place("a", EngineSpec(model="m")) == Placement()


async def test_no_gpus_at_all_is_said_with_the_reason() -> None:
    with pytest.raises(LaunchError, match="there are none: no NVIDIA driver"):
        await placer(GpuReport(reason="no NVIDIA driver")).place("a", EngineSpec(model="m", gpus=1))


async def test_memory_is_back_when_no_process_of_the_engine_holds_any() -> None:
    held = Gpu(
        index=0,
        uuid="GPU-0",
        name="Test",
        memory_total=80 * GIB,
        memory_used=GIB,
        processes=(GpuProcess(pid=41), GpuProcess(pid=99)),
    )
    reports = [GpuReport(gpus=(held,)), GpuReport()]
    placing = Placer(FirstFree(), lambda: reports.pop(0), lambda _: None)
    with trio.fail_after(10):
        assert await placing.memory_back(("GPU-0",), frozenset({41})) == ""
    assert reports == []


async def test_memory_that_does_not_come_back_is_noted(autojump_clock: object) -> None:
    stuck = Gpu(index=0, uuid="GPU-0", name="T", memory_total=GIB, memory_used=GIB, processes=(GpuProcess(pid=41),))
    placing = Placer(FirstFree(), lambda: GpuReport(gpus=(stuck,)), lambda _: None)
    assert "not back 30 s after" in await placing.memory_back(("GPU-0",), frozenset({41}))


async def test_a_scheduler_that_raises_costs_one_engine_and_is_named() -> None:
    class Broken(FirstFree):
        name = "broken"

        def place(
            self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Mapping[str, Sequence[str]]
        ) -> Placement | Refusal:
            raise ZeroDivisionError("a defect")

    placing = Placer(Broken(), lambda: TWO, lambda _: None)
    with pytest.raises(LaunchError, match="scheduler 'broken' could not place it: ZeroDivisionError: a defect"):
        await placing.place("a", EngineSpec(model="m", gpus=1))
    assert placing.held == {}
