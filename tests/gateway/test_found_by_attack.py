"""What attacks and reviews of the data plane found; each test names its bug."""

from __future__ import annotations

import json
import socket

import httptools
import pytest
import trio
import trio.testing

from stoker.gateway.headers import for_client, for_engine
from stoker.gateway.heading import HeadReader
from stoker.gateway.hub import Hub
from stoker.gateway.llhttp import LlhttpFraming
from stoker.gateway.poller import Poller

from .conftest import CHAT, World, running
from .scripted import HANG_GUARD_SECONDS, Exchange, connect, until

ASK = {"model": "m", "messages": []}


def posted(body: bytes = b'{"model": "m"}') -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)


async def read_all(stream: trio.SocketStream) -> bytes:
    received = bytearray()
    with trio.fail_after(HANG_GUARD_SECONDS):
        while data := await stream.receive_some():
            received += data
    return bytes(received)


@pytest.mark.parametrize("count", range(1, 8))
async def test_an_answer_that_is_still_being_written_is_not_torn_by_a_hand_over(count: int) -> None:
    """The rest of it was dropped, and the next answer's bytes filled its Content-Length."""
    body = b'"' + b"x" * 15_000 + b'"'

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, body)

    async with running() as world:
        engine = await world.engine("one", script)
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", world.port))
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            last = b"GET /else HTTP/1.1\r\nHost: localhost\r\n\r\n"
            await stream.send_all(posted() * count + last)
            await until(lambda: engine.exchanges)
            await trio.testing.wait_all_tasks_blocked(0.05)  # until all is as full as it gets
            received = await read_all(stream)
    assert received.count(body) == count
    assert received.endswith(b'["GET", "/else"]')


async def test_empty_lines_without_end_hold_up_nobody(world: World) -> None:
    """Each two bytes of them copied all that followed, so that a few megabytes stopped the gateway."""
    await world.engine("one")
    async with world.client() as noisy, trio.open_nursery() as nursery:
        nursery.start_soon(noisy.stream.send_all, b"\r\n" * 2_000_000)
        for _ in range(5):
            assert (await world.ask(ASK)).status == 200
        nursery.cancel_scope.cancel()


async def test_an_engine_that_answers_early_and_stays_open_is_heard(world: World) -> None:
    """The answer was read only when the whole body had been sent, which such an engine never takes."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    world.add("one", port=listener.getsockname()[1])

    async def refuse_and_wait() -> None:
        stream = trio.SocketStream((await trio.socket.from_stdlib_socket(listener).accept())[0])
        async with stream:
            await stream.receive_some(1024)
            await stream.send_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(refuse_and_wait)
        answer = await world.ask({**ASK, "padding": "x" * 30_000_000})
        assert (answer.status, answer.body) == (413, b"no")
        nursery.cancel_scope.cancel()
    listener.close()


async def test_a_request_an_engine_worked_on_is_not_sent_again_behind_the_retry_rules() -> None:
    """A kept connection that broke after half a second of work was taken for one that had been closed before."""

    async def script(exchange: Exchange) -> None:
        if len(engine.exchanges) == 1:
            await exchange.reply(200, {})
        else:
            await go_on.wait()
            await exchange.reset()

    go_on = trio.Event()
    async with running() as world:
        engine = await world.engine("one", script)
        async with world.client() as client:
            assert (await client.ask(CHAT, ASK)).status == 200
            await client.send(CHAT, ASK)
            await until(lambda: len(engine.exchanges) == 2)
            await trio.sleep(0.15)  # longer than a close can be on its way
            world.change("one", accepting=False)
            go_on.set()
            assert (await client.answer()).status == 502
    assert len(engine.exchanges) == 2


@pytest.mark.parametrize("order", [(b"x-hop", b"keep-alive"), (b"keep-alive", b"x-hop")])
def test_every_connection_header_names_what_stays_behind(order: tuple[bytes, bytes]) -> None:
    """Only the last one was looked at."""
    headers = [*((b"connection", value) for value in order), (b"x-hop", b"secret"), (b"x-other", b"1")]
    fields = dict(headers)
    assert b"secret" not in for_engine(headers, fields, streamed=False)
    names = [name for name, _ in for_client(headers, fields, engine_id="e", request_id=b"r")]
    assert names == [b"x-other", b"x-stoker-engine", b"x-request-id"]


@pytest.mark.parametrize(
    "repeated", ["Connection: close\r\nConnection: keep-alive", "Expect: x\r\nExpect: 100-continue"]
)
def test_a_head_that_says_two_things_is_not_the_express_lanes(repeated: str) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\n{repeated}\r\nContent-Length: 2\r\n\r\n".encode()
    assert HeadReader(LlhttpFraming(httptools), None).read(head) == (None, 0)


async def test_a_poller_at_its_limit_ends_one_connection_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ended the server."""
    async with running() as world:
        await world.engine("one")
        async with world.client() as before:
            assert (await before.ask(CHAT, ASK)).status == 200
            with monkeypatch.context() as patch:
                patch.setattr(Poller, "add", refuse)
                async with connect(world.port) as unlucky:
                    assert await read_all(unlucky.stream) == b""
            assert (await before.ask(CHAT, ASK)).status == 200
        assert (await world.ask(ASK)).status == 200


