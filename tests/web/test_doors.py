"""The web app behind its door, and the desk where keys are made. Real sockets, a real state file."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from tests.web.conftest import BEARER, World, error_of

from stoker.settings import GatewaySettings
from stoker.store.database import StoreError

OPEN = ("/health", "/ready")
FOR_ANY_KEY = ("/metrics", "/nothing")
FOR_CLIENTS = ("/v1/models", "/v1/models/m", "/v1/management/backends")
FOR_ADMINS = ("/v1/management/engines", "/v1/management/status", "/v1/management/keys", "/v1/management/nothing")


async def status(world: World, path: str, headers: dict[str, str] | None = None) -> int:
    return (await world.anyone.get(path, headers=headers)).status_code


# The door


async def test_without_keys_only_management_is_closed(world: World) -> None:
    await world.start("m")
    for path in (*OPEN, "/metrics", "/v1/models", "/v1/models/m"):
        assert await status(world, path) == 200, path
    for path in ("/v1/management/backends", *FOR_ADMINS):
        assert await status(world, path) == 401, path


@pytest.mark.parametrize(
    ("scope", "clients", "admins"), [("inference", 200, 403), ("sessions", 403, 403), ("admin", 200, 200)]
)
async def test_with_a_key_all_but_health_is(world: World, scope: str, clients: int, admins: int) -> None:
    await world.start("m")
    key = await world.key(scope)
    for path in OPEN:
        assert await status(world, path) == 200
    for path in (*FOR_ANY_KEY, *FOR_CLIENTS, *FOR_ADMINS):
        assert await status(world, path) == 401, path
    assert await status(world, "/metrics", key) == 200
    assert await status(world, "/nothing", key) == 404
    for path in FOR_CLIENTS:
        assert await status(world, path, key) == clients, path
    for path in FOR_ADMINS[:-1]:
        assert await status(world, path, key) == admins, path
    assert await status(world, FOR_ADMINS[-1], key) == (404 if admins == 200 else 403)
    assert await status(world, "/v1/models", BEARER) == 200


async def test_a_client_may_watch_the_events_but_only_watch(world: World) -> None:
    key = await world.key()
    async with world.anyone.stream("GET", "/v1/management/events", headers=key) as answer:
        assert answer.status_code == 200
    for method, path in (("POST", "/events"), ("POST", "/backends"), ("POST", "/reload"), ("DELETE", "/engines/m")):
        answer = await world.anyone.request(method, f"/v1/management{path}", headers=key)
        assert (answer.status_code, error_of(answer)["code"]) == (403, "insufficient_scope"), path


async def test_a_key_of_certain_models_is_shown_no_others(world: World) -> None:
    await world.start("m")
    await world.start("secret")
    key = await world.key(models=["m", "later"])
    listed = await world.anyone.get("/v1/models", headers=key)
    assert [model["id"] for model in listed.json()["data"]] == ["m"]
    answer = await world.anyone.get("/v1/models/secret", headers=key)
    assert answer.status_code == 404
    assert error_of(answer)["message"].endswith("there are: m")


class TestWhereKeysAreRequired:
    @pytest.fixture
    def settings(self) -> GatewaySettings:
        return GatewaySettings(require_keys=True)

    async def test_it_is_closed_before_there_is_one(self, world: World) -> None:
        assert await status(world, "/v1/models") == 401
        assert await status(world, "/health") == 200
        assert await status(world, "/v1/models", await world.key()) == 200

    async def test_it_stays_closed_after_the_last_one(self, world: World) -> None:
        await world.key()
        [key] = (await world.api.get("/keys")).json()["data"]
        await world.api.delete(f"/keys/{key['key_id']}")
        assert await status(world, "/v1/models") == 401


# The desk


async def test_a_key_is_shown_whole_once(world: World) -> None:
    order: dict[str, Any] = {"name": "alice", "models": ["m"], "requests_per_minute": 6, "expires_in_seconds": 60}
    made = (await world.api.post("/keys", json=order)).json()
    text = made.pop("key")
    assert text.startswith(f"sk-stoker-{made['key_id']}-")
    assert made["scopes"] == ["inference"]
    assert made["expires_at"] == made["created_at"] + 60
    assert made["revoked_at"] is None
    listed = await world.api.get("/keys")
    assert listed.json()["data"] == [made]
    for path in ("/keys", "/status", "/engines"):
        assert text not in (await world.api.get(path)).text


async def test_a_key_that_is_revoked_opens_nothing_any_more(world: World) -> None:
    first, second = await world.key(), await world.key()
    assert await status(world, "/v1/models", first) == 200
    key_id = (await world.api.get("/keys")).json()["data"][0]["key_id"]
    revoked = await world.api.delete(f"/keys/{key_id}")
    assert (revoked.status_code, revoked.json()["revoked_at"] is not None) == (200, True)
    assert await status(world, "/v1/models", first) == 401
    assert await status(world, "/v1/models", second) == 200
    assert (await world.api.delete("/keys/nobody")).status_code == 404


async def test_an_order_that_makes_no_sense_is_refused(world: World) -> None:
    answer = await world.api.post("/keys", json={"name": "x", "scopes": ["all"]})
    assert answer.status_code == 400
    assert error_of(answer)["param"] == "scopes"
    assert (await world.api.get("/keys")).json()["data"] == []


async def test_a_key_of_another_process_counts_from_the_next_listing_on(world: World) -> None:
    key = await world.key()
    assert world.desk.database is not None
    with sqlite3.connect(world.desk.database.path) as connection:
        connection.execute("UPDATE keys SET revoked_at = 1.0")
    connection.close()
    assert await status(world, "/v1/models", key) == 200
    await world.api.get("/keys")
    assert await status(world, "/v1/management/backends", key) == 401


async def test_a_state_file_that_can_not_be_written_costs_only_the_desk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await world.key()

    async def full(_: object) -> None:
        raise StoreError("state.sqlite3: database or disk is full")

    assert world.desk.database is not None
    monkeypatch.setattr(type(world.desk.database), "run", lambda _, work: full(work))
    answer = await world.api.post("/keys", json={"name": "x"})
    assert (answer.status_code, error_of(answer)["code"]) == (503, "state_unavailable")
    assert await status(world, "/v1/models", key) == 200


async def test_refusals_are_counted_by_their_reason(world: World) -> None:
    await world.key()
    for _ in range(3):
        await world.anyone.get("/v1/models")
    page = (await world.anyone.get("/metrics", headers=BEARER)).text
    assert 'stoker_key_refusals_total{reason="invalid_api_key"} 3.0' in page
    assert 'stoker_key_refusals_total{reason="rate_limit_exceeded"} 0.0' in page
