"""The built-in schedulers pass the suite; pack takes the tightest fit and explains itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from stoker.builtin.schedulers import Pack, Unmanaged
from stoker.contracts import GpuScheduler
from stoker.model import EngineSpec, Gpu, Placement, Refusal
from stoker.testing.schedulers import GIB, SchedulerConformance, make_gpu


class TestNoneConforms(SchedulerConformance):
    manages_gpus = False

    def make_scheduler(self) -> GpuScheduler:
        return Unmanaged()


class TestPackConforms(SchedulerConformance):
    def make_scheduler(self) -> GpuScheduler:
        return Pack()


def wanting(gpus: int, gib: int | None = None) -> EngineSpec:
    return EngineSpec(model="big", gpus=gpus, required_memory_bytes=None if gib is None else gib * GIB)


def placed(spec: EngineSpec, gpus: Sequence[Gpu], held: Mapping[str, Sequence[str]] | None = None) -> tuple[str, ...]:
    answer = Pack().place(spec, gpus, held or {})
    assert isinstance(answer, Placement), answer
    return answer.gpus


MACHINE = (make_gpu(0), make_gpu(1, used_gib=60), make_gpu(2, used_gib=40), make_gpu(3, used_gib=79))


@pytest.mark.parametrize(
    ("spec", "gpus"),
    [
        (wanting(1, 10), ("GPU-1",)),
        (wanting(1, 30), ("GPU-2",)),
        (wanting(1, 80), ("GPU-0",)),
        (wanting(2, 60), ("GPU-2", "GPU-0")),
        (wanting(3, 60), ("GPU-1", "GPU-2", "GPU-0")),
    ],
)
def test_pack_takes_the_fullest_gpus_that_still_fit(spec: EngineSpec, gpus: tuple[str, ...]) -> None:
    assert placed(spec, MACHINE) == gpus


def test_an_engine_that_does_not_say_what_it_needs_gets_the_emptiest_gpus() -> None:
    assert placed(wanting(2), MACHINE) == ("GPU-0", "GPU-2")


def test_a_gpu_that_an_engine_holds_is_not_free_however_empty_it_is() -> None:
    assert placed(wanting(1), MACHINE, {"GPU-0": ["qwen"]}) == ("GPU-2",)


def test_a_refusal_tells_what_was_needed_what_is_free_and_who_holds_the_rest() -> None:
    answer = Pack().place(wanting(2, 60), MACHINE, {"GPU-0": ["qwen-1", "minilm"]})
    assert isinstance(answer, Refusal)
    assert answer.reason == (
        "big needs 2 GPUs with 30.0 GiB free each, but only 1 of 4 GPUs can be had: "
        "GPU 0 (Made up, 80.0 GiB free of 80.0 GiB) is held by qwen-1, minilm; "
        "GPU 1 (Made up, 20.0 GiB free of 80.0 GiB) has too little memory free; "
        "GPU 2 (Made up, 40.0 GiB free of 80.0 GiB) is free; "
        "GPU 3 (Made up, 1.0 GiB free of 80.0 GiB) has too little memory free"
    )


def test_on_a_machine_without_gpus_the_refusal_says_what_to_do() -> None:
    answer = Pack().place(wanting(1), (), {})
    assert isinstance(answer, Refusal)
    assert answer.reason == (
        'big needs 1 GPU, but there is none to be seen; set gpus = 0, or scheduler = "none" to manage GPUs yourself'
    )
