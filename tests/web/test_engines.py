"""Engines over HTTP: started, registered, looked at, stopped, restarted, forgotten."""

from __future__ import annotations

from typing import Any

import attrs
import httpx2
import pytest
import trio
from tests.web.conftest import World, error_of

from stoker.model import EngineInfo

SPEC = {"model": "org/m"}


class Asking:
    """A request under way, and its answer once it is there."""

    answer: httpx2.Response

    def __init__(self, world: World, nursery: trio.Nursery, method: str, path: str, **more: Any) -> None:
        self.done = trio.Event()

        async def ask() -> None:
            self.answer = await world.api.request(method, path, **more)
            self.done.set()

        nursery.start_soon(ask)

    async def result(self) -> httpx2.Response:
        with trio.fail_after(10):
            await self.done.wait()
        return self.answer


async def started(world: World, engine_id: str) -> None:
    """Wait until the request for this engine has arrived."""
    with trio.fail_after(10):
        while world.supervisor.state_of(engine_id) is None:
            await trio.lowlevel.checkpoint()


async def state_is(world: World, engine_id: str, state: str) -> None:
    with trio.fail_after(10):
        while world.supervisor.state_of(engine_id) != state:
            await trio.lowlevel.checkpoint()


async def test_a_started_engine_is_answered_at_once_and_can_be_looked_at(world: World) -> None:
    answer = await world.api.post("/engines/start", json={**SPEC, "names": ["x"], "metadata": {"a": [1, {"b": None}]}})
    assert answer.status_code == 202
    assert answer.headers["location"] == "/v1/management/engines/m"
    body = answer.json()
    assert body.pop("engine_ids") == ["m"]
    assert (body["engine_id"], body["state"], body["origin"]) == ("m", "STARTING", "managed")
    assert body["names"] == ["org/m", "x"]
    assert body["metadata"] == {"a": [1, {"b": None}]}
    assert (await world.api.get("/engines/m")).json() == body
    assert (await world.api.get("/engines")).json() == {"object": "list", "data": [body]}


async def test_an_engine_is_shown_with_every_field_in_order(world: World) -> None:
    await world.start("m")
    body = (await world.api.get("/engines/m")).json()
    assert list(body) == [field.name for field in attrs.fields(EngineInfo)]
    assert (body["state"], body["pid"], body["base_url"]) == ("READY", 4242, "http://127.0.0.1:9000")


async def test_replicas_are_all_named(world: World) -> None:
    answer = await world.api.post("/engines/start", json={**SPEC, "replicas": 3})
    assert answer.json()["engine_ids"] == ["m", "m-2", "m-3"]


async def test_the_older_spellings_are_understood(world: World) -> None:
    body = {"model_id": "org/m", "engine_kind": "vllm", "engine_label": "mine", "max_concurrent_requests": 3}
    answer = await world.api.post("/engines/start", json=body)
    assert answer.status_code == 202
    assert (answer.json()["engine_id"], answer.json()["max_concurrency"]) == ("mine", 3)


async def test_waiting_for_ready_is_answered_when_all_replicas_are(world: World, nursery: trio.Nursery) -> None:
    asking = Asking(world, nursery, "POST", "/engines/start?wait=ready", json={**SPEC, "replicas": 2})
    await started(world, "m-2")
    world.supervisor.becomes_ready("m-2")
    world.supervisor.becomes_ready("m")
    answer = await asking.result()
    assert answer.status_code == 200
    assert answer.json()["state"] == "READY"
    assert {info.state for info in world.supervisor.infos()} == {"READY"}


async def test_waiting_ends_with_the_first_replica_that_fails(world: World, nursery: trio.Nursery) -> None:
    asking = Asking(world, nursery, "POST", "/engines/start?wait=ready", json={**SPEC, "replicas": 2})
    await started(world, "m-2")
    world.supervisor.can_not_start("m-2", "there is no file /no/such/model")
    answer = await asking.result()
    assert answer.status_code == 502
    error = error_of(answer)
    assert error["code"] == "engine_failed"
    assert "'m-2'" in error["message"]
    assert "there is no file /no/such/model" in error["message"]


async def test_an_engine_that_exits_at_once_is_answered_with_its_last_words(
    world: World, nursery: trio.Nursery
) -> None:
    asking = Asking(world, nursery, "POST", "/engines/start?wait=ready", json=SPEC)
    await started(world, "m")
    world.supervisor.crashes("m")
    assert "the last words" in error_of(await asking.result())["message"]


