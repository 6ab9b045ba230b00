"""Sleep, wake and adapters over HTTP. What the engine does is played; see tests/supervise/test_tending.py for that."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest
import trio
from tests.web.conftest import World, error_of

from stoker.core import events as e
from stoker.errors import ConflictError, NotFoundError, UpstreamError


@attrs.define
class PlayedTending:
    """Notes what it is told, and does at once what the test says that comes of it."""

    world: World
    problem: Exception | None = None
    told: list[tuple[str, ...]] = attrs.field(factory=list)

    async def sleep(self, engine_id: str) -> None:
        await self._note("sleep", engine_id)
        self.world.supervisor._dispatch(e.SleepChanged(engine_id, 1, asleep=True))

    async def wake(self, engine_id: str) -> None:
        await self._note("wake", engine_id)
        self.world.supervisor._dispatch(e.SleepChanged(engine_id, 1, asleep=False))

    async def load_adapter(self, engine_id: str, name: str, path: str) -> None:
        await self._note("load", engine_id, name, path)
        self.world.supervisor._dispatch(e.AdaptersChanged(engine_id, 1, (name,)))

    async def unload_adapter(self, engine_id: str, name: str) -> None:
        await self._note("unload", engine_id, name)
        self.world.supervisor._dispatch(e.AdaptersChanged(engine_id, 1, ()))

    async def _note(self, *words: str) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(words)
        if self.problem is not None:
            raise self.problem


async def played(world: World, problem: Exception | None = None) -> PlayedTending:
    tending = PlayedTending(world, problem)
    await world.start("m")
    world.supervisor.tending = cast("Any", tending)
    return tending


async def test_sleep_and_wake_answer_with_the_engine(world: World) -> None:
    tending = await played(world)
    answer = await world.api.post("/engines/m/sleep")
    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["asleep"], answer.json()["reason"]) == ("READY", True, "asleep")
    (backend,) = (await world.api.get("/backends")).json()["data"]
    assert not backend["healthy"]
    assert not (await world.api.post("/engines/m/wake", json={})).json()["asleep"]
    assert tending.told == [("sleep", "m"), ("wake", "m")]


async def test_a_request_for_a_model_that_sleeps_is_told_how_to_wake_it(world: World) -> None:
    await played(world)
    await world.api.post("/engines/m/sleep")
    asked = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    answer = await world.anyone.post("/v1/chat/completions", json=asked)
    assert answer.status_code == 503
    assert "m: asleep; wake it with: stoker engine wake m" in error_of(answer)["message"]


async def test_adapters_are_loaded_listed_and_unloaded(world: World) -> None:
    tending = await played(world)
    answer = await world.api.post("/engines/m/adapters", json={"name": "org/sql", "path": "/adapters/sql"})
    assert answer.status_code == 201
    assert answer.json()["adapters"] == ["org/sql"]
    assert (await world.api.get("/engines/m/adapters")).json()["data"] == [{"name": "org/sql"}]
    assert (await world.api.delete("/engines/m/adapters/org%2Fsql")).json()["adapters"] == []
    assert tending.told == [("load", "m", "org/sql", "/adapters/sql"), ("unload", "m", "org/sql")]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "sql"}, "path"),
        ({"name": "", "path": "/x"}, "name"),
        ({"name": 7, "path": "/x"}, "name"),
        ({"name": "sql", "path": "/x", "level": 1}, "level"),
    ],
)
async def test_an_order_for_an_adapter_is_read_strictly(world: World, body: dict[str, Any], param: str) -> None:
    tending = await played(world)
    answer = await world.api.post("/engines/m/adapters", json=body)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param
    assert tending.told == []


@pytest.mark.parametrize(
    ("problem", "status", "code"),
    [
        (ConflictError("it is busy"), 409, "conflict"),
        (NotFoundError("no such engine"), 404, "not_found"),
        (UpstreamError("it broke off"), 502, "engine_failed"),
    ],
)
async def test_what_can_not_be_done_is_told(world: World, problem: Exception, status: int, code: str) -> None:
    await played(world, problem)
    for path in ("sleep", "wake"):
        answer = await world.api.post(f"/engines/m/{path}")
        assert (answer.status_code, error_of(answer)["code"]) == (status, code)
        assert error_of(answer)["message"] == str(problem)


async def test_only_an_administrator_may_put_an_engine_to_sleep(world: World) -> None:
    tending = await played(world)
    assert (await world.anyone.post("/v1/management/engines/m/sleep")).status_code == 401
    assert tending.told == []
