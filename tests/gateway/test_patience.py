"""Clients that are slow, silent, or gone, and a server that shuts down: what each of them costs, and for how long."""

from __future__ import annotations

import socket
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

import pytest
import trio

from stoker.gateway.express import Visit
from stoker.gateway.pace import body_deadline

from .conftest import CHAT, Lane, World, express_only, in_one_lane, running
from .raw import BODY, answers_in, asking, marked, receive_all, receive_until, request, send
from .scripted import Client, Exchange, until

HELLO = b'{"hello": "there"}'
Hurry = Callable[..., None]
Script = Callable[[Exchange], Awaitable[None]]


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> Hurry:
    """Have the deadlines of the express lane fall within a test's time. Those not named are as good as never."""

    def hurry(**seconds: float) -> None:
        monkeypatch.setattr("stoker.web.server.TICK_SECONDS", 0.005)
        monkeypatch.setattr("stoker.gateway.pace.BODY_SECONDS", seconds.get("body_seconds", 1000.0))
        for name in ("KEEP_ALIVE_SECONDS", "HEAD_SECONDS", "LINGER_SECONDS"):
            monkeypatch.setattr(f"stoker.gateway.express.{name}", seconds.get(name.lower(), 1000.0))

    return hurry


def the_visit(world: World) -> Visit:
    (visit,) = world.server._connections.values()
    assert isinstance(visit, Visit)
    return visit


# Slow clients


@express_only
@pytest.mark.parametrize("start", [b"", b"P", b"\r\n", b"\r", request()[:-2], request()[:-1]])
async def test_a_head_that_does_not_come_is_not_waited_for(lane: Lane, hurry: Hurry, start: bytes) -> None:
    hurry(head_seconds=0.02)
    async with running(lane=lane) as world, world.client() as client:
        if start:
            await client.stream.send_all(start)
        assert await receive_all(client) == b""


@express_only
async def test_dribbling_prolongs_the_time_for_a_body_but_not_for_a_head(world: World) -> None:
    await world.engine("one")
    whole = asking()
    async with world.client() as client:
        await send(client, [whole[:1]])
        visit, seen = the_visit(world), []
        for at in range(1, len(whole) - 1):
            await send(client, [whole[at : at + 1]])
            seen.append(visit.deadline)
        await client.stream.send_all(whole[-1:])
        await receive_until(client, HELLO)
    head, body = seen[: -len(BODY)], seen[-len(BODY) + 1 :]
    assert len(set(head)) == 1
    assert sorted(set(body)) == body


@express_only
@pytest.mark.parametrize(("rest", "seconds"), [(b"", 1000.0), (b"\r\n", 1000.0), (request()[:-2], 10.0)], ids=range(3))
async def test_a_head_that_began_behind_another_request_has_no_more_time(
    lane: Lane, hurry: Hurry, rest: bytes, seconds: float
) -> None:
    hurry(head_seconds=10.0)
    async with running(lane=lane) as world, world.client() as client:
        await world.engine("one")
        await client.stream.send_all(asking() + rest)
        await receive_until(client, HELLO)
        await trio.testing.wait_all_tasks_blocked()
        assert seconds - 5 < the_visit(world).deadline - trio.current_time() < seconds


@express_only
async def test_a_body_that_stops_coming_is_not_waited_for(lane: Lane, hurry: Hurry) -> None:
    hurry(body_seconds=0.02)
    async with running(lane=lane) as world, world.client() as client:
        engine = await world.engine("one")
        await client.stream.send_all(asking()[:-1])
        (answer,) = answers_in(await receive_all(client))
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        assert engine.exchanges == []