@pytest.mark.parametrize("forget", [False, True])
async def test_waiting_for_an_engine_that_somebody_stops_is_a_conflict(
    world: World, nursery: trio.Nursery, *, forget: bool
) -> None:
    asking = Asking(world, nursery, "POST", "/engines/start?wait=ready", json=SPEC)
    await started(world, "m")
    world.supervisor.stop("m", forget=forget)
    world.supervisor.is_stopped("m")
    answer = await asking.result()
    assert answer.status_code == 409
    assert error_of(answer)["code"] == "engine_stopped"


async def test_a_client_that_stops_waiting_does_not_stop_the_engine(world: World) -> None:
    async with trio.open_nursery() as nursery:
        Asking(world, nursery, "POST", "/engines/start?wait=ready", json=SPEC)
        await started(world, "m")
        nursery.cancel_scope.cancel()
    assert (await world.api.get("/engines/m")).json()["state"] == "STARTING"
    world.supervisor.becomes_ready("m")
    assert (await world.api.get("/engines/m")).json()["state"] == "READY"


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "model", "is missing"),
        ({"model": ""}, "model", "empty"),
        ({"model": "m", "gpu": 1}, "gpu", "gpus"),
        ({"model": "m", "replicas": "two"}, "replicas", "whole number"),
        ({"model": "m", "replicas": 0}, "replicas", "at least 1"),
        ({"model": "m", "args": "--x"}, "args", "list"),
        ({"model": "m", "args": ["a\0b"]}, "args[0]", "NUL"),
        ({"model": "m", "runtime": "vlm"}, "runtime", "'vlm'"),
        ({"model": "m", "args": ["--bad"]}, None, "--bad is not for vllm"),
        ({"model": "m", "engine_id": "../x"}, "engine_id", "letters"),
        ({"model": "m", "engine_id": 3}, "engine_id", "letters"),
    ],
)
async def test_a_spec_that_is_wrong_is_refused_with_what_is_wrong(
    world: World, body: dict[str, Any], param: str | None, words: str
) -> None:
    answer = await world.api.post("/engines/start", json=body)
    assert answer.status_code == 400
    error = error_of(answer)
    assert error["param"] == param
    assert words in error["message"]
    assert not world.supervisor.infos()


async def test_every_mistake_of_a_spec_is_told(world: World) -> None:
    answer = await world.api.post("/engines/start", json={"gpus": "all", "kindd": "llm"})
    message = error_of(answer)["message"]
    for name in ("model", "gpus", "kindd"):
        assert f"\n  {name}: " in message


async def test_an_id_that_runs_is_a_conflict_and_the_engine_is_not_hurt(world: World) -> None:
    await world.start("m")
    answer = await world.api.post("/engines/start", json={**SPEC, "engine_id": "m"})
    assert answer.status_code == 409
    assert "'m'" in error_of(answer)["message"]
    assert world.supervisor.info("m").state == "READY"


async def test_an_engine_may_be_called_start(world: World) -> None:
    await world.start("start")
    assert (await world.api.get("/engines/start")).json()["engine_id"] == "start"
    assert (await world.api.post("/engines/start/stop")).status_code == 202


# Registering


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ({"url": "http://127.0.0.1:9001"}, "http://127.0.0.1:9001"),
        ({"url": "https://example.com/llm", "host": None}, "https://example.com/llm"),
        ({"host": "example.com", "port": 9001}, "http://example.com:9001"),
        ({"host": "::1", "port": 9001}, "http://[::1]:9001"),
    ],
)
async def test_a_url_is_registered(world: World, address: dict[str, Any], url: str) -> None:
    body = {"model": "m", "names": ["x"], "kind": "embedding", "engine_id": "mine", "max_concurrency": 3, **address}
    answer = await world.api.post("/engines/register", json=body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/v1/management/engines/mine"
    info = answer.json()
    assert (info["engine_id"], info["origin"], info["kind"], info["max_concurrency"]) == (
        "mine",
        "registered",
        "embedding",
        3,
    )
    assert world.supervisor.specs()["mine"].url == url


async def test_a_url_is_registered_for_a_model_only_once(world: World) -> None:
    body = {"model": "m", "url": "http://127.0.0.1:9001"}
    assert (await world.api.post("/engines/register", json=body)).status_code == 201
    again = await world.api.post("/engines/register", json=body)
    assert again.status_code == 409
    assert "http://127.0.0.1:9001" in error_of(again)["message"]
    assert len(world.supervisor.infos()) == 1


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "url"),
        ({"url": "http://a", "host": "a", "port": 1}, "url"),
        ({"host": "a"}, "port"),
        ({"host": "a", "port": 0}, "port"),
        ({"host": "a", "port": True}, "port"),
        ({"host": "a", "port": "1"}, "port"),
        ({"port": 1}, "host"),
        ({"host": ["a"], "port": 1}, "host"),
        ({"url": "ftp://a"}, "url"),
        ({"url": "http://a", "replicas": 2}, "replicas"),
        ({"url": "http://a", "urls": "x"}, "urls"),
    ],
)
async def test_what_can_not_be_registered(world: World, body: dict[str, Any], param: str) -> None:
    answer = await world.api.post("/engines/register", json={"model": "m", **body})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


