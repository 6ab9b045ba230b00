"""How much of each GPU an engine needs: what it says itself, what was measured, what its runtime thinks."""

from __future__ import annotations

import pytest

from stoker.errors import PermanentLaunchError
from stoker.model import EngineSpec, Gpu
from stoker.supervise.needs import NoMeasurements, needs_of

GIB = 2**30
SMALL = Gpu(index=0, uuid="small", name="S", memory_total=24 * GIB, memory_used=0)
LARGE = Gpu(index=1, uuid="large", name="L", memory_total=80 * GIB, memory_used=0)


class Measured(NoMeasurements):
    """Knows what engines used of the large kind."""

    def needed(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        return 30 * GIB if gpu is LARGE else None


def nine_tenths(spec: EngineSpec, gpu: Gpu) -> int | None:
    return gpu.memory_total // 10 * 9


def unknown(spec: EngineSpec, gpu: Gpu) -> int | None:
    return None


def nothing(spec: EngineSpec, gpu: Gpu) -> int | None:
    return 0


def test_what_the_spec_says_is_shared_by_its_gpus_and_nobody_else_is_asked() -> None:
    spec = EngineSpec(model="m", gpus=3, required_memory_bytes=10)
    assert needs_of(spec, [SMALL, LARGE], nine_tenths, Measured()) == {"small": 4, "large": 4}


def test_the_larger_of_the_estimate_and_the_measurement_counts() -> None:
    spec = EngineSpec(model="m", gpus=1)
    assert needs_of(spec, [SMALL, LARGE], nine_tenths, Measured()) == {
        "small": SMALL.memory_total // 10 * 9,
        "large": LARGE.memory_total // 10 * 9,
    }
    assert needs_of(spec, [SMALL, LARGE], unknown, Measured()) == {"small": None, "large": 30 * GIB}


@pytest.mark.parametrize("estimate", [unknown, nothing])
def test_where_nobody_knows_it_needs_the_gpu_for_itself(estimate: object) -> None:
    assert needs_of(EngineSpec(model="m", gpus=1), [SMALL], estimate, NoMeasurements()) == {"small": None}  # type: ignore[arg-type]


def test_a_runtime_that_breaks_at_it_is_named() -> None:
    def broken(spec: EngineSpec, gpu: Gpu) -> int | None:
        raise ZeroDivisionError("a defect")

    with pytest.raises(PermanentLaunchError, match="runtime 'vllm' could not estimate its memory: ZeroDivisionError"):
        needs_of(EngineSpec(model="m", gpus=1), [SMALL], broken, NoMeasurements())


def test_one_that_leaves_the_program_only_leaves_its_engine() -> None:
    def leaving(spec: EngineSpec, gpu: Gpu) -> int | None:
        raise SystemExit(3)

    with pytest.raises(PermanentLaunchError, match="could not estimate its memory: SystemExit: 3"):
        needs_of(EngineSpec(model="m", gpus=1), [SMALL], leaving, NoMeasurements())


@pytest.mark.parametrize("estimated", ["8GiB", 8e9, -1, True, float("nan")], ids=repr)
def test_what_is_no_number_of_bytes_is_refused(estimated: object) -> None:
    with pytest.raises(PermanentLaunchError, match="it must give bytes, as a whole number, or None"):
        needs_of(EngineSpec(model="m", gpus=1), [SMALL], lambda *_: estimated, NoMeasurements())  # type: ignore[arg-type]
