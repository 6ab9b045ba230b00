from __future__ import annotations

import attrs

from stoker.contracts import GpuScheduler
from stoker.model import EngineSpec, Placement, Refusal, Reservation, Reservations
from stoker.testing.schedulers import SchedulerConformance, make_gpu
from stoker_coolest import Coolest

HOT = attrs.evolve(make_gpu(0), temperature=81)
COOL = attrs.evolve(make_gpu(1), temperature=40)
UNKNOWN = make_gpu(2)


class TestCoolest(SchedulerConformance):
    def make_scheduler(self) -> GpuScheduler:
        return Coolest()


def test_the_coolest_gpu_is_given_first() -> None:
    placed = Coolest().place(EngineSpec(model="m", gpus=1), [HOT, UNKNOWN, COOL], Reservations())
    assert placed == Placement(gpus=(COOL.uuid,))


def test_a_gpu_that_another_engine_holds_is_not_given_however_cool_it_is() -> None:
    held = Reservations(held={COOL.uuid: (Reservation(engine_id="qwen"),)})
    assert Coolest().place(EngineSpec(model="m", gpus=1), [HOT, COOL], held) == Placement(gpus=(HOT.uuid,))
    refused = Coolest().place(EngineSpec(model="m", gpus=2), [HOT, COOL], held)
    assert isinstance(refused, Refusal)
    assert "qwen" in refused.reason
