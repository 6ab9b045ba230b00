"""Who changed what: every management call that changes something leaves an entry, and nothing else does."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from tests.web.conftest import World

from stoker.model import EngineState


async def trail(world: World) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = (await world.api.get("/audit")).json()["data"]
    return entries


async def test_a_change_is_noted_with_who_and_whence_and_what_came_of_it(world: World) -> None:
    await world.api.post("/engines/start", json={"model": "m"}, headers={"X-Request-ID": "mine"})
    await world.api.post("/engines/nobody/stop", json={})
    started, failed = await trail(world)
    at = started.pop("at")
    assert at == pytest.approx(failed["at"], abs=60)
    assert started == {
        "who": "admin token",
        "address": "127.0.0.1",
        "method": "POST",
        "path": "/v1/management/engines/start",
        "status": 202,
        "request_id": "mine",
    }
    assert (failed["status"], failed["path"]) == (404, "/v1/management/engines/nobody/stop")


async def test_a_key_is_noted_by_its_id_also_where_it_may_not(world: World) -> None:
    admin, client = await world.key("admin"), await world.key("inference")
    for headers in (admin, client):
        await world.anyone.post("/v1/management/reload", headers=headers)
    ids = [key["key_id"] for key in (await world.api.get("/keys")).json()["data"]]
    last = (await trail(world))[-2:]
    assert [(entry["who"], entry["status"]) for entry in last] == [(f"key {ids[0]}", 200), (f"key {ids[1]}", 403)]
    said = str(await trail(world))
    assert not any(secret["Authorization"].split()[-1] in said for secret in (admin, client))


async def test_whoever_only_looks_or_is_nobody_leaves_no_entry(world: World) -> None:
    for path in ("/engines", "/status", "/audit", "/nothing"):
        await world.api.get(path)
        await world.api.head(path)
    await world.api.post("/route/explain", json={"model": "m"})
    await world.anyone.post("/v1/management/reload")
    await world.anyone.post("/v1/management/reload", headers={"Authorization": "Bearer wrong"})
    await world.anyone.post("/health")
    assert await trail(world) == []


async def test_a_client_that_leaves_does_not_take_its_entry_along(world: World) -> None:
    await world.api.post("/engines/start", json={"model": "m", "engine_id": "m"})
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: world.api.post("/engines/m/stop?wait=stopped", json={}))
        while world.supervisor.state_of("m") is not EngineState.DRAINING:
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        while len(entries := await trail(world)) < 2:
            await trio.lowlevel.checkpoint()
    assert (entries[1]["path"], entries[1]["status"]) == ("/v1/management/engines/m/stop", 499)


async def test_the_tail_is_as_long_as_asked_for(world: World) -> None:
    for number in range(3):
        await world.api.delete(f"/keys/{number}")
    tail = (await world.api.get("/audit?tail=2")).json()["data"]
    assert [entry["path"][-1] for entry in tail] == ["1", "2"]
    assert (await world.api.get("/audit?tail=x")).status_code == 400


async def test_a_trail_that_can_not_be_kept_costs_no_call(world: World, caplog: pytest.LogCaptureFixture) -> None:
    assert world.desk.database is not None
    await world.desk.database.run(lambda connection: connection.execute("DROP TABLE audit") and None)
    for _ in range(3):
        assert (await world.api.post("/reload")).status_code == 200
    assert caplog.text.count("an entry of the audit trail was not kept") == 1
