"""The scheduler is asked, and held to its promises."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import pytest

from stoker.builtin.schedulers import Pack, Unmanaged
from stoker.contracts import GpuScheduler
from stoker.errors import LaunchError, PermanentLaunchError
from stoker.model import EngineSpec, Gpu, GpuReport, Placement, Refusal, Reservations
from stoker.supervise.choosing import Wait, choose
from stoker.supervise.holdings import Holdings

from .machine import GIB, gpu, report

SPEC = EngineSpec(model="m", gpus=1)
TWO = report(gpu(0), gpu(1))
MUST_BE = "and must be a tuple of UUIDs, such as ('GPU-0',)"


@attrs.frozen
class Answering:
    """A scheduler that answers whatever it is made to."""

    answer: Callable[[Sequence[Gpu]], object]
    name: str = "odd"

    def place(self, spec: EngineSpec, gpus: Sequence[Gpu], reservations: Reservations) -> Placement | Refusal:
        return self.answer(gpus)  # type: ignore[return-value]


def giving(*uuids: str) -> Answering:
    return Answering(lambda gpus: Placement(gpus=uuids))


def ask(
    scheduler: GpuScheduler,
    gpus: GpuReport = TWO,
    holdings: Holdings | None = None,
    *,
    gib: float | None = 10,
    spec: EngineSpec = SPEC,
) -> Placement | Wait | LaunchError:
    needed = None if gib is None else int(gib * GIB)
    return choose(scheduler, spec, gpus, holdings or Holdings(), {each.uuid: needed for each in gpus.gpus})


def held(promised_gib: float | None, *, ready: bool = True) -> Holdings:
    """The engine ``a`` holds something of both GPUs."""
    holdings = Holdings()
    promised = None if promised_gib is None else int(promised_gib * GIB)
    holdings.take("a", attrs.evolve(SPEC, gpus=2), TWO.gpus, {"GPU-0": promised, "GPU-1": promised})
    if ready:
        holdings.ready("a", 0.0)
        holdings.measure(TWO, 1.0)
    return holdings


def test_what_the_scheduler_chose_is_taken() -> None:
    assert ask(giving("GPU-1")) == Placement(gpus=("GPU-1",))


def test_a_scheduler_that_manages_no_gpus_is_right_whatever_there_is() -> None:
    assert ask(Unmanaged(), GpuReport()) == Placement()


def test_a_refusal_is_for_now_if_empty_gpus_would_do() -> None:
    answer = ask(Pack(), holdings=held(None))
    assert isinstance(answer, Wait)
    assert answer.refused
    assert answer.reason.startswith("waits for GPUs: m needs 1 GPU")
    assert "held by a (all of it)" in answer.reason


def test_a_refusal_is_for_good_if_empty_gpus_would_not_do_either() -> None:
    answer = ask(Pack(), holdings=held(None), gib=100)
    assert isinstance(answer, PermanentLaunchError)
    assert str(answer).startswith("no GPUs for it: m needs 1 GPU with 100.0 GiB free")
    assert isinstance(ask(Pack(), GpuReport(reason="no NVIDIA driver is installed")), PermanentLaunchError)


def test_a_refusal_while_the_driver_does_not_tell_all_is_for_now() -> None:
    answer = ask(Pack(), GpuReport(reason="GPU 0 can't be read: GPU is lost", incomplete=True))
    assert isinstance(answer, Wait)
    assert answer.reason.endswith("; GPU 0 can't be read: GPU is lost")


def test_one_engine_at_a_time_starts_on_a_gpu() -> None:
    answer = ask(giving("GPU-1"), holdings=held(10, ready=False))
    assert answer == Wait("waits for a, which is starting on GPU 1", refused=False)
    assert ask(giving("GPU-1"), holdings=held(10)) == Placement(gpus=("GPU-1",))


@pytest.mark.parametrize(
    ("scheduler", "wrong"),
    [
        (giving("GPU-7"), "there is no GPU GPU-7; there are: GPU-0, GPU-1"),
        (giving("GPU-0", "GPU-0"), "it gave a GPU twice: GPU 0, GPU 0"),
        (giving("GPU-0", "GPU-1"), "1 wanted, 2 given: GPU 0, GPU 1"),
        (Answering(lambda _: None), "it answered None, which is neither a Placement nor a Refusal"),
        (Answering(lambda _: Refusal(reason=["busy"])), "it refused it with the reason ['busy'], which says nothing"),  # type: ignore[arg-type]
        (Answering(lambda _: Refusal(reason=" ")), "it refused it with the reason ' ', which says nothing"),
        (Answering(lambda _: Placement(host=None)), "it put it on the host None, which is no text"),  # type: ignore[arg-type]
        (Answering(lambda _: Placement(gpus=(7,))), f"its gpus are (7,), {MUST_BE}"),  # type: ignore[arg-type]
        (Answering(lambda _: Placement(gpus="GPU-0")), f"its gpus are 'GPU-0', {MUST_BE}"),  # type: ignore[arg-type]
        (Answering(lambda _: Placement(gpus=None)), f"its gpus are None, {MUST_BE}"),  # type: ignore[arg-type]
        (Answering(lambda gpus: Placement(gpus=gpus)), f"its gpus are {TWO.gpus}, {MUST_BE}"),  # type: ignore[arg-type]
    ],
)
def test_a_placement_that_can_not_be_is_refused_in_its_name(scheduler: GpuScheduler, wrong: str) -> None:
    answer = ask(scheduler)
    assert isinstance(answer, PermanentLaunchError)
    assert str(answer) == f"scheduler 'odd' placed it wrongly: {wrong}"


def test_a_scheduler_that_gives_away_memory_that_is_not_there_is_refused_with_all_the_names() -> None:
    answer = ask(giving("GPU-0"), holdings=held(75))
    assert str(answer) == (
        "scheduler 'odd' placed it wrongly: GPU 0 can't give it 10.0 GiB: 5.0 GiB of 80.0 GiB can be had, "
        "held by a (75.0 GiB)"
    )
    alone = ask(giving("GPU-0"), holdings=held(75), gib=None)
    assert "GPU 0 must be its alone, since nobody knows what it needs" in str(alone)
    assert "held by a (all of it)" in str(ask(giving("GPU-0"), holdings=held(None)))


class RudeError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize("error", [SystemExit(3), RudeError()], ids=["one that leaves", "one that can't be told"])
def test_whatever_a_scheduler_raises_is_contained(error: BaseException) -> None:
    def broken(gpus: Sequence[Gpu]) -> object:
        raise error

    assert str(ask(Answering(broken))).startswith("scheduler 'odd' could not place it: ")


def test_what_a_scheduler_raises_costs_this_start_and_is_named() -> None:
    def broken(gpus: Sequence[Gpu]) -> object:
        raise ZeroDivisionError("a defect")

    answer = ask(Answering(broken))
    assert isinstance(answer, LaunchError)
    assert not isinstance(answer, PermanentLaunchError), "it may do better the next time"
    assert str(answer) == "scheduler 'odd' could not place it: ZeroDivisionError: a defect"
    assert isinstance(answer.__cause__, ZeroDivisionError)
