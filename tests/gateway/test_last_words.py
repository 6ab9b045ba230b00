"""When the time to drain is over: whoever still waits is told why."""

from __future__ import annotations

import json

import h2.config
import h2.connection
import pytest
import trio
import trio.testing

from .conftest import CHAT, Lane, running
from .raw import BODY
from .scripted import Exchange, connect, until

ASK = {"model": "m", "messages": []}


async def say_one_thing(exchange: Exchange) -> None:
    await exchange.events("1")
    await exchange.gone()


async def say_half_of_it(exchange: Exchange) -> None:
    await exchange.events("1")
    await exchange.data(b"data: 2")
    await exchange.gone()


async def say_nothing(exchange: Exchange) -> None:
    await exchange.gone()


@pytest.mark.parametrize("script", [say_one_thing, say_half_of_it])
@pytest.mark.parametrize("how", ["the time is over", "somebody hurries"])
async def test_a_stream_ends_with_an_error(lane: Lane, how: str, script: object) -> None:
    """It was cut without a word."""
    async with running(drain_seconds=0.05 if how == "the time is over" else 3600, lane=lane) as world:
        await world.engine("one", script)  # type: ignore[arg-type]
        async with world.client() as client:
            await client.send(CHAT, {**ASK, "stream": True})
            await client.head()
            assert await client.chunk() == b"data: 1\n\n"
            world.scope.cancel()
            if how == "somebody hurries":
                await trio.testing.wait_all_tasks_blocked(0.01)
                world.server.hurry()
            last = await client.chunk()
            error = json.loads(last.removeprefix(b"data: "))["error"]
            assert (error["type"], error["code"]) == ("server_error", "shutting_down")
            await until(lambda: world.table.in_flight() == 0)
            assert await client.stream.receive_some() == b""


async def test_an_answer_that_did_not_begin_is_a_503(lane: Lane) -> None:
    async with running(drain_seconds=0.05, lane=lane) as world:
        engine = await world.engine("one", say_nothing)
        async with world.client() as client:
            await client.send(CHAT, ASK)
            await until(lambda: engine.exchanges)
            world.scope.cancel()
            answer = await client.answer()
            assert (answer.status, answer.error["code"]) == (503, "shutting_down")
            assert answer.headers["retry-after"]


async def test_nor_need_one_that_waits_for_its_turn_wait_longer(lane: Lane) -> None:
    async with running(drain_seconds=0.05, lane=lane) as world:
        await world.engine("one", say_nothing, max_concurrency=1)
        async with world.client() as first, world.client() as second:
            await first.send(CHAT, ASK)
            await until(lambda: world.table.in_flight() == 1)
            await second.send(CHAT, ASK)
            await until(lambda: world.table.waiting() == 1)
            world.scope.cancel()
            assert (await second.answer()).status == 503
            assert (await first.answer()).status == 503


@pytest.mark.parametrize("after_a_request", [True, False])
async def test_a_connection_of_http_2_that_is_idle_holds_up_nothing(*, after_a_request: bool) -> None:
    """It cost all of the time to drain, if a request was under way on it at the beginning."""
    go_on = trio.Event()

    async def script(exchange: Exchange) -> None:
        await go_on.wait()
        await exchange.reply(200, {})

    async with running(drain_seconds=3600) as world, connect(world.port) as client:
        await world.engine("one", script)
        http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        http.initiate_connection()
        await client.stream.send_all(http.data_to_send())
        if after_a_request:
            headers = [(":method", "POST"), (":path", CHAT), (":scheme", "http"), (":authority", "localhost")]
            http.send_headers(1, headers)
            http.send_data(1, BODY, end_stream=True)
            await client.stream.send_all(http.data_to_send())
            await until(lambda: world.table.in_flight() == 1)
        else:
            await client.stream.receive_some()
        world.scope.cancel()
        await trio.testing.wait_all_tasks_blocked(0.01)
        go_on.set()
        await until(lambda: world.server.connections == 0)