@in_one_lane
@pytest.mark.parametrize("way", ["chunked", "HTTP/2"])
async def test_nor_is_one_waited_for_in_the_other_lane(lane: Lane, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setattr("stoker.gateway.pace.BODY_SECONDS", 0.02)
    monkeypatch.setattr("stoker.web.server.KEEP_ALIVE_SECONDS", 0.1)
    start = request(b"Transfer-Encoding: chunked") + b"5\r\n{" if way == "chunked" else b"PRI * HTTP/2.0\r\n\r\nSM"
    async with running(lane=lane) as world, world.client() as client:
        engine = await world.engine("one")
        await client.stream.send_all(start)
        assert b" 200 " not in await receive_all(client)
        assert engine.exchanges == []


def test_a_body_has_some_seconds_and_then_a_pace_and_may_not_pause() -> None:
    assert body_deadline(100.0, 0, now=100.0, bytes_per_second=1000) == 130.0
    assert body_deadline(100.0, 1, now=129.0, bytes_per_second=1000) == pytest.approx(130.0, abs=0.01)
    assert body_deadline(100.0, 60_000, now=140.0, bytes_per_second=1000) == 170.0  # it was fast, and stops
    assert body_deadline(100.0, 60_000, now=170.0, bytes_per_second=1000) == 190.0


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
async def test_a_body_that_comes_byte_by_byte_is_not_waited_for(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    """As long as something came within half a minute, it could go on for ever."""
    monkeypatch.setattr("stoker.web.server.TICK_SECONDS", 0.005)
    monkeypatch.setattr("stoker.gateway.pace.BODY_SECONDS", 0.5)
    head = request(b"Transfer-Encoding: chunked") if framing == "chunked" else request(b"Content-Length: 1000000")
    async with running(lane=lane) as world, world.client() as client, trio.open_nursery() as nursery:
        engine = await world.engine("one")
        await client.stream.send_all(head)

        @nursery.start_soon
        async def dribble() -> None:
            while True:
                with suppress(trio.BrokenResourceError):
                    await client.stream.send_all(b"1\r\n \r\n" if framing == "chunked" else b" ")
                await trio.sleep(0.01)

        (answer,) = answers_in(await receive_all(client))
        nursery.cancel_scope.cancel()
        assert (answer.status, answer.error["code"]) == (408, "request_timeout")
        assert "min_body_bytes_per_second" in answer.error["message"]
        assert engine.exchanges == []


@express_only
async def test_a_connection_that_is_idle_too_long_is_closed(lane: Lane, hurry: Hurry) -> None:
    hurry(keep_alive_seconds=0.02)
    async with running(lane=lane) as world, world.client() as client:
        await world.engine("one")
        await client.stream.send_all(asking() + b"\r\n")
        assert len(answers_in(await receive_all(client))) == 1


@express_only
async def test_a_client_that_stays_after_a_refusal_is_left_alone(lane: Lane, hurry: Hurry) -> None:
    hurry(linger_seconds=0.02)
    async with running(lane=lane) as world, world.client() as client:
        await client.stream.send_all(request(b"Content-Length: -1"))
        assert b" 400 " in await receive_all(client)
        await until(lambda: world.server.connections == 0)


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


LARGEST = 300_000_000


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("kind", ["text/event-stream", "audio/mpeg", "application/json"])
async def test_what_a_client_does_not_read_stays_with_the_engine(world: World, kind: str) -> None:
    """Of it, the gateway holds a bounded amount, beside what two systems keep in their sockets."""
    piece = b"data: " + b"x" * 99_992 + b"\n\n"
    sent = 0

    async def script(exchange: Exchange) -> None:
        nonlocal sent
        framing = [("content-length", str(LARGEST))] if kind == "application/json" else []
        await exchange.head(200, [("content-type", kind), *framing])
        while sent < LARGEST:
            await exchange.data(piece)
            sent += len(piece)
        await exchange.end()

    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, BODY)
        await client.head()
        before, held = -1, tracemalloc.get_traced_memory()[0]
        while before != sent:  # until the engine is stuck
            before = sent
            await trio.testing.wait_all_tasks_blocked(0.1)
        assert 0 < sent < 30_000_000
        assert tracemalloc.get_traced_memory()[0] - held < 3_000_000
        while sent == before:  # and goes on when the client does
            assert await client.chunk()


# Clients that go away


async def think(exchange: Exchange) -> None:
    await exchange.gone()


async def talk_now_and_then(exchange: Exchange) -> None:
    await exchange.events("1")
    await exchange.gone()


async def talk_without_end(exchange: Exchange) -> None:
    await exchange.events()
    while True:
        await exchange.data(b"data: " + b"x" * 100_000 + b"\n\n")


def leave_politely(client: Client) -> None:
    client.stream.socket.close()


def stop_sending(client: Client) -> None:
    client.stream.socket.shutdown(socket.SHUT_WR)


def leave_with_a_reset(client: Client) -> None:
    client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.stream.socket.close()


@pytest.mark.parametrize("rest", [b"", marked(2), b"nonsense", b"x" * 30_000], ids=["", "another", "nonsense", "much"])
@pytest.mark.parametrize("leave", [leave_politely, stop_sending, leave_with_a_reset])
@pytest.mark.parametrize("script", [think, talk_now_and_then, talk_without_end])
async def test_a_client_that_leaves_is_noticed_whatever_it_sent_besides(
    world: World, script: Script, leave: Callable[[Client], None], rest: bytes
) -> None:
    engine = await world.engine("one", script)
    async with world.client() as client:
        await client.stream.send_all(asking())
        if script is think:
            await until(lambda: engine.exchanges)
        else:
            await receive_until(client, b"data: ")
        await client.stream.send_all(rest)
        leave(client)
        await until(lambda: engine.open_connections == 0)
        await until(lambda: world.server.connections == 0)
    assert world.table.in_flight() == 0
    assert len(engine.exchanges) == 1
    assert world.reports == []


@pytest.mark.parametrize("rest", [b"", marked(2)], ids=["", "another"])
@pytest.mark.parametrize("leave", [leave_politely, stop_sending, leave_with_a_reset])
async def test_a_client_that_leaves_the_queue_is_noticed_whatever_it_sent_besides(
    world: World, leave: Callable[[Client], None], rest: bytes
) -> None:
    world.add("one", accepting=False, expected=True)
    async with world.client() as client:
        await client.stream.send_all(asking() + rest)
        await until(lambda: world.table.waiting() == 1)
        leave(client)
        await until(lambda: world.server.connections == 0)
    assert world.table.waiting() == 0


@express_only
async def test_a_client_that_leaves_between_requests_is_noticed(world: World) -> None:
    await world.engine("one")
    async with world.client() as client:
        await client.stream.send_all(asking())
        await receive_until(client, HELLO)
        assert world.server.connections == 1
    await until(lambda: world.server.connections == 0)


# A server that shuts down


@express_only
@pytest.mark.parametrize("before", [b"", b"\r\n", asking(), asking() + b"\r\n"], ids=range(4))
async def test_shutdown_closes_idle_connections_at_once(lane: Lane, before: bytes) -> None:
    async with running(lane=lane, drain_seconds=1000) as world:
        await world.engine("one")
        async with world.client() as client:
            if before:
                await send(client, [before])
            if before.strip():
                await receive_until(client, HELLO)
            await until(lambda: world.server.connections == 1)
            await trio.testing.wait_all_tasks_blocked()
            world.scope.cancel()
            assert await receive_all(client) == b""
            await until(lambda: world.server.connections == 0)


@express_only
@pytest.mark.parametrize("way", ["whole", "stream"])
async def test_shutdown_lets_a_request_end_and_says_that_it_was_the_last(lane: Lane, way: str) -> None:
    go_on = trio.Event()

    async def script(exchange: Exchange) -> None:
        await go_on.wait()
        if way == "whole":
            await exchange.reply(200, {"hello": "there"})
        else:
            await exchange.events("1")
            await exchange.end()

    async with running(lane=lane, drain_seconds=1000) as world:
        engine = await world.engine("one", script)
        async with world.client() as client:
            await client.stream.send_all(asking() + asking())
            await until(lambda: engine.exchanges)
            world.scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            go_on.set()
            (answer,) = answers_in(await receive_all(client))
        assert (answer.status, answer.headers["connection"], answer.complete) == (200, "close", True)
        assert len(engine.exchanges) == 1


@express_only
async def test_shutdown_does_not_wait_for_half_a_request_longer_than_for_others(lane: Lane) -> None:
    async with running(lane=lane, drain_seconds=0.05) as world:
        async with world.client() as client:
            await send(client, [asking()[:-1]])
            world.scope.cancel()
            assert await receive_all(client) == b""
        await until(lambda: world.server.connections == 0)