async def test_an_engine_of_any_runtime_that_takes_a_url_can_be_registered(world: World) -> None:
    """Whether it is started is a matter of its url, not of what its runtime is called."""
    registered = await world.api.post(
        "/engines/register", json={"model": "m", "url": "http://example.com:1", "runtime": "vllm"}
    )
    started = await world.api.post(
        "/engines/start", json={"model": "o", "url": "http://example.com:2", "runtime": "vllm"}
    )
    assert registered.json()["origin"] == started.json()["origin"] == "registered"


# Stopping


async def test_a_stop_drains_for_the_time_of_the_spec(world: World) -> None:
    await world.start("m", drain_timeout_seconds=1000)
    answer = await world.api.post("/engines/m/stop")
    assert (answer.status_code, answer.json()["state"]) == (202, "DRAINING")
    world.supervisor.is_stopped("m")
    assert (await world.api.get("/engines/m")).json()["state"] == "STOPPED"


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        (None, 30),
        ({}, 30),
        ({"drain": True}, 30),
        ({"drain": False}, 0),
        ({"drain": False, "drain_timeout_seconds": 0}, 0),
        ({"drain_timeout_seconds": 2.5}, 2.5),
        ({"drain_timeout_seconds": None}, 30),
    ],
)
@pytest.mark.parametrize("method", ["stop", "restart", "DELETE"])
async def test_how_long_it_drains_can_be_said(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str, body: dict[str, Any] | None, seconds: float
) -> None:
    await world.start("m")
    told: list[float | None] = []
    step = type(world.supervisor)._dispatch

    def dispatch(supervisor: Any, event: Any) -> None:
        told.append(event.drain_timeout_seconds)
        step(supervisor, event)

    monkeypatch.setattr(type(world.supervisor), "_dispatch", dispatch)
    verb, path = ("DELETE", "/engines/m") if method == "DELETE" else ("POST", f"/engines/m/{method}")
    assert (await world.api.request(verb, path, json=body)).status_code == 202
    assert told == [seconds]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"drain": "no"}, "drain"),
        ({"drain_timeout_seconds": "5"}, "drain_timeout_seconds"),
        ({"drain_timeout_seconds": True}, "drain_timeout_seconds"),
        ({"drain_timeout_seconds": -1}, "drain_timeout_seconds"),
        ({"drain_timeout_seconds": 1e300}, "drain_timeout_seconds"),
        ({"drain": False, "drain_timeout_seconds": 5}, "drain_timeout_seconds"),
        ({"force": True}, "force"),
    ],
)
async def test_a_stop_that_is_wrong_stops_nothing(world: World, body: dict[str, Any], param: str) -> None:
    await world.start("m")
    answer = await world.api.post("/engines/m/stop", json=body)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param
    assert world.supervisor.info("m").state == "READY"


async def test_waiting_for_a_stop(world: World, nursery: trio.Nursery) -> None:
    await world.start("m")
    asking = Asking(world, nursery, "POST", "/engines/m/stop?wait=stopped")
    await state_is(world, "m", "DRAINING")
    world.supervisor.is_stopped("m")
    answer = await asking.result()
    assert (answer.status_code, answer.json()["state"]) == (200, "STOPPED")


