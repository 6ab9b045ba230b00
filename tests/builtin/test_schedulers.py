"""The built-in schedulers pass the suite; pack takes the tightest fit, spread the emptiest; refusals explain."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import pytest

from stoker.builtin.schedulers import Pack, Spread, Unmanaged
from stoker.contracts import GpuScheduler
from stoker.model import EngineSpec, Gpu, GpuProcess, Placement, Refusal, Reservations
from stoker.testing.schedulers import GIB, SchedulerConformance, hold, make_gpu, reserve


class TestNoneConforms(SchedulerConformance):
    manages_gpus = False

    def make_scheduler(self) -> GpuScheduler:
        return Unmanaged()


class TestPackConforms(SchedulerConformance):
    def make_scheduler(self) -> GpuScheduler:
        return Pack()


class TestSpreadConforms(SchedulerConformance):
    def make_scheduler(self) -> GpuScheduler:
        return Spread()


def wanting(gpus: int) -> EngineSpec:
    return EngineSpec(model="big", gpus=gpus)


def placed(scheduler: GpuScheduler, gpus: int, machine: Sequence[Gpu], reservations: Reservations) -> tuple[str, ...]:
    answer = scheduler.place(wanting(gpus), machine, reservations)
    assert isinstance(answer, Placement), answer
    return answer.gpus


MACHINE = (make_gpu(0), make_gpu(1, used_gib=60), make_gpu(2, used_gib=40), make_gpu(3, used_gib=79))


@pytest.mark.parametrize(
    ("gpus", "gib", "expected"),
    [
        (1, 10, ("GPU-1",)),
        (1, 30, ("GPU-2",)),
        (1, 80, ("GPU-0",)),
        (2, 30, ("GPU-2", "GPU-0")),
        (3, 20, ("GPU-1", "GPU-2", "GPU-0")),
    ],
)
def test_pack_takes_the_fullest_gpus_that_still_fit(gpus: int, gib: int, expected: tuple[str, ...]) -> None:
    assert placed(Pack(), gpus, MACHINE, reserve(MACHINE, gib)) == expected


def test_spread_takes_the_emptiest_gpus_and_among_equals_those_with_fewer_engines() -> None:
    assert placed(Spread(), 2, MACHINE, reserve(MACHINE, 10)) == ("GPU-0", "GPU-2")
    alike = (make_gpu(0), make_gpu(1))
    assert placed(Spread(), 1, alike, reserve(alike, 10, {0: [hold("idle", 0)]})) == ("GPU-1",)


def test_promised_memory_counts_as_used_before_it_is() -> None:
    """Else two engines that are started one after the other would both get the same GPU."""
    reservations = reserve(MACHINE, 10, {1: [hold("loading", 15, used_gib=2)]})
    assert placed(Pack(), 1, MACHINE, reservations) == ("GPU-2",)


def test_an_engine_whose_needs_nobody_knows_gets_the_emptiest_gpus_for_itself() -> None:
    machine = (make_gpu(0, used_gib=4), make_gpu(1), make_gpu(2, used_gib=8), make_gpu(3, used_gib=9))
    assert placed(Pack(), 2, machine, reserve(machine)) == ("GPU-1", "GPU-0")
    assert placed(Pack(), 1, machine, reserve(machine, None, {1: [hold("small", 1)]})) == ("GPU-0",)
    assert isinstance(Pack().place(wanting(4), machine, reserve(machine)), Refusal), "the last is a stranger's"


@pytest.mark.parametrize("scheduler", [Pack(), Spread()])
def test_a_set_is_of_one_kind(scheduler: GpuScheduler) -> None:
    mixed = (make_gpu(0, name="New"), make_gpu(1, total_gib=40), make_gpu(2), make_gpu(3), make_gpu(4, total_gib=40))
    assert set(placed(scheduler, 2, mixed, reserve(mixed, 60))) == {"GPU-2", "GPU-3"}
    refused = scheduler.place(wanting(3), mixed, reserve(mixed, 10))
    assert isinstance(refused, Refusal)
    assert "3 GPUs of one kind" in refused.reason


def test_an_engine_of_several_gpus_is_not_put_on_parts_of_divided_ones() -> None:
    whole = make_gpu(0)
    parts = tuple(attrs.evolve(make_gpu(index), uuid=f"MIG-{index}") for index in (1, 2))
    machine = (whole, *parts)
    assert isinstance(Pack().place(wanting(2), machine, reserve(machine, 10)), Refusal)
    assert placed(Pack(), 1, parts, reserve(parts, 10)) == ("MIG-1",)


def test_a_refusal_tells_what_was_needed_what_is_free_and_who_holds_the_rest() -> None:
    held = {0: [hold("qwen-1", 60), hold("minilm", 1, used_gib=0.5)]}
    used = attrs.evolve(MACHINE[1], processes=(GpuProcess(pid=4711, memory_used=60 * GIB),))
    machine = (attrs.evolve(MACHINE[0], memory_used=GIB // 2), used, *MACHINE[2:])
    answer = Pack().place(wanting(2), machine, reserve(machine, 30, held))
    assert isinstance(answer, Refusal)
    assert answer.reason == (
        "big needs 2 GPUs of one kind with 30.0 GiB free each, but only 1 of 4 GPUs can be had: "
        "GPU 0 (Made up, 19.0 GiB of 80.0 GiB free) is held by qwen-1 (60.0 GiB), minilm (1.0 GiB); "
        "GPU 1 (Made up, 20.0 GiB of 80.0 GiB free) has too little memory free, used by process 4711 (60.0 GiB); "
        "GPU 2 (Made up, 40.0 GiB of 80.0 GiB free) can be had; "
        "GPU 3 (Made up, 1.0 GiB of 80.0 GiB free) has too little memory free"
    )


def test_a_refusal_of_an_engine_of_unknown_needs_says_that_they_are_not_known() -> None:
    machine = (make_gpu(0),)
    answer = Pack().place(wanting(1), machine, reserve(machine, None, {0: [hold("qwen", 60)]}))
    assert isinstance(answer, Refusal)
    assert (
        "needs 1 GPU for itself (how much memory it needs is not known; required_memory_gb can say it)" in answer.reason
    )
    assert "held by qwen (60.0 GiB)" in answer.reason


def test_on_a_machine_without_gpus_the_refusal_says_what_to_do() -> None:
    answer = Pack().place(wanting(1), (), Reservations())
    assert isinstance(answer, Refusal)
    assert answer.reason == (
        'big needs 1 GPU, but there is none to be seen; set gpus = 0, or scheduler = "none" to manage GPUs yourself'
    )
