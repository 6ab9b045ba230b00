"""The HTTP server: no connection can end it, none can hold it up."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
from contextlib import AsyncExitStack, suppress

import h2.config
import h2.connection
import h2.events
import pytest
import trio
import trio.testing
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from stoker.settings import GatewaySettings
from stoker.web.server import serve

from .conftest import CHAT, EchoApp, Lane, World, express_only, in_one_lane, running
from .scripted import HANG_GUARD_SECONDS, Client, Exchange, connect, until

ASK = {"model": "m", "messages": []}


async def talk_without_end(exchange: Exchange) -> None:
    await exchange.events()
    while True:
        await exchange.data(b"data: " + b"x" * 100_000 + b"\n\n")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nhttp2-settings: \xff\r\nconnection: upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100,
        b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_nonsense_hurts_only_its_own_connection(world: World, nonsense: bytes) -> None:
    await world.engine("one")
    async with world.client() as bystander:
        assert (await bystander.ask(CHAT, ASK)).status == 200
        async with world.client() as client:
            await client.stream.send_all(nonsense)
            await client.stream.send_eof()
            with trio.fail_after(HANG_GUARD_SECONDS):
                try:
                    while await client.stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
        assert (await bystander.ask(CHAT, ASK)).status == 200
    await until(lambda: world.server.connections == 0)
    world.contained = world.server.contained


@in_one_lane
async def test_a_defect_in_the_app_is_contained_logged_and_counted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.client() as client:
        assert (await client.ask("/fail", b"", method="GET")).status == 500
    assert "ZeroDivisionError: the app has a defect" in caplog.text
    assert world.server.contained == 1
    world.contained = 1
    async with world.client() as client:
        assert (await client.ask("/else", b"", method="GET")).status == 200


@in_one_lane
async def test_the_app_learns_of_start_and_shutdown(lane: Lane) -> None:
    async with running(lane=lane) as world:
        assert world.app.lifespan == ["lifespan.startup"]
    assert world.app.lifespan == ["lifespan.startup", "lifespan.shutdown"]


async def test_shutdown_lets_a_request_finish_and_closes_idle_connections(lane: Lane) -> None:
    go_on = trio.Event()

    async def script(exchange: Exchange) -> None:
        await go_on.wait()
        await exchange.reply(200, {})

    async with running(lane=lane) as world:
        engine = await world.engine("one", script)
        async with world.client() as idle, world.client() as busy:
            await busy.send(CHAT, ASK)
            await until(lambda: engine.exchanges)
            await until(lambda: world.server.connections == 2)
            world.scope.cancel()
            assert await idle.stream.receive_some() == b""
            with pytest.raises(OSError, match="failed"):
                async with world.client():
                    pass
            go_on.set()
            assert (await busy.answer()).status == 200
            assert await busy.stream.receive_some() == b""


async def test_who_connected_before_a_shutdown_and_asks_only_then_is_answered(lane: Lane) -> None:
    """It could not know, and was reset: a restart refused those who happened to connect at that moment."""
    async with running(lane=lane) as world:
        await world.engine("one")
        async with world.client() as client:
            await until(lambda: world.server.connections == 1)
            world.scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert (await client.ask(CHAT, ASK)).status == 200
            assert await client.stream.receive_some() == b""


@express_only
async def test_a_request_that_came_at_the_moment_of_a_shutdown_is_answered(lane: Lane) -> None:
    async with running(lane=lane) as world, AsyncExitStack() as stack:
        await world.engine("one")
        clients = [await stack.enter_async_context(world.client()) for _ in range(20)]
        for client in clients:
            assert (await client.ask(CHAT, ASK)).status == 200
        body = json.dumps(ASK).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        for client in clients:
            os.write(client.stream.socket.fileno(), head + body)  # the server has no turn in between
        world.scope.cancel()
        assert [(await client.answer()).status for client in clients] == [200] * 20


async def test_a_request_may_take_longer_than_a_connection_may_be_idle(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that left the express lane was once taken for idle: after the keep-alive time its answer was cut off."""
    monkeypatch.setattr("stoker.web.server.KEEP_ALIVE_SECONDS", 0.1)
    monkeypatch.setattr("stoker.gateway.express.KEEP_ALIVE_SECONDS", 0.1)
    monkeypatch.setattr("stoker.web.server.TICK_SECONDS", 0.01)

    async def think(exchange: Exchange) -> None:
        with trio.move_on_after(0.4):
            await exchange.gone()
        await exchange.reply(200, {})

    async with running(lane=lane) as world, world.client() as client:
        await world.engine("one", think)
        assert (await client.ask(CHAT, ASK)).status == 200
        assert await client.stream.receive_some() == b""