async def test_stopping_what_is_stopped_is_no_error(world: World) -> None:
    await world.start("m")
    world.supervisor.stop("m")
    world.supervisor.is_stopped("m")
    answer = await world.api.post("/engines/m/stop")
    assert (answer.status_code, answer.json()["state"]) == (200, "STOPPED")


async def test_a_deleted_engine_is_gone_once_it_is_stopped(world: World, nursery: trio.Nursery) -> None:
    await world.start("m")
    asking = Asking(world, nursery, "DELETE", "/engines/m?wait=stopped")
    await state_is(world, "m", "DRAINING")
    world.supervisor.is_stopped("m")
    answer = await asking.result()
    assert answer.status_code == 200
    assert (answer.json()["engine_id"], answer.json()["deleted"]) == ("m", True)
    assert (await world.api.get("/engines/m")).status_code == 404


async def test_a_stopped_engine_is_deleted_at_once(world: World) -> None:
    await world.start("m")
    world.supervisor.stop("m")
    world.supervisor.is_stopped("m")
    assert (await world.api.delete("/engines/m")).json()["deleted"] is True
    assert not world.supervisor.infos()


# Starting again


async def test_a_stopped_engine_is_started_again(world: World, nursery: trio.Nursery) -> None:
    await world.start("m")
    refused = await world.api.post("/engines/m/start")
    assert refused.status_code == 409
    assert "READY" in error_of(refused)["message"]
    world.supervisor.stop("m")
    world.supervisor.is_stopped("m")
    asking = Asking(world, nursery, "POST", "/engines/m/start?wait=ready")
    await state_is(world, "m", "STARTING")
    world.supervisor.becomes_ready("m")
    answer = await asking.result()
    assert (answer.status_code, answer.json()["state"], answer.json()["restarts"]) == (200, "READY", 1)


async def test_a_restart_keeps_the_engine(world: World, nursery: trio.Nursery) -> None:
    await world.start("m")
    asking = Asking(world, nursery, "POST", "/engines/m/restart?wait=ready")
    await state_is(world, "m", "DRAINING")
    world.supervisor.is_stopped("m")
    world.supervisor.becomes_ready("m", port=9001)
    answer = await asking.result()
    assert (answer.status_code, answer.json()["engine_id"], answer.json()["port"]) == (200, "m", 9001)


# What does not exist


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/start"),
        ("POST", "/stop"),
        ("POST", "/stop?wait=stopped"),
        ("POST", "/restart"),
        ("GET", "/logs"),
        ("GET", "/logs?follow=1"),
    ],
)
async def test_an_engine_that_is_not_there_is_named_with_those_that_are(world: World, method: str, path: str) -> None:
    await world.start("m")
    answer = await world.api.request(method, f"/engines/n{path}")
    assert answer.status_code == 404
    assert error_of(answer)["message"] == "there is no engine 'n'; there are: m"


@pytest.mark.parametrize(
    ("method", "path", "param"),
    [
        ("POST", "/engines/start?wait=stopped", "wait"),
        ("POST", "/engines/start?wait=", "wait"),
        ("POST", "/engines/start?wiat=ready", "wiat"),
        ("POST", "/engines/m/stop?wait=ready", "wait"),
        ("DELETE", "/engines/m?wait=yes", "wait"),
        ("POST", "/engines/m/restart?wait=foo", "wait"),
        ("POST", "/engines/m/start?wait=foo", "wait"),
        ("GET", "/engines/m/logs?tail=abc", "tail"),
        ("GET", "/engines/m/logs?tail=-1", "tail"),
        ("GET", "/engines/m/logs?tail=1.5", "tail"),
        ("GET", "/engines/m/logs?tail=%D9%A3", "tail"),
        ("GET", "/engines/m/logs?tail=99999999999999999999", "tail"),
        ("GET", "/engines/m/logs?follow=maybe", "follow"),
        ("GET", "/engines/m/logs?" + "&".join(f"a{n}=1" for n in range(100)), None),
    ],
)
async def test_a_query_that_is_not_understood_is_named_and_nothing_happens(
    world: World, method: str, path: str, param: str | None
) -> None:
    await world.start("m")
    answer = await world.api.request(method, path, json=None if method == "GET" else {})
    assert answer.status_code == 400
    error = error_of(answer)
    assert error["param"] == param
    assert (param or "parameters") in error["message"]
    assert [info.state for info in world.supervisor.infos()] == ["READY"]
