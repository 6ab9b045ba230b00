"""Whoever watches the engines expects nothing more of one: what it holds ends, and what another can do goes there."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

import h11
import pytest
import trio
import trustme

from .conftest import CHAT, Lane, World, running, say_hello
from .scripted import Engine, Exchange, until
from .test_tls import listen, trusting

ASK = {"model": "m", "messages": []}
STREAM = {**ASK, "stream": True}
FIRST = b'data: {"n": 1}\n\n'
WHY = "2 requests in flight and no progress for 120 s"


async def say_nothing(exchange: Exchange) -> None:
    await exchange.gone()


async def promise_an_answer(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
    await exchange.gone()


async def begin(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
    await exchange.raw(b"%x\r\n%b\r\n" % (len(FIRST), FIRST))
    await exchange.gone()


async def begin_in_http_1_0(exchange: Exchange) -> None:
    """Where the end of the connection is the end of the answer, it must not pass for one."""
    await exchange.raw(b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + FIRST)
    await exchange.gone()


async def begin_a_long_answer(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000\r\n\r\n")
    await exchange.raw(b" " * 500_000)
    await exchange.gone()


def give_up(world: World, engine_id: str = "one") -> None:
    """What the supervisor does with an engine that has stalled."""
    world.change(engine_id, accepting=False)
    world.table.fail_requests(engine_id, 1, WHY)


async def check_a_stream_ends(world: World) -> None:
    async with world.client() as client:
        await client.send(CHAT, STREAM)
        await client.head()
        assert await client.chunk() == FIRST
        give_up(world)
        error = json.loads((await client.chunk()).removeprefix(b"data: "))["error"]
        with pytest.raises(h11.RemoteProtocolError):  # no proper end, and no [DONE]
            await client.chunk()
    assert error["code"] == "engine_failed"
    assert error["message"] == f"the engine one failed in the middle of its answer: {WHY}"
    await until(lambda: world.table.in_flight() == 0)


@pytest.mark.parametrize("script", [begin, begin_in_http_1_0])
async def test_a_stream_ends_with_an_error(world: World, script: Callable[[Exchange], Awaitable[None]]) -> None:
    """A stream of an engine that was only a URL, and sent nothing more, never ended."""
    engine = await world.engine("one", script)
    await check_a_stream_ends(world)
    await until(lambda: engine.open_connections == 0)


async def test_a_stream_under_tls_ends_with_an_error(lane: Lane) -> None:
    authority = trustme.CA()
    async with running(ssl_context=trusting(authority), lane=lane) as world:
        port = await listen(world, authority.issue_cert("localhost"), Engine(begin))
        world.add("one", base_url=f"https://localhost:{port}")
        await check_a_stream_ends(world)


async def test_a_long_answer_is_left_without_its_end(world: World) -> None:
    await world.engine("one", begin_a_long_answer)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def hear() -> None:
                answer = await client.answer()
                assert (answer.status, answer.complete) == (200, False)

            await until(lambda: world.table.activity("one").progress_at)
            give_up(world)


@pytest.mark.parametrize("script", [say_nothing, promise_an_answer])
@pytest.mark.parametrize("ask", [ASK, STREAM], ids=["whole", "stream"])
async def test_a_request_that_got_nothing_is_answered_by_another_engine(
    world: World, script: Callable[[Exchange], Awaitable[None]], ask: object
) -> None:
    one = await world.engine("one", script)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def client() -> None:
            answer = await world.ask(ask)
            assert (answer.status, answer.headers["x-stoker-engine"]) == (200, "two")

        await until(lambda: one.exchanges)
        await world.engine("two")
        give_up(world)
    assert world.plane.forwarder.counters.retries == 1


@pytest.mark.parametrize("script", [say_nothing, promise_an_answer])
async def test_a_request_for_which_there_is_no_other_engine_is_told(
    world: World, script: Callable[[Exchange], Awaitable[None]]
) -> None:
    one = await world.engine("one", script)
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def client() -> None:
            answer = await world.ask(ASK)
            assert (answer.status, answer.error["code"]) == (502, "engine_failed")
            assert answer.error["message"] == f"the engine one failed: {WHY}"

        await until(lambda: one.exchanges)
        give_up(world)


async def test_only_what_that_incarnation_holds_fails(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await go_on.wait()
        await say_hello(exchange)

    go_on = trio.Event()
    engines = [await world.engine("one", script), await world.engine("two", script)]
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def client() -> None:
            assert (await world.ask(ASK)).status == 200

        await until(lambda: engines[0].exchanges or engines[1].exchanges)
        held, other = ("one", "two") if engines[0].exchanges else ("two", "one")
        world.table.fail_requests(held, 7, WHY)
        world.table.fail_requests(other, 1, WHY)
        world.table.fail_requests("nobody", 1, WHY)
        go_on.set()


async def test_a_connection_that_is_back_in_the_pool_is_not_hurt(world: World) -> None:
    engine = await world.engine("one")
    for _ in range(3):
        assert (await world.ask(ASK)).status == 200
        world.table.fail_requests("one", 1, WHY)
    assert engine.connections == 1