def refuse(_: Poller, __: int) -> None:
    raise OSError(28, "No space left on device")


async def test_a_broken_channel_with_something_left_to_write_does_not_spin() -> None:
    """A write that failed left its data, which was written again and again, without end."""
    ours, theirs = socket.socketpair()
    hub = Hub()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.run)
        channel = hub.watch(ours)
        theirs.close()
        await channel.send_all(b"one")
        await channel.send_all(b"two")
        with trio.fail_after(HANG_GUARD_SECONDS), pytest.raises(BrokenPipeError):
            await channel.flush()
        assert channel.broken
        channel.close()
        nursery.cancel_scope.cancel()


async def test_idle_connections_make_room_when_there_are_as_many_as_there_may_be(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """They locked everybody else out for 75 seconds."""
    monkeypatch.setattr("stoker.web.server._most_connections", lambda: 3)
    monkeypatch.setattr("stoker.web.server.BREATH_SECONDS", 0.001)
    async with running() as world:
        await world.engine("one")
        async with world.client() as first, world.client() as second, world.client() as third:
            for client in (first, second, third):
                assert (await client.ask(CHAT, ASK)).status == 200
            assert (await world.ask(ASK)).status == 200
            assert await first.stream.receive_some() == b""
            assert (await third.ask(CHAT, ASK)).status == 200
    assert "as many connections as there may be" in caplog.text


async def test_slow_heads_make_room_when_nobody_is_idle_and_requests_under_way_never_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They locked everybody else out for ten seconds, and again."""
    monkeypatch.setattr("stoker.web.server._most_connections", lambda: 4)
    go_on = trio.Event()

    async def script(exchange: Exchange) -> None:
        await go_on.wait()
        await exchange.reply(200, {})

    async with running() as world:
        engine = await world.engine("one", script)
        async with world.client() as busy, world.client() as half, world.client() as first, world.client() as second:
            await busy.send(CHAT, ASK)
            await until(lambda: engine.exchanges)
            await half.stream.send_all(posted()[:-5])  # of a body: its request is under way
            for slow in (first, second):
                await slow.stream.send_all(posted()[:20])
                await until(lambda: sum(guest.is_arriving for guest in world.server._connections.values()) > 0)
            await until(lambda: sum(guest.is_arriving for guest in world.server._connections.values()) == 2)
            async with world.client() as late:
                await late.send(CHAT, ASK)
                assert await first.stream.receive_some() == b""
                await until(lambda: len(engine.exchanges) == 2)
                go_on.set()
                assert (await late.answer()).status == (await busy.answer()).status == 200
            await half.stream.send_all(posted()[-5:])
            assert (await half.stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_a_body_in_chunks_that_stalls_ends_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slower lane waited for it for ever; later it ended in a bare 500."""
    monkeypatch.setattr("stoker.gateway.pace.BODY_SECONDS", 0.01)
    async with running() as world, connect(world.port) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"
        await client.stream.send_all(head.encode())
        received = await read_all(client.stream)
        assert received.startswith(b"HTTP/1.1 408 ")
        assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "request_timeout"


async def test_an_engine_that_dies_while_its_stream_flows_is_said_to_have_broken_off(world: World) -> None:
    """It was said to have sent what is no HTTP answer."""

    async def script(exchange: Exchange) -> None:
        await exchange.events("1")
        await flows.wait()
        await exchange.hang_up()

    flows = trio.Event()
    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, {**ASK, "stream": True})
        await client.head()
        await client.chunk()
        flows.set()
        last = await client.chunk()
    assert "broke off its answer" in json.loads(last.removeprefix(b"data: "))["error"]["message"]


async def test_what_the_engine_closed_is_closed_without_waiting_for_a_request(world: World) -> None:
    """Up to 128 descriptors an engine stayed open until somebody asked again."""
    engine = await world.engine("one")
    assert (await world.ask(ASK)).status == 200
    assert engine.open_connections == 1
    channels = world.plane.hub._channels
    await until(lambda: len(channels) == 1)  # that to the engine
    await engine.exchanges[0].hang_up()
    await until(lambda: not channels)
