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

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from stoker.contracts import GpuScheduler
from stoker.model import EngineSpec, Gpu, GpuProcess, Placement, Refusal, Reservation, Reservations

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
KINDS = ("Made up", 80), ("Made up", 40), ("Made up too", 80)


def make_gpu(index: int, *, used_gib: float = 0, total_gib: int = 80, name: str = "Made up") -> Gpu:
    """A GPU as NVML would describe it."""
    total, used = total_gib * GIB, int(used_gib * GIB)
    return Gpu(index=index, uuid=f"GPU-{index}", name=name, memory_total=total, memory_used=used)


def hold(engine_id: str, gib: float | None = None, *, used_gib: float = 0, starting: bool = False) -> Reservation:
    """What an engine holds of a GPU; all of it, where ``gib`` is not said."""
    memory = None if gib is None else int(gib * GIB)
    return Reservation(engine_id=engine_id, memory=memory, used=int(used_gib * GIB), starting=starting)


def reserve(
    gpus: Sequence[Gpu], needed_gib: float | None = None, held: Mapping[int, Sequence[Reservation]] | None = None
) -> Reservations:
    """What Stoker shows a scheduler: an engine that needs as much of every GPU, and who holds what, by index."""
    needed = None if needed_gib is None else int(needed_gib * GIB)
    by_index = held or {}
    return Reservations(
        held={gpu.uuid: tuple(by_index[gpu.index]) for gpu in gpus if by_index.get(gpu.index)},
        needed={gpu.uuid: needed for gpu in gpus},
    )


