"""Readings are shared, bounded in time, and never two at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial

import pytest
import trio
import trio.testing

from stoker.gpu.inventory import Inventory
from stoker.model import Gpu, GpuReport

HANG_GUARD_SECONDS = 20


class Machine:
    """A driver that answers when it is let go."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.began = threading.Semaphore(0)
        self.readings = 0
        self.at_once = 0
        self.most_at_once = 0

    def look(self) -> GpuReport:
        self.readings += 1
        number = self.readings
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.began.release()
        self.go_on.wait(HANG_GUARD_SECONDS)
        self.at_once -= 1
        return GpuReport(gpus=(Gpu(index=number, uuid="GPU", name="", memory_total=1, memory_used=0),))


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.go_on.set()  # so that no thread outlives the test


def number_of(report: GpuReport) -> int:
    return report.gpus[0].index


async def test_those_who_ask_during_a_reading_share_the_next_one(machine: Machine) -> None:
    inventory = Inventory(machine.look)
    numbers: list[int] = []

    async def ask() -> None:
        numbers.append(number_of(await inventory.read()))

    with trio.fail_after(HANG_GUARD_SECONDS):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.to_thread.run_sync(machine.began.acquire)
            for _ in range(5):
                nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            machine.go_on.set()
    assert numbers == [1, 2, 2, 2, 2, 2], "what was read before they asked may be out of date"
    assert machine.most_at_once == 1


async def test_a_driver_that_hangs_is_given_up_and_asked_again_only_when_it_has_answered(machine: Machine) -> None:
    inventory = Inventory(machine.look, patience_seconds=0.05)
    with trio.fail_after(HANG_GUARD_SECONDS):
        first = await inventory.read()
        second = await inventory.read()
        assert first.gpus == second.gpus == ()
        assert first.incomplete
        assert first.reason is not None
        assert first.reason.startswith("the NVIDIA driver has not answered for ")
        assert machine.readings == 1, "no second thread is lost to it"
        machine.go_on.set()
        while (report := await inventory.read()).incomplete:
            await trio.sleep(0.01)
    assert number_of(report) == 2
    assert machine.most_at_once == 1


async def test_who_gives_up_waiting_takes_the_reading_from_nobody(machine: Machine) -> None:
    inventory = Inventory(machine.look)
    with trio.fail_after(HANG_GUARD_SECONDS):
        async with trio.open_nursery() as nursery:
            impatient = trio.CancelScope()
            nursery.start_soon(partial(_read_in, impatient, inventory))
            await trio.to_thread.run_sync(machine.began.acquire)
            impatient.cancel()
            machine.go_on.set()
            assert number_of(await inventory.read()) == 2
    assert machine.most_at_once == 1


async def _read_in(scope: trio.CancelScope, inventory: Inventory) -> None:
    with scope:
        await inventory.read()


async def test_what_a_reading_raises_is_raised_and_the_next_one_goes_on() -> None:
    outcomes: list[Exception | GpuReport] = [ZeroDivisionError("a defect"), GpuReport(reason="fine")]

    def look() -> GpuReport:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    inventory = Inventory(look)
    with pytest.raises(ZeroDivisionError):
        await inventory.read()
    assert (await inventory.read()).reason == "fine"
