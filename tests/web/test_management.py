"""The whole at a glance: health, backends, GPUs, status, reload."""

from __future__ import annotations

import pytest
import trio
from tests.web.conftest import World, error_of

from stoker import __version__
from stoker.core.reload import Difference
from stoker.errors import ConfigError, Mistake, StokerError
from stoker.gateway.routing import Ticket
from stoker.model import Gpu, GpuProcess, GpuReport, RouteRequest


def ticket(model: str) -> Ticket:
    request = RouteRequest(request_id="r", model=model, path="/v1/chat/completions")
    return Ticket(request, patience_seconds=60)


async def test_the_gateway_is_healthy_without_any_engine_but_not_ready(world: World) -> None:
    answer = await world.anyone.get("/health")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    answer = await world.anyone.get("/ready")
    assert answer.status_code == 503
    assert "retry-after" in answer.headers
    assert error_of(answer)["message"] == "there are no engines"


async def test_it_is_ready_while_one_engine_is(world: World) -> None:
    await world.api.post("/engines/start", json={"model": "m", "replicas": 2})
    answer = await world.anyone.get("/ready")
    assert answer.status_code == 503
    assert error_of(answer)["message"] == "no engine is READY; there are: 2 STARTING"
    world.supervisor.becomes_ready("m")
    answer = await world.anyone.get("/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "engines_ready": 1})
    world.supervisor.crashes("m")
    answer = await world.anyone.get("/ready")
    assert error_of(answer)["message"] == "no engine is READY; there are: 1 STARTING, 1 ERROR"


async def test_it_is_not_ready_any_more_when_it_shuts_down(world: World) -> None:
    await world.start("m")
    world.operations.leaving = True
    answer = await world.anyone.get("/ready")
    assert answer.status_code == 503
    assert "shutting down" in error_of(answer)["message"]
    assert (await world.anyone.get("/health")).status_code == 200


async def test_the_gateway_is_told_to_stop_or_to_restart(world: World) -> None:
    for path, order in (
        ("/gateway/stop", None),
        ("/gateway/stop", {"keep_engines": True, "now": True}),
        ("/gateway/restart", {}),
    ):
        assert (await world.api.post(path, json=order)).status_code == 202
    assert world.operations.told == [("stop", False, False), ("stop", True, True), ("restart", False)]
    wrong = await world.api.post("/gateway/stop", json={"keep": True, "now": 1})
    assert wrong.status_code == 400
    assert "keep: is not known here; there are: keep_engines, now" in error_of(wrong)["message"]
    assert "now: must be true or false" in error_of(wrong)["message"]
    world.operations.leaving = True
    assert (await world.api.post("/gateway/stop")).status_code == 409


async def test_backends_say_where_requests_go(world: World) -> None:
    await world.start("a", model="m", names=["n"], max_concurrency=4)
    await world.api.post("/engines/start", json={"model": "x"})  # not launched yet, so without a URL
    lease = world.table.open(ticket("n"))
    assert lease is not None
    expected = {
        "engine_id": "a",
        "url": "http://127.0.0.1:9000",
        "model": "m",
        "names": ["m", "n"],
        "kind": "llm",
        "state": "READY",
        "healthy": True,
        "in_flight": 1,
        "limit": 4,
        "paths": ["/v1/chat/completions"],
        "renames": {},
        "needs_key": False,
    }
    assert (await world.api.get("/backends")).json() == {"object": "list", "data": [expected]}
    assert (await world.api.get("/engines/a")).json()["active_requests"] == 1
    lease.close()
    world.supervisor.crashes("a")
    (crashed,) = (await world.api.get("/backends")).json()["data"]
    assert crashed == {**expected, "state": "ERROR", "healthy": False, "in_flight": 0}


async def test_gpus_are_shown_or_the_reason_why_there_are_none(world: World) -> None:
    world.operations.report = GpuReport(reason="the NVIDIA driver is not installed")
    body = {"gpus": [], "reason": "the NVIDIA driver is not installed", "incomplete": False}
    assert (await world.api.get("/gpu")).json() == body
    gpu = Gpu(
        index=0,
        uuid="GPU-1",
        name="A100",
        memory_total=80,
        memory_used=8,
        processes=(GpuProcess(pid=7, memory_used=8, engine_id="m"),),
        engines=("m",),
    )
    world.operations.report = GpuReport(gpus=(gpu,))
    (shown,) = (await world.api.get("/gpu")).json()["gpus"]
    assert (shown["uuid"], shown["engines"], shown["utilisation"]) == ("GPU-1", ["m"], None)
    assert shown["processes"] == [{"pid": 7, "memory_used": 8, "engine_id": "m"}]


async def test_the_status_counts_and_says_what_the_program_adds(world: World) -> None:
    await world.start("a", model="m", max_concurrency=1)
    await world.api.post("/engines/start", json={"model": "x", "replicas": 2})
    lease = world.table.open(ticket("m"))
    assert lease is not None
    waiting = ticket("m")
    world.table.enqueue(waiting)
    body = (await world.api.get("/status")).json()
    assert body["version"] == __version__
    assert body["uptime_seconds"] >= 0
    assert body["policy"] == "least-load"
    assert body["queue"] == {"in_flight": 1, "waiting": 1, "size": 1024, "seconds": 60.0}
    assert body["engines"] == {"STARTING": 2, "READY": 1, "DRAINING": 0, "STOPPED": 0, "ERROR": 0}
    assert (body["lanes"], body["plugins"], body["shutting_down"]) == (["hypercorn"], ["builtin"], False)
    assert body["counters"]["requests"] == 0
    failures = {"raised": 0, "not_a_candidate": 0, "slow": 0}
    first = {"name": "first", "plugin": "unknown", "in_service": True, "models": ["m", "x"], "failures": failures}
    assert body["policies"] == [first]
    world.table.withdraw(waiting)
    lease.close()


async def test_a_reload_answers_with_the_difference(world: World) -> None:
    world.operations.difference = Difference(added=("a",), changed=("b", "c"))
    answer = await world.api.post("/reload")
    assert answer.status_code == 200
    assert answer.json() == {
        "added": ["a"],
        "removed": [],
        "changed": ["b", "c"],
        "updated": [],
        "unchanged": [],
        "at_next_start": [],
    }


async def test_a_reload_of_a_wrong_configuration_tells_every_mistake(world: World) -> None:
    mistakes = [Mistake("engine[0].gpus", "must be a number"), Mistake("gateway.lisen", "is not a setting")]
    world.operations.difference = ConfigError("stoker.toml", mistakes)
    answer = await world.api.post("/reload")
    assert answer.status_code == 400
    error = error_of(answer)
    assert error["code"] == "invalid_configuration"
    assert "stoker.toml: 2 mistakes" in error["message"]
    assert all(str(mistake) in error["message"] for mistake in mistakes)


async def test_a_reload_without_a_configuration_says_so(world: World) -> None:
    world.operations.difference = StokerError("there is no configuration file")
    answer = await world.api.post("/reload")
    assert answer.status_code == 500
    assert error_of(answer)["message"] == "there is no configuration file"


async def test_many_askers_at_once_are_all_answered(world: World) -> None:
    await world.start("m")
    answers = []

    async def ask(path: str) -> None:
        answers.append((await world.api.get(path)).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            for path in ("/engines", "/status", "/backends", "/gpu", "/engines/m/logs"):
                nursery.start_soon(ask, path)
    assert answers == [200] * 50


@pytest.mark.parametrize("metadata", [{"é": "\U0001f600", "deep": {"list": [1, 2.5, None, True]}}])
async def test_metadata_comes_back_as_it_was_given(world: World, metadata: dict[str, object]) -> None:
    await world.start("m", metadata=metadata)
    assert (await world.api.get("/engines/m")).json()["metadata"] == metadata
