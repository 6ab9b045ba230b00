"""A client goes away: whatever was done for it ends."""

from __future__ import annotations

import pytest
import trio

from .conftest import CHAT, World
from .scripted import HANG_GUARD_SECONDS, Client, Engine, Exchange, until

ASK = {"model": "m", "messages": []}


async def leave_politely(client: Client) -> None:
    await client.close()


async def stop_sending(client: Client) -> None:
    await client.stream.send_eof()


async def leave_with_a_reset(client: Client) -> None:
    await Exchange(client.stream, client.http, None, b"").reset()  # type: ignore[arg-type]


WAYS = [leave_politely, stop_sending, leave_with_a_reset]


@pytest.mark.parametrize("leave", WAYS)
async def test_the_engine_is_told_while_it_thinks(world: World, leave: object) -> None:
    gone = trio.Event()

    async def think(exchange: Exchange) -> None:
        await exchange.gone()
        gone.set()

    engine = await world.engine("one", think)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await until(lambda: engine.exchanges)
        await leave(client)  # type: ignore[operator]
        with trio.fail_after(HANG_GUARD_SECONDS):
            await gone.wait()
        await until(lambda: world.table.in_flight() == 0)
    assert world.reports == []


@pytest.mark.parametrize("leave", WAYS)
async def test_the_engine_is_told_in_the_middle_of_a_stream(world: World, leave: object) -> None:
    gone = trio.Event()

    async def talk(exchange: Exchange) -> None:
        await exchange.events("1")
        await exchange.gone()
        gone.set()

    await world.engine("one", talk)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await client.head()
        await leave(client)  # type: ignore[operator]
        with trio.fail_after(HANG_GUARD_SECONDS):
            await gone.wait()
        await until(lambda: world.table.in_flight() == 0)
    assert world.reports == []


async def test_the_engine_is_told_when_a_client_that_does_not_read_leaves(world: World) -> None:
    gone = trio.Event()

    async def talk_without_end(exchange: Exchange) -> None:
        await exchange.events()
        try:
            while True:
                await exchange.data(b"data: " + b"x" * 100_000 + b"\n\n")
        finally:
            gone.set()

    await world.engine("one", talk_without_end)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await client.head()
        await trio.testing.wait_all_tasks_blocked(0.2)
        await client.stream.send_eof()
        with trio.fail_after(HANG_GUARD_SECONDS):
            await gone.wait()
    await until(lambda: world.server.connections == 0)


async def test_a_place_in_the_queue_is_given_up(world: World) -> None:
    world.add("one", accepting=False, expected=True)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await until(lambda: world.table.waiting() == 1)
    await until(lambda: world.table.waiting() == 0)


async def test_a_client_that_leaves_in_the_middle_of_its_body_reaches_no_engine(world: World) -> None:
    engine: Engine = await world.engine("one")
    async with world.client() as client:
        await client.stream.send_all(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"
        )
        await until(lambda: world.server.connections == 1)
    await until(lambda: world.server.connections == 0)
    assert engine.exchanges == []


async def test_a_request_waiting_for_its_connection_is_given_up(world: World) -> None:
    async def accept_nothing(*, task_status: trio.TaskStatus[int]) -> None:
        sock = trio.socket.socket()
        with sock:
            await sock.bind(("127.0.0.1", 0))
            sock.listen(0)
            task_status.started(sock.getsockname()[1])
            await trio.sleep_forever()

    port = await world.nursery.start(accept_nothing)
    world.add("one", port=port)
    leave = trio.Event()

    async def ask_and_leave() -> None:
        async with world.client() as client:
            await client.send(CHAT, ASK)
            await leave.wait()

    async with trio.open_nursery() as nursery:
        for _ in range(8):  # the backlog takes one or two; the others hang in connecting
            nursery.start_soon(ask_and_leave)
        await until(lambda: world.table.in_flight() == 8)
        leave.set()
    await until(lambda: world.table.in_flight() == 0)
    assert world.reports == []
