"""Keys at the door of both lanes: who comes in, what it may ask for, and how often. Real sockets, scripted engines."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any

import attrs
import pytest
import trio

from stoker.core.keys import ApiKey
from stoker.gateway.keyring import KeyRing

from .conftest import CHAT, Lane, World, express_only, running
from .scripted import Answer, Exchange, Headers, until
from .test_keyring import TOKEN, key, text_of

FRAMING = {"date", "connection", "content-length"}


def with_key(key_id: str = "ab12") -> Headers:
    return [("authorization", f"Bearer {text_of(key_id)}")]


@attrs.define
class Doors:
    """A gateway, and the ring at its door."""

    world: World
    ring: KeyRing

    def there_are(self, *keys: ApiKey) -> None:
        self.ring.replace(keys)

    async def ask(self, headers: Headers = (), model: str = "m") -> tuple[int, Any]:
        """The status, and the code of the error if there is one."""
        answer = await self.world.ask({"model": model}, headers)
        return answer.status, answer.error["code"] if answer.status >= 400 else None


@pytest.fixture
async def doors(lane: Lane) -> AsyncIterator[Doors]:
    ring = KeyRing(TOKEN.__eq__, trio.current_time)
    async with running(keys=ring, lane=lane) as world:
        await world.engine("one")
        yield Doors(world, ring)


async def test_without_keys_nobody_needs_one(doors: Doors) -> None:
    assert await doors.ask() == (200, None)
    assert await doors.ask([("authorization", "Bearer unused")]) == (200, None)


async def test_with_one_everybody_does(doors: Doors) -> None:
    doors.there_are(key())
    assert await doors.ask() == (401, "invalid_api_key")
    assert await doors.ask([("authorization", "Bearer unused")]) == (401, "invalid_api_key")
    assert await doors.ask(with_key()) == (200, None)
    assert await doors.ask([("x-api-key", text_of("ab12"))]) == (200, None)
    assert await doors.ask([("authorization", f"Bearer {TOKEN}")]) == (200, None)


async def test_a_refusal_says_how_to_come_in_and_carries_its_id(doors: Doors) -> None:
    doors.there_are(key())
    answer = await doors.world.ask({"model": "m"}, [("x-request-id", "mine")])
    assert answer.headers["www-authenticate"] == 'Bearer realm="stoker"'
    assert answer.headers["x-request-id"] == "mine"
    assert "stoker key create" in answer.error["message"]
    assert doors.world.table.counters.refused == 1


async def test_who_has_no_key_is_told_before_the_body(doors: Doors) -> None:
    doors.there_are(key())
    async with doors.world.client() as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
        await client.stream.send_all(head.encode())
        received = b""
        with trio.fail_after(5):
            while b"invalid_api_key" not in received:
                received += bytes(await client.stream.receive_some())
    assert received.startswith(b"HTTP/1.1 401 ")


async def test_a_key_without_the_scope_stays_outside(doors: Doors) -> None:
    doors.there_are(key(scopes=frozenset({"sessions"})))
    assert await doors.ask(with_key()) == (403, "insufficient_scope")


async def test_a_key_of_certain_models_neither_uses_nor_sees_others(doors: Doors) -> None:
    await doors.world.engine("two", model="secret", names=("secret",))
    doors.there_are(key(models=("m", "gone", "secre")))
    assert await doors.ask(with_key()) == (200, None)
    assert await doors.ask(with_key(), model="secret") == (403, "model_not_allowed")
    for name in ("gone", "secre"):
        answer = await doors.world.ask({"model": name}, with_key())
        assert answer.status == 404
        assert answer.error["message"].endswith("there are: m")


async def test_revoking_a_key_ends_it_for_a_connection_that_is_open(doors: Doors) -> None:
    doors.there_are(key(), key("cd34"))
    async with doors.world.client() as client:
        assert (await client.ask(CHAT, {"model": "m"}, with_key())).status == 200
        doors.there_are(attrs.evolve(key(), revoked_at=1.0), key("cd34"))
        assert (await client.ask(CHAT, {"model": "m"}, with_key())).status == 401
    assert await doors.ask(with_key("cd34")) == (200, None)


async def test_a_key_has_so_many_requests_in_a_minute(doors: Doors) -> None:
    doors.there_are(key(requests_per_minute=2), key("cd34"))
    assert [await doors.ask(with_key()) for _ in range(3)] == [(200, None)] * 2 + [(429, "rate_limit_exceeded")]
    answer = await doors.world.ask({"model": "m"}, with_key())
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert await doors.ask(with_key("cd34")) == (200, None)


@express_only
async def test_a_connection_outlives_a_limit(doors: Doors) -> None:
    doors.there_are(key(requests_per_minute=1))
    async with doors.world.client() as client:
        statuses = [(await client.ask(CHAT, {"model": "m"}, with_key())).status for _ in range(3)]
    assert statuses == [200, 429, 429]
    assert doors.world.plane.measures.connections_accepted == 1


async def test_a_key_has_so_many_requests_at_once_and_gets_each_back(doors: Doors) -> None:
    doors.there_are(key(concurrent_requests=1), key("cd34"))
    go_on = trio.Event()

    async def slow(exchange: Exchange) -> None:
        await go_on.wait()
        await exchange.reply(200, {})

    engine = await doors.world.engine("slow", slow, model="slow", names=("slow",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(doors.ask, with_key(), "slow")
        await until(lambda: engine.exchanges)
        answer = await doors.world.ask({"model": "m"}, with_key())
        assert (answer.status, answer.error["code"]) == (429, "concurrency_limit_exceeded")
        assert answer.headers["retry-after"] == "1"
        assert await doors.ask(with_key("cd34")) == (200, None)
        go_on.set()
    assert await doors.ask(with_key()) == (200, None)


async def test_a_client_that_leaves_gives_its_place_back(doors: Doors) -> None:
    doors.there_are(key(concurrent_requests=1))

    async def never(exchange: Exchange) -> None:
        await exchange.gone()

    engine = await doors.world.engine("never", never, model="never", names=("never",))
    async with doors.world.client() as client:
        await client.send(CHAT, {"model": "never"}, with_key())
        await until(lambda: engine.exchanges)
    await until(lambda: doors.world.server.connections == 0)
    assert await doors.ask(with_key()) == (200, None)


async def test_a_key_reaches_no_engine_and_no_log(doors: Doors, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[str] = []

    async def note(exchange: Exchange) -> None:
        seen.extend(f"{name!r}{value!r}" for name, value in exchange.request.headers)
        await exchange.reply(503, {})

    await doors.world.engine("noting", note, model="noting", names=("noting",))
    doors.there_are(key())
    for name, value in (("authorization", f"Bearer {text_of('ab12')}"), ("x-api-key", text_of("ab12"))):
        answer = await doors.world.ask({"model": "noting"}, [(name, value)])
        assert answer.status == 503
        assert text_of("ab12") not in answer.body.decode()
    assert seen
    assert not any(text_of("ab12") in line for line in (*seen, caplog.text))


def telling(answer: Answer) -> dict[str, str]:
    """Its headers, without those that may differ."""
    return {name: value for name, value in answer.headers.items() if name not in FRAMING}


async def test_the_lanes_refuse_alike() -> None:
    """Also by the same words, and with the same headers but for those of the framing."""
    keys = [
        key(models=("other",)),
        key("cd34", scopes=frozenset({"sessions"})),
        key("ef56", expires_in_seconds=1.0),
        attrs.evolve(key("0123"), revoked_at=1.0),
    ]
    secrets = ["unused", "wrong", text_of("ab12"), text_of("cd34"), text_of("ef56"), text_of("0123"), text_of("none")]
    told = []
    for lane in Lane:
        ring = KeyRing(TOKEN.__eq__, trio.current_time)
        ring.replace(keys)
        async with running(keys=ring, lane=lane) as world:
            answers = [
                await world.ask({"model": "m"}, [("authorization", f"Bearer {secret}"), ("x-request-id", "r")])
                for secret in secrets
            ]
            shown = [(answer.status, answer.body, telling(answer)) for answer in answers]
            counters = (world.table.counters, world.plane.measures.snapshot().requests, ring.refusals)
            told.append((shown, counters))
    assert told[0] == told[1] == told[2]
    assert {status for status, *_ in told[0][0]} == {401, 403}
