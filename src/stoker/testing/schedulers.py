"""The suite that every GPU scheduler passes. Needs pytest and Hypothesis.

In a plugin's tests::

    class TestMyScheduler(SchedulerConformance):
        def make_scheduler(self) -> GpuScheduler:
            return MyScheduler()
"""
# ruff: noqa: D102 - the names of the tests say what they hold to

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stoker.contracts import GpuScheduler
from stoker.model import EngineSpec, Gpu, Placement, Refusal

# A method of a base class runs in each class derived from it, which Hypothesis would rather ask about. Explaining a
# failure takes longer than finding it.
SUITE = settings(
    suppress_health_check=[HealthCheck.differing_executors],
    phases=[phase for phase in Phase if phase is not Phase.explain],
    report_multiple_bugs=False,
    deadline=None,
    max_examples=100,
)
GIB = 1024**3


def make_gpu(index: int, *, used_gib: int = 0, total_gib: int = 80) -> Gpu:
    """A GPU as NVML would describe it."""
    total, used = total_gib * GIB, used_gib * GIB
    return Gpu(index=index, uuid=f"GPU-{index}", name="Made up", memory_total=total, memory_used=used)


@st.composite
def machines(draw: st.DrawFn) -> tuple[Sequence[Gpu], Mapping[str, Sequence[str]]]:
    """The GPUs of a machine, and who holds them."""
    used = draw(st.lists(st.sampled_from([0, 0, 1, 40, 79, 80]), max_size=6))
    gpus = tuple(make_gpu(index, used_gib=gib) for index, gib in enumerate(used))
    holders = st.sampled_from([(), (), (), ("qwen-1",), ("qwen-2", "minilm")])
    return gpus, {gpu.uuid: draw(holders) for gpu in gpus}


specs = st.builds(
    EngineSpec,
    model=st.just("wanted"),
    gpus=st.integers(0, 4),
    required_memory_bytes=st.none() | st.sampled_from([1, 10, 80, 200]).map(lambda gib: gib * GIB),
)


class SchedulerConformance:
    """Derive from it, and say how the scheduler is made."""

    #: False for a scheduler that leaves GPUs alone: its placements name none.
    manages_gpus = True

    def make_scheduler(self) -> GpuScheduler:
        """A new scheduler, as the plugin registers it."""
        raise NotImplementedError

    def test_it_is_a_scheduler_with_a_name_one_can_write(self) -> None:
        scheduler = self.make_scheduler()
        assert isinstance(scheduler, GpuScheduler), f"{scheduler!r} lacks a part of stoker.contracts.GpuScheduler"
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", scheduler.name), f"{scheduler.name!r} is not lower-case-with-hyphens"

    @given(machine=machines(), spec=specs)
    @SUITE
    def test_it_gives_free_gpus_in_the_number_asked_for_or_a_reason(
        self, machine: tuple[Sequence[Gpu], Mapping[str, Sequence[str]]], spec: EngineSpec
    ) -> None:
        gpus, reservations = machine
        answer = self.make_scheduler().place(spec, gpus, reservations)
        if isinstance(answer, Refusal):
            assert answer.reason.strip(), "a refusal without a reason"
            return
        assert isinstance(answer, Placement)
        if not self.manages_gpus:
            assert answer.gpus == ()
            return
        by_uuid = {gpu.uuid: gpu for gpu in gpus}
        assert len(set(answer.gpus)) == len(answer.gpus) == spec.gpus, f"{spec.gpus} wanted, {answer.gpus} given"
        assert set(answer.gpus) <= by_uuid.keys(), f"there is no such GPU among {answer.gpus}"
        held = {uuid: reservations[uuid] for uuid in answer.gpus if reservations.get(uuid)}
        assert not held, f"given away though held: {held}"
        free = sum(by_uuid[uuid].memory_total - by_uuid[uuid].memory_used for uuid in answer.gpus)
        assert free >= (spec.required_memory_bytes or 0) or not spec.gpus, "there is less memory free than required"

    @given(machine=machines())
    @SUITE
    def test_an_engine_without_gpus_is_never_refused(
        self, machine: tuple[Sequence[Gpu], Mapping[str, Sequence[str]]]
    ) -> None:
        answer = self.make_scheduler().place(EngineSpec(model="wanted", gpus=0), *machine)
        assert isinstance(answer, Placement)
        assert answer.gpus == ()

    @given(count=st.integers(1, 4), more=st.integers(0, 2))
    @SUITE
    def test_empty_gpus_are_not_refused(self, count: int, more: int) -> None:
        gpus = [make_gpu(index) for index in range(count + more)]
        answer = self.make_scheduler().place(EngineSpec(model="wanted", gpus=count), gpus, {})
        assert isinstance(answer, Placement), answer

    def test_a_refusal_says_who_holds_the_gpus(self) -> None:
        gpus = [make_gpu(0), make_gpu(1)]
        answer = self.make_scheduler().place(
            EngineSpec(model="wanted", gpus=2), gpus, {"GPU-0": ["qwen-1"], "GPU-1": ["minilm"]}
        )
        if self.manages_gpus:
            assert isinstance(answer, Refusal), answer
            assert "qwen-1" in answer.reason, answer.reason
            assert "minilm" in answer.reason, answer.reason

    def test_more_gpus_than_there_are_are_refused(self) -> None:
        answer = self.make_scheduler().place(EngineSpec(model="wanted", gpus=3), [make_gpu(0)], {})
        assert isinstance(answer, Refusal) or not self.manages_gpus, answer

    @given(machine=machines(), spec=specs)
    @SUITE
    def test_it_does_not_change_what_it_is_shown(
        self, machine: tuple[Sequence[Gpu], Mapping[str, Sequence[str]]], spec: EngineSpec
    ) -> None:
        gpus, reservations = list(machine[0]), dict(machine[1])
        self.make_scheduler().place(spec, gpus, reservations)
        assert (gpus, reservations) == (list(machine[0]), dict(machine[1]))