@st.composite
def machines(draw: st.DrawFn) -> tuple[Sequence[Gpu], Reservations]:
    """GPUs of up to three kinds, what strangers and engines use and hold of them, and what is needed of each kind."""
    gpus: list[Gpu] = []
    held: dict[str, tuple[Reservation, ...]] = {}
    needs = {kind: draw(st.none() | st.sampled_from([1, 10, 40, 80, 200])) for kind in KINDS}
    for index in range(draw(st.integers(0, 6))):
        name, total = draw(st.sampled_from(KINDS))
        room = total
        reservations: list[Reservation] = []
        for engine_id in draw(st.lists(st.sampled_from(["qwen-1", "qwen-2", "minilm"]), max_size=2, unique=True)):
            amount = draw(st.none() | st.integers(0, room))
            used = draw(st.integers(0, room if amount is None else amount))
            room -= used
            reservations.append(hold(engine_id, amount, used_gib=used, starting=draw(st.booleans())))
        strangers = draw(st.integers(0, room))
        gpu = make_gpu(index, used_gib=total - room + strangers, total_gib=total, name=name)
        gpus.append(_with_stranger(gpu, strangers))
        held[gpu.uuid] = tuple(reservations)
    needed = {gpu.uuid: _bytes(needs[gpu.name, gpu.memory_total // GIB]) for gpu in gpus}
    return tuple(gpus), Reservations(held=held, needed=needed)


def _bytes(gib: int | None) -> int | None:
    return None if gib is None else gib * GIB


def _with_stranger(gpu: Gpu, gib: int) -> Gpu:
    if not gib:
        return gpu
    process = GpuProcess(pid=4711, memory_used=gib * GIB)
    return Gpu(
        index=gpu.index,
        uuid=gpu.uuid,
        name=gpu.name,
        memory_total=gpu.memory_total,
        memory_used=gpu.memory_used,
        processes=(process,),
    )


EMPTY = [make_gpu(0), make_gpu(1)]
specs = st.builds(EngineSpec, model=st.just("wanted"), gpus=st.integers(0, 4))


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

    # Chance does not always come upon what is plain: two GPUs alike, both empty, or one promised, or one more wanted.
    @example(machine=(EMPTY, reserve(EMPTY, 40)), spec=EngineSpec(model="wanted", gpus=2))
    @example(machine=(EMPTY, reserve(EMPTY, 41, {0: [hold("qwen-1", 40)]})), spec=EngineSpec(model="wanted", gpus=2))
    @example(machine=(EMPTY, reserve(EMPTY)), spec=EngineSpec(model="wanted", gpus=3))
    @given(machine=machines(), spec=specs)
    @SUITE
    def test_it_gives_gpus_that_fit_in_the_number_asked_for_or_a_reason(
        self, machine: tuple[Sequence[Gpu], Reservations], spec: EngineSpec
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
        for uuid in answer.gpus:
            gpu = by_uuid[uuid]
            assert reservations.fits(gpu), (
                f"{uuid} does not fit: {reservations.needed[uuid]} bytes are needed (None: all of it), "
                f"{reservations.free(gpu)} can be had, and it is held by {reservations.held.get(uuid)}"
            )

    @given(machine=machines())
    @SUITE
    def test_an_engine_without_gpus_is_never_refused(self, machine: tuple[Sequence[Gpu], Reservations]) -> None:
        answer = self.make_scheduler().place(EngineSpec(model="wanted", gpus=0), *machine)
        assert isinstance(answer, Placement)
        assert answer.gpus == ()

    @given(count=st.integers(1, 4), more=st.integers(0, 2), needed=st.sampled_from([None, 1, 80]))
    @SUITE
    def test_empty_gpus_are_not_refused(self, count: int, more: int, needed: int | None) -> None:
        gpus = [make_gpu(index) for index in range(count + more)]
        answer = self.make_scheduler().place(EngineSpec(model="wanted", gpus=count), gpus, reserve(gpus, needed))
        assert isinstance(answer, Placement), answer

    def test_what_is_promised_is_not_free_though_nobody_uses_it_yet(self) -> None:
        gpus = [make_gpu(0, used_gib=1)]
        promised = reserve(gpus, 41, {0: [hold("qwen-1", 40, used_gib=1)]})
        answer = self.make_scheduler().place(EngineSpec(model="wanted", gpus=1), gpus, promised)
        assert isinstance(answer, Refusal) or not self.manages_gpus, answer

    def test_a_refusal_says_who_holds_the_gpus(self) -> None:
        gpus = [make_gpu(0), make_gpu(1)]
        held = reserve(gpus, 41, {0: [hold("qwen-1")], 1: [hold("minilm", 40)]})
        answer = self.make_scheduler().place(EngineSpec(model="wanted", gpus=2), gpus, held)
        if self.manages_gpus:
            assert isinstance(answer, Refusal), answer
            assert "qwen-1" in answer.reason, answer.reason
            assert "minilm" in answer.reason, answer.reason

    def test_more_gpus_than_there_are_are_refused(self) -> None:
        gpus = [make_gpu(0)]
        answer = self.make_scheduler().place(EngineSpec(model="wanted", gpus=3), gpus, reserve(gpus, 1))
        assert isinstance(answer, Refusal) or not self.manages_gpus, answer

    @given(machine=machines(), spec=specs)
    @SUITE
    def test_what_it_was_asked_before_promises_nothing(
        self, machine: tuple[Sequence[Gpu], Reservations], spec: EngineSpec
    ) -> None:
        """Stoker asks more than once: again when something has changed, and to see whether a refusal is for good."""
        scheduler = self.make_scheduler()
        first = scheduler.place(spec, *machine)
        scheduler.place(EngineSpec(model="another", gpus=1), *machine)
        assert type(scheduler.place(spec, *machine)) is type(first)

    @given(machine=machines(), spec=specs)
    @SUITE
    def test_it_does_not_change_what_it_is_shown(
        self, machine: tuple[Sequence[Gpu], Reservations], spec: EngineSpec
    ) -> None:
        gpus, held, needed = list(machine[0]), dict(machine[1].held), dict(machine[1].needed)
        self.make_scheduler().place(spec, gpus, Reservations(held=held, needed=needed))
        assert (gpus, held, needed) == (list(machine[0]), dict(machine[1].held), dict(machine[1].needed))