@pytest.mark.parametrize("how", ["the time is over", "somebody hurries"])
async def test_shutdown_is_not_held_up_by_a_client_that_does_not_read(how: str, lane: Lane) -> None:
    async with running(drain_seconds=0.05 if how == "the time is over" else 3600, lane=lane) as world:
        await world.engine("one", talk_without_end)
        async with world.client() as client:
            await client.send(CHAT, ASK)
            await client.head()
            world.scope.cancel()
            if how == "somebody hurries":
                await trio.testing.wait_all_tasks_blocked()
                world.server.hurry()
            await until(lambda: world.server.connections == 0)
            await until(lambda: world.table.in_flight() == 0)


async def test_cancelled_before_it_listens_it_ends_all_the_same() -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    async with running() as world:
        with trio.fail_after(HANG_GUARD_SECONDS), trio.CancelScope() as scope:
            scope.cancel()
            await serve(EchoApp(), [sock], world.plane, None)
    assert sock.fileno() == -1


async def test_a_closed_connection_leaves_nothing_behind(world: World) -> None:
    await world.engine("one")
    for _ in range(3):
        async with world.client() as client:
            await client.ask(CHAT, ASK)
            assert world.server.connections == 1
        await until(lambda: world.server.connections == 0)


@in_one_lane
async def test_a_client_that_sends_much_to_an_app_that_does_not_read_is_heard_out(world: World) -> None:
    async with world.client() as client:
        with trio.fail_after(HANG_GUARD_SECONDS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_send_ignoring_a_reset, client, 10_000_000)
                assert (await client.answer()).json() == ["POST", "/unread"]
    await until(lambda: world.server.connections == 0)


async def _send_ignoring_a_reset(client: Client, size: int) -> None:
    with suppress(trio.BrokenResourceError):
        await client.send("/unread", b"x" * size)


