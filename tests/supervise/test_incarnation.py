"""The task of one incarnation, seen through the events that it dispatches."""

from __future__ import annotations

from pathlib import Path

import attrs
import httpx2
import trio

from stoker.builtin.runtimes import Remote
from stoker.builtin.schedulers import Unmanaged
from stoker.core import events as e
from stoker.model import Activity, EngineLoad, EngineRun, EngineSpec, Origin
from stoker.supervise.incarnation import Incarnation
from stoker.supervise.placing import Placer

from .conftest import no_gpus


@attrs.frozen
class Surroundings:
    """Engines without a process, GPUs or clients, behind ``client``."""

    client: httpx2.AsyncClient
    placer: Placer = attrs.field(factory=lambda: Placer(Unmanaged(), no_gpus, lambda _: None))

    @property
    def traffic(self) -> Surroundings:
        return self

    def activity(self, engine_id: str) -> Activity:
        return Activity()

    def report_load(self, engine_id: str, incarnation: int, load: EngineLoad | None) -> None:
        raise NotImplementedError

    def log_of(self, engine_id: str) -> Path:
        raise NotImplementedError

    def mark_of(self, engine_id: str, incarnation: int) -> str:
        raise NotImplementedError

    async def keep(self, run: EngineRun) -> None:
        raise NotImplementedError


async def test_a_probe_that_fails_because_the_engine_is_being_stopped_is_not_told() -> None:
    """It would take the place of the error that the engine is stopped for."""
    events: list[e.Event] = []
    spec = EngineSpec(model="m", runtime="remote", url="http://engine")

    def answer(request: httpx2.Request) -> httpx2.Response:
        incarnation.ask_to_stop(0.0)
        return httpx2.Response(503, request=request)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        around = Surroundings(client)
        incarnation = Incarnation("e", 1, spec, Origin.REGISTERED, Remote(), around, events.append)
        with trio.fail_after(20):
            await incarnation.run()
    assert [type(event) for event in events] == [e.Launched, e.ProcessStopped]
