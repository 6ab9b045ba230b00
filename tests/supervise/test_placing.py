"""Engines wait for their GPUs in a line, get them once, and are measured."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from stoker.builtin.schedulers import Pack
from stoker.errors import LaunchError, PermanentLaunchError
from stoker.gpu.ledger import Ledger
from stoker.model import EngineSpec, Gpu, GpuReport, Placement, Refusal, Reservations
from stoker.supervise import placing
from stoker.supervise.placing import Placer

from .machine import GIB, gpu, report

HANG_GUARD_SECONDS = 20
SPEC = EngineSpec(model="m", gpus=1)


@attrs.define(eq=False)
class Machine:
    """Two GPUs, whose memory the test fills and empties."""

    used_gib: dict[int, float] = attrs.field(factory=lambda: {0: 0.0, 1: 0.0})
    reason: str | None = None
    readings: int = 0

    async def read(self) -> GpuReport:
        self.readings += 1
        await trio.lowlevel.checkpoint()
        gpus = tuple(gpu(index, used_gib=used) for index, used in self.used_gib.items())
        return GpuReport(gpus=gpus, reason=self.reason, incomplete=self.reason is not None)


class Line:
    """Asks for GPUs in tasks of their own, and notes what becomes of it."""

    def __init__(self, placer: Placer, nursery: trio.Nursery) -> None:
        self.placer = placer
        self.placed: dict[str, Placement] = {}
        self.refused: dict[str, LaunchError] = {}
        self.told: dict[str, list[tuple[str, bool]]] = {}
        self._nursery = nursery
        self._scopes: dict[str, trio.CancelScope] = {}

    def ask(self, engine_id: str, spec: EngineSpec = SPEC, *, gib: float | None = None) -> None:
        needed = None if gib is None else int(gib * GIB)
        self.told[engine_id] = []
        self._scopes[engine_id] = trio.CancelScope()
        self._nursery.start_soon(self._ask, engine_id, spec, needed)

    def give_up(self, engine_id: str) -> None:
        self._scopes[engine_id].cancel()

    async def _ask(self, engine_id: str, spec: EngineSpec, needed: int | None) -> None:
        def waits(reason: str, refused: bool) -> None:
            self.told[engine_id].append((reason, refused))

        with self._scopes[engine_id]:
            try:
                self.placed[engine_id] = await self.placer.place(engine_id, spec, lambda *_: needed, waits)
            except LaunchError as error:
                self.refused[engine_id] = error

    def measure(self, engine_id: str) -> None:
        """It is READY."""
        self._nursery.start_soon(self.placer.keep_measured, engine_id)

    @property
    def gpus(self) -> Mapping[str, tuple[str, ...]]:
        return {engine_id: placement.gpus for engine_id, placement in self.placed.items()}


@pytest.fixture
def machine() -> Machine:
    return Machine()


def make_placer(machine: Machine, ledger: Ledger | None = None) -> Placer:
    return Placer(Pack(), machine.read, lambda runtime: Path("/env") / runtime, ledger or Ledger())


@asynccontextmanager
async def open_line(machine: Machine, ledger: Ledger | None = None) -> AsyncIterator[Line]:
    with trio.fail_after(HANG_GUARD_SECONDS):
        async with trio.open_nursery() as nursery:
            yield Line(make_placer(machine, ledger), nursery)
            nursery.cancel_scope.cancel()


async def until_placed(line: Line, *engines: str) -> None:
    while not set(engines) <= line.placed.keys():
        assert not line.refused, line.refused
        await trio.sleep(0.001)


async def until_told(line: Line, engine_id: str) -> tuple[str, bool]:
    while not line.told[engine_id]:
        await trio.sleep(0.001)
    return line.told[engine_id][-1]


async def test_engines_that_start_at_once_get_different_gpus(machine: Machine) -> None:
    async with open_line(machine) as line:
        line.ask("a")
        line.ask("b")
        await until_placed(line, "a", "b")
        assert sorted(line.gpus.values()) == [("GPU-0",), ("GPU-1",)]
        assert line.placed["a"].python == Path("/env/vllm")


async def test_an_engine_that_gets_none_waits_and_is_told_who_holds_them(machine: Machine) -> None:
    async with open_line(machine) as line:
        line.ask("a")
        line.ask("b")
        await until_placed(line, "a", "b")
        line.ask("c")
        reason, refused = await until_told(line, "c")
        assert refused
        assert "held by a (all of it)" in reason
        assert "held by b (all of it)" in reason
        line.placer.release("a")
        await until_placed(line, "c")
        assert line.gpus["c"] == line.gpus["a"]


async def test_one_engine_at_a_time_starts_on_a_gpu(machine: Machine) -> None:
    """Two that load at once would each be measured as what both use."""
    del machine.used_gib[1]
    async with open_line(machine) as line:
        line.ask("a", gib=20)
        await until_placed(line, "a")
        line.ask("b", gib=20)
        assert await until_told(line, "b") == ("waits for a, which is starting on GPU 0", False)
        machine.used_gib[0] = 20
        line.measure("a")
        await until_placed(line, "b")
        (first,) = (await line.placer.report()).gpus
        assert [(each.engine_id, each.used // GIB, each.starting) for each in first.reservations] == [
            ("a", 20, False),
            ("b", 0, True),
        ]


async def test_a_start_that_fails_lets_the_next_one_begin(machine: Machine) -> None:
    del machine.used_gib[1]
    async with open_line(machine) as line:
        line.ask("a", gib=20)
        await until_placed(line, "a")
        line.ask("b", gib=20)
        await until_told(line, "b")
        line.placer.release("a")
        await until_placed(line, "b")


async def test_one_that_needs_more_does_not_hold_up_those_behind_it(machine: Machine) -> None:
    async with open_line(machine) as line:
        line.ask("one", gib=20)
        await until_placed(line, "one")
        line.ask("pair", attrs.evolve(SPEC, gpus=2), gib=70)
        await until_told(line, "pair")
        line.ask("other", gib=70)
        await until_placed(line, "other")
        assert set(line.gpus["other"]).isdisjoint(line.gpus["one"])


async def test_an_engine_of_several_gpus_gets_all_or_none(machine: Machine) -> None:
    async with open_line(machine) as line:
        line.ask("one")
        await until_placed(line, "one")
        line.ask("pair", attrs.evolve(SPEC, gpus=2))
        await until_told(line, "pair")
        shown = await line.placer.report()
        assert [each.engines for each in shown.gpus] == [("one",), ()]
        line.placer.release("one")
        await until_placed(line, "pair")
        assert line.gpus["pair"] == ("GPU-0", "GPU-1")


async def test_who_stops_waiting_leaves_the_line_and_holds_nothing(machine: Machine) -> None:
    async with open_line(machine) as line:
        line.ask("a")
        line.ask("b")
        await until_placed(line, "a", "b")
        line.ask("c")
        line.ask("d")
        await until_told(line, "c")
        await until_told(line, "d")
        line.give_up("c")
        await trio.testing.wait_all_tasks_blocked(0.05)
        line.placer.release("a")
        await until_placed(line, "d")
        assert "c" not in line.placed
        assert not line.refused


async def test_what_can_never_be_is_refused_at_once(machine: Machine) -> None:
    async with open_line(machine) as line:
        line.ask("a", attrs.evolve(SPEC, gpus=3))
        while not line.refused:
            await trio.sleep(0.001)
        assert isinstance(line.refused["a"], PermanentLaunchError)
        assert "m needs 3 GPUs of one kind" in str(line.refused["a"])


async def test_memory_that_a_stranger_gives_back_is_noticed(machine: Machine, autojump_clock: object) -> None:
    machine.used_gib = {0: 70.0}
    async with open_line(machine) as line:
        line.ask("a", gib=40)
        await until_told(line, "a")
        machine.used_gib = {0: 0.0}
        await until_placed(line, "a")


async def test_an_engine_of_unknown_needs_waits_until_a_gpu_is_empty(machine: Machine, autojump_clock: object) -> None:
    machine.used_gib = {0: 30.0}
    async with open_line(machine) as line:
        line.ask("a")
        reason, refused = await until_told(line, "a")
        assert refused, "it uses up no restarts"
        assert "GPU 0 (Test, 50.0 GiB of 80.0 GiB free) is not empty" in reason
        machine.used_gib = {0: 1.0}
        await until_placed(line, "a")


async def test_a_driver_that_fails_is_waited_for(machine: Machine, autojump_clock: object) -> None:
    machine.reason, machine.used_gib = "the NVIDIA driver can't be asked: Unknown Error", {}
    async with open_line(machine) as line:
        line.ask("a")
        reason, _ = await until_told(line, "a")
        assert reason.endswith("; the NVIDIA driver can't be asked: Unknown Error")
        machine.reason, machine.used_gib = None, {0: 0.0}
        await until_placed(line, "a")


async def test_who_uses_a_gpu_is_looked_for_again_when_there_are_descriptors(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """A measurement that found none left once ended Stoker, with all that it served."""
    looks: list[set[int]] = []

    def owners(pids: set[int], *_: object) -> Mapping[int, str]:
        looks.append(pids)
        if len(looks) < 3:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return {7: "engine"}

    async def read() -> GpuReport:
        return report(gpu(0, processes={7: (None, 1)}))

    monkeypatch.setattr(placing, "owners", owners)
    placer = Placer(Pack(), read, lambda _: None)
    [found] = (await placer.report()).gpus
    assert [process.engine_id for process in found.processes] == ["engine"]
    assert looks == [{7}] * 3


async def test_those_who_wait_share_the_readings(machine: Machine) -> None:
    async with open_line(machine) as line:
        line.ask("a")
        line.ask("b")
        await until_placed(line, "a", "b")
        before = machine.readings
        waiting = [f"w{number}" for number in range(40)]
        for engine_id in waiting:
            line.ask(engine_id)
        for engine_id in waiting:
            await until_told(line, engine_id)
        assert machine.readings - before <= 4
        before = machine.readings
        line.placer.release("a")
        while len(line.placed) < 3:
            await trio.sleep(0.001)
        assert machine.readings - before <= 2


async def test_an_engine_without_gpus_asks_nobody() -> None:
    async def read() -> GpuReport:
        pytest.fail("asked")

    placer = Placer(Pack(), read, lambda _: None)
    assert await placer.place("a", EngineSpec(model="m"), lambda *_: None, lambda *_: None) == Placement()


async def test_a_scheduler_that_raises_costs_one_engine(machine: Machine) -> None:
    class Broken(Pack):
        name = "broken"

        def place(self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations) -> Placement | Refusal:
            raise ZeroDivisionError("a defect")

    placer = Placer(Broken(), machine.read, lambda _: None)
    with pytest.raises(LaunchError, match="scheduler 'broken' could not place it: ZeroDivisionError: a defect"):
        await placer.place("a", SPEC, lambda *_: None, lambda *_: None)
    assert [each.engines for each in (await placer.report()).gpus] == [(), ()]


async def test_a_runtime_that_does_not_say_what_it_needs_costs_its_engine_and_holds_up_nobody_for_long(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hung once stopped all placing, and the shutdown too."""
    monkeypatch.setattr(placing, "ESTIMATE_SECONDS", 0.1)
    go_on = threading.Event()

    def hangs(spec: EngineSpec, gpu: Gpu) -> int | None:
        go_on.wait(HANG_GUARD_SECONDS)
        return None

    async with open_line(machine) as line:
        with pytest.raises(PermanentLaunchError, match=r"runtime 'vllm' did not estimate its memory within 0\.1 s"):
            await line.placer.place("a", SPEC, hangs, lambda *_: None)
        line.ask("b")
        await until_placed(line, "b")
    go_on.set()