async def test_it_goes_on_when_it_ran_out_of_descriptors(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusals = 3
    accept = trio.SocketListener.accept

    async def scarce(self: trio.SocketListener) -> trio.SocketStream:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return await accept(self)

    monkeypatch.setattr("stoker.web.server.BREATH_SECONDS", 0.001)
    monkeypatch.setattr(trio.SocketListener, "accept", scarce)
    async with running() as world:
        statuses = [0]
        while statuses[-1] != 200:
            async with world.client() as client:
                statuses.append((await client.ask("/", b"", method="GET")).status)
        assert refusals == 0
        assert set(statuses[1:-1]) <= {503}
    complaints = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(complaints) == 1
    assert "Too many open files" in complaints[0].getMessage()


async def test_what_is_meant_to_end_the_process_is_not_contained() -> None:
    class Interrupted(EchoApp):
        async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
            if scope["type"] == "http":
                raise KeyboardInterrupt
            await super().__call__(scope, receive, send)

    sock = socket.create_server(("127.0.0.1", 0))
    with pytest.RaisesGroup(KeyboardInterrupt, flatten_subgroups=True):
        async with running() as world, trio.open_nursery() as nursery, connect(sock.getsockname()[1]) as client:
            nursery.start_soon(serve, Interrupted(), [sock], world.plane, None)
            await client.send("/", b"")
            await client.stream.receive_some()


@express_only
async def test_requests_for_engines_follow_each_other_on_one_connection(world: World) -> None:
    await world.engine("one")
    async with world.client() as client:
        for _ in range(3):
            assert (await client.ask(CHAT, ASK)).status == 200
        assert world.server.connections == 1


@express_only
async def test_an_answer_of_the_web_app_is_the_last_of_its_connection(world: World) -> None:
    await world.engine("one")
    async with world.client() as client:
        assert (await client.ask(CHAT, ASK)).status == 200
        answer = await client.ask("/x", b"", method="GET")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert await client.stream.receive_some() == b""


@express_only
async def test_pipelined_requests_are_answered_in_order(world: World) -> None:
    await world.engine("one")
    body = b'{"model": "m"}'
    request = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
    async with world.client() as client:
        await client.stream.send_all(request * 3)
        received = b""
        while received.count(b'{"hello": "there"}') < 3:
            received += await client.stream.receive_some()
        assert received.count(b"HTTP/1.1 200") == 3


class Http2Client:
    """A client that speaks HTTP/2 from its first byte."""

    def __init__(self, client: Client) -> None:
        self.stream = client.stream
        self.http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.events: list[h2.events.Event] = []

    async def send(self, body: bytes) -> None:
        self.http.initiate_connection()
        headers = [(":method", "POST"), (":path", CHAT), (":scheme", "http"), (":authority", "localhost")]
        self.http.send_headers(1, headers)
        self.http.send_data(1, body, end_stream=True)
        await self.stream.send_all(self.http.data_to_send())

    async def receive(self) -> None:
        with trio.fail_after(HANG_GUARD_SECONDS):
            self.events += self.http.receive_data(bytes(await self.stream.receive_some()))
        await self.stream.send_all(self.http.data_to_send())

    async def until(self, kind: type[h2.events.Event]) -> bytes:
        """Receive until there was such an event, and return the body that came."""
        while not any(isinstance(event, kind) for event in self.events):
            await self.receive()
        return b"".join(event.data for event in self.events if isinstance(event, h2.events.DataReceived))


@in_one_lane
async def test_http_2_works_too(world: World) -> None:
    await world.engine("one")
    async with connect(world.port) as client:
        http2 = Http2Client(client)
        await http2.send(b'{"model": "m"}')
        assert await http2.until(h2.events.StreamEnded) == b'{"hello": "there"}'


@in_one_lane
async def test_a_client_of_http_2_that_leaves_in_the_middle_leaves_nothing_behind(world: World) -> None:
    await world.engine("one", talk_without_end)
    async with connect(world.port) as client:
        http2 = Http2Client(client)
        await http2.send(b'{"model": "m"}')
        await http2.until(h2.events.DataReceived)
    await until(lambda: world.server.connections == 0)


@in_one_lane
async def test_a_stream_that_breaks_over_http_2_is_reset_and_not_ended(world: World) -> None:
    relayed = trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.events("1")
        await relayed.wait()
        await exchange.reset()

    await world.engine("one", script)
    async with connect(world.port) as client:
        http2 = Http2Client(client)
        await http2.send(b'{"model": "m"}')
        await http2.until(h2.events.DataReceived)
        relayed.set()
        body = await http2.until(h2.events.StreamReset)
        assert body.startswith(b"data: 1\n\ndata: ")
        assert b'"engine_failed"' in body
        assert not any(isinstance(event, h2.events.StreamEnded) for event in http2.events)


async def test_hurried_before_it_shuts_down_it_then_waits_for_nobody(lane: Lane) -> None:
    async with running(drain_seconds=3600, lane=lane) as world:
        await world.engine("one", talk_without_end)
        async with world.client() as client:
            await client.send(CHAT, ASK)
            await client.head()
            world.server.hurry()
            assert world.server.connections == 1
            world.scope.cancel()
            await until(lambda: world.server.connections == 0)
            await until(lambda: world.table.in_flight() == 0)


async def test_an_address_with_too_many_connections_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.web.server.address_of", lambda _: "192.0.2.1")
    async with running(GatewaySettings(connections_per_address=2)) as world:
        await world.engine("one")
        async with world.client() as first, world.client() as second:
            assert (await first.ask(CHAT, ASK)).status == 200
            assert (await second.ask(CHAT, ASK)).status == 200
            refused = await world.ask(ASK)
            assert (refused.status, refused.error["code"]) == (429, "too_many_connections")
            assert (await first.ask(CHAT, ASK)).status == 200
        await until(lambda: world.server.connections == 0)
        assert (await world.ask(ASK)).status == 200


async def test_when_nobody_is_idle_one_too_many_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waited in the backlog."""
    monkeypatch.setattr("stoker.web.server._most_connections", lambda: 1)
    go_on = trio.Event()

    async def script(exchange: Exchange) -> None:
        await go_on.wait()
        await exchange.reply(200, {})

    async with running() as world:
        engine = await world.engine("one", script)
        async with world.client() as busy:
            await busy.send(CHAT, ASK)
            await until(lambda: engine.exchanges)
            assert (await world.ask(ASK)).status == 503
            go_on.set()
            assert (await busy.answer()).status == 200