# What was measured


async def test_what_an_engine_uses_is_noted_and_promised_to_the_next_one_like_it(
    machine: Machine, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.json")
    async with open_line(machine, ledger) as line:
        line.ask("a")
        await until_placed(line, "a")
        machine.used_gib[0] = 30
        line.measure("a")
        while not (tmp_path / "ledger.json").exists():
            await trio.sleep(0.001)
        line.ask("b")
        await until_placed(line, "b")
        shown = {gpu.uuid: gpu for gpu in (await line.placer.report()).gpus}
        promised = [each.memory for each in shown["GPU-0"].reservations]
        assert promised == [None], "nobody knew what the first one needs, so the GPU stays its alone"
        assert {each.memory for each in shown["GPU-1"].reservations} == {30 * GIB}
    again = Ledger(tmp_path / "ledger.json")
    again.load()
    assert again.needed(SPEC, gpu(1)) == 30 * GIB


async def test_an_engine_is_measured_again_as_long_as_it_lives(
    machine: Machine, autojump_clock: trio.testing.MockClock
) -> None:
    ledger = Ledger()
    async with open_line(machine, ledger) as line:
        line.ask("a")
        await until_placed(line, "a")
        machine.used_gib[0] = 30
        line.measure("a")
        while not ledger.entries:
            await trio.sleep(0.001)
    assert ledger.needed(SPEC, gpu(0)) == 30 * GIB


# Memory that comes back


async def reading(reports: list[GpuReport]) -> GpuReport:
    return reports.pop(0) if len(reports) > 1 else reports[0]


def placer_of(*reports: GpuReport) -> Placer:
    return Placer(Pack(), partial(reading, list(reports)), lambda _: None)


HELD = report(gpu(0, processes={41: ("a", 1), 99: (None, 1)}))


async def test_memory_is_back_when_no_process_of_the_engine_holds_any() -> None:
    with trio.fail_after(HANG_GUARD_SECONDS):
        strangers = report(gpu(0, processes={99: (None, 1)}))
        assert await placer_of(HELD, HELD, strangers).memory_back(("GPU-0",), frozenset({41})) == ""


async def test_memory_that_does_not_come_back_is_noted(autojump_clock: object) -> None:
    note = await placer_of(HELD).memory_back(("GPU-0",), frozenset({41}))
    assert note == f"GPU memory was not back {placing.MEMORY_BACK_SECONDS:g} s after the last process ended"


async def test_a_gpu_that_fell_off_the_bus_is_not_taken_for_one_that_is_free(autojump_clock: object) -> None:
    lost = GpuReport(reason="GPU 0 can't be read: GPU is lost", incomplete=True)
    note = await placer_of(lost).memory_back(("GPU-0",), frozenset({41}))
    assert note == "whether its GPU memory is back can't be read: GPU 0 can't be read: GPU is lost"
    assert await placer_of(lost, report(gpu(0))).memory_back(("GPU-0",), frozenset({41})) == ""


async def test_another_gpu_that_can_not_be_read_is_no_matter() -> None:
    some = GpuReport(gpus=(gpu(0),), reason="GPU 1 can't be read: GPU is lost", incomplete=True)
    with trio.fail_after(HANG_GUARD_SECONDS):
        assert await placer_of(some).memory_back(("GPU-0",), frozenset({41})) == ""
