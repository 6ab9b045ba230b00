"""Event streams: relayed event by event, and never ended silently."""

from __future__ import annotations

import json

import h11
import pytest
import trio

from stoker.gateway.events import HELD_AT_MOST, EventGate, speaks_of_error

from .conftest import CHAT, World
from .scripted import Exchange, until

ASK = {"model": "m", "messages": [], "stream": True}


async def test_events_are_relayed_as_they_come(world: World) -> None:
    seen = trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.events("1")
        await seen.wait()
        await exchange.data(b"data: 2\n\ndata: [DONE]\n\n")
        await exchange.end()

    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        head = await client.head()
        assert dict(head.headers)[b"content-type"] == b"text/event-stream"
        assert dict(head.headers)[b"x-stoker-engine"] == b"one"
        assert await client.chunk() == b"data: 1\n\n"
        seen.set()
        assert await client.chunk() == b"data: 2\n\ndata: [DONE]\n\n"
        assert await client.chunk() == b""


async def test_a_stream_without_done_is_passed_on_as_it_is(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.events("1")
        await exchange.data(b"data: the rest, without an end")
        await exchange.end()

    await world.engine("one", script)
    answer = await world.ask(ASK)
    assert answer.complete
    assert answer.body == b"data: 1\n\ndata: the rest, without an end"


async def test_an_empty_stream_is_an_answer(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.events()
        await exchange.end()

    await world.engine("one", script)
    answer = await world.ask(ASK)
    assert (answer.status, answer.body, answer.complete) == (200, b"", True)


@pytest.mark.parametrize("half", [b"", b'data: {"half'])
@pytest.mark.parametrize("end", ["reset", "hang up"])
async def test_a_stream_whose_engine_dies_ends_with_an_error_and_a_closed_connection(
    world: World, half: bytes, end: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.events('{"n": 1}', '{"n": 2}')
        if half:
            await exchange.data(half)
        await client_has_two.wait()
        await (exchange.reset() if end == "reset" else exchange.hang_up())

    client_has_two = trio.Event()
    await world.engine("one", script)
    await world.engine("two")
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await client.head()
        body = b""
        while body.count(b"\n\n") < 2:
            body += await client.chunk()
        client_has_two.set()
        rest = await client.stream.receive_some()
        assert await client.stream.receive_some() == b""
    assert body == b'data: {"n": 1}\n\ndata: {"n": 2}\n\n'
    chunk = rest.split(b"\r\n", 1)[1]
    error = json.loads(chunk.split(b"data: ", 1)[1].split(b"\n\n")[0])["error"]
    assert error["code"] == "engine_failed"
    assert "one" in error["message"]
    assert b"[DONE]" not in rest
    assert b"half" not in rest
    assert not rest.endswith(b"0\r\n\r\n")
    assert [report[0] for report in world.reports] == ["one"]
    assert world.plane.forwarder.counters.stream_errors == 1
    assert world.plane.forwarder.counters.retries == 0


OLD_FASHIONED = b"HTTP/1.0 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


@pytest.mark.parametrize("half", [b"", b'data: {"half'])
async def test_a_stream_that_ends_with_its_connection_is_cut_if_its_engine_is_gone(world: World, half: bytes) -> None:
    """A killed process's connections end as such an answer does, which was taken for its proper end."""

    async def script(exchange: Exchange) -> None:
        await exchange.raw(OLD_FASHIONED + b"data: 1\n\n" + half)
        await exchange.hang_up()

    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await client.head()
        assert await client.chunk() == b"data: 1\n\n"
        await until(lambda: world.reports)
        world.change("one", accepting=False)
        error = await client.chunk()
        with pytest.raises(h11.RemoteProtocolError):
            await client.chunk()
    assert b'"engine_failed"' in error
    assert b"half" not in error
    assert world.plane.forwarder.counters.stream_errors == 1


@pytest.mark.parametrize(("rest", "doubted"), [(b"data: [DONE]\n\n", False), (b"data: without an end", True)])
async def test_a_stream_that_ends_with_its_connection_is_whole_if_it_says_so_or_its_engine_lives(
    world: World, rest: bytes, doubted: bool
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.raw(OLD_FASHIONED + b"data: 1\n\n" + rest)
        await exchange.hang_up()

    await world.engine("one", script)
    world.answered.add("one")
    answer = await world.ask(ASK)
    assert answer.complete
    assert answer.body == b"data: 1\n\n" + rest
    assert bool(world.reports) is doubted
    assert world.plane.forwarder.counters.stream_errors == 0


async def test_a_whole_answer_that_ends_with_its_connection_is_tried_again_if_it_is_half(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.raw(b'HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{"choices": [{}')
        if len(engine.exchanges) > 1:
            await exchange.raw(b"]}")
        await exchange.hang_up()

    engine = await world.engine("one", script)
    await world.engine("two")
    answer = await world.ask({"model": "m", "messages": []})
    assert (answer.status, answer.headers["x-stoker-engine"]) == (200, "two")
    engine.exchanges.append(engine.exchanges[0])
    world.change("two", accepting=False)
    answer = await world.ask({"model": "m", "messages": []})
    assert (answer.status, answer.body) == (200, b'{"choices": [{}]}')


async def test_a_stream_of_known_length_that_breaks_ends_with_an_error_all_the_same(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(200, [("content-type", "text/event-stream"), ("content-length", "1000")])
        await exchange.data(b"data: 1\n\n")
        await relayed.wait()
        await exchange.reset()

    relayed = trio.Event()
    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await client.head()
        assert await client.chunk() == b"data: 1\n\n"
        relayed.set()
        assert b'"engine_failed"' in await client.chunk()


async def test_an_engines_own_error_event_is_passed_on_and_noticed(world: World) -> None:
    dying = b'data: {"error": {"message": "EngineCore died"}}\n\ndata: [DONE]\n\n'

    async def script(exchange: Exchange) -> None:
        await exchange.events("1")
        await exchange.data(dying)
        await exchange.end()

    await world.engine("one", script)
    answer = await world.ask(ASK)
    assert answer.complete
    assert answer.body == b"data: 1\n\n" + dying
    await until(lambda: world.reports)
    assert [report[0] for report in world.reports] == ["one"]
    assert world.plane.forwarder.counters.stream_errors == 1


async def test_a_compressed_stream_that_breaks_is_closed(world: World) -> None:
    relayed = trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.head(200, [("content-type", "text/event-stream"), ("content-encoding", "br")])
        await exchange.data(b"\x00\x01")
        await relayed.wait()
        await exchange.reset()

    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await client.head()
        assert await client.chunk() == b"\x00\x01"
        relayed.set()
        assert await client.stream.receive_some() == b""


async def test_a_large_answer_that_breaks_is_closed(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.head(200, [("content-type", "application/json"), ("content-length", "1000000")])
        await exchange.data(b"x" * 500_000)
        await exchange.reset()

    await world.engine("one", script)
    answer = await world.ask(ASK)
    assert not answer.complete
    assert set(answer.body) <= {ord("x")}


async def test_a_client_of_http_1_0_gets_its_stream(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.events("1", "[DONE]")
        await exchange.end()

    await world.engine("one", script)
    body = json.dumps(ASK).encode()
    async with world.client() as client:
        await client.stream.send_all(
            b"POST %b HTTP/1.0\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
        )
        received = b""
        while data := await client.stream.receive_some():
            received += data
    assert received.endswith(b"\r\n\r\ndata: 1\n\ndata: [DONE]\n\n")


async def test_a_client_that_reads_slowly_holds_the_engine_back(world: World) -> None:
    sent = 0

    async def script(exchange: Exchange) -> None:
        nonlocal sent
        await exchange.events()
        event = b"data: " + b"x" * 100_000 + b"\n\n"
        while sent < 500_000_000:
            await exchange.data(event)
            sent += len(event)

    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await client.head()
        before = -1
        while before != sent:  # until the engine is stuck
            before = sent
            await trio.testing.wait_all_tasks_blocked(0.2)
        assert 0 < sent < 50_000_000


async def test_many_streams_at_once(world: World) -> None:
    events = [f'{{"n": {number}}}' for number in range(50)]

    async def script(exchange: Exchange) -> None:
        await exchange.events(*events, "[DONE]")
        await exchange.end()

    await world.engine("one", script)
    await world.engine("two", script)

    async def ask() -> None:
        answer = await world.ask(ASK)
        assert answer.complete
        assert answer.body.decode() == "".join(f"data: {event}\n\n" for event in [*events, "[DONE]"])

    async with trio.open_nursery() as nursery:
        for _ in range(40):
            nursery.start_soon(ask)


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_the_gate_lets_whole_events_through_however_they_are_cut(end: bytes) -> None:
    stream = b"".join(b"data: %d" % number + end for number in range(20)) + b"data: half"
    for size in range(1, 40):
        gate = EventGate()
        passed = b""
        for start in range(0, len(stream), size):
            passed += gate.feed(stream[start : start + size])
            assert passed == b"" or passed.endswith(end)
        assert passed + gate.rest() == stream
        assert passed == stream.removesuffix(b"data: half")


def test_the_gate_does_not_hold_an_endless_event() -> None:
    gate = EventGate()
    assert gate.feed(b"data: 1\n\ndata: ") == b"data: 1\n\n"
    held = b"x" * HELD_AT_MOST
    assert gate.feed(held) == b"data: " + held
    assert gate.torn
    assert gate.feed(b"x\n\n") == b"x\n\n"
    assert not gate.torn


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        (b'data: {"error": {}}\n\n', True),
        (b'data: 1\n\ndata:{"error":"x"}\n\n', True),
        (b'data: {"text": "data: {\\"error\\""}\n\n', False),
        (b'data: {"x": {"error": 1}}\n\n', False),
    ],
)
def test_an_error_event_is_told_from_one_that_only_mentions_errors(events: bytes, expected: bool) -> None:
    assert speaks_of_error(events) is expected


async def test_progress_is_marked_with_every_byte_of_a_stream(world: World) -> None:
    go_on = trio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.events("1")
        await go_on.wait()
        await exchange.data(b"data: half an event")
        await exchange.gone()

    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await client.head()
        first = world.table.activity("one")
        assert first.active_requests == 1
        assert first.progress_at is not None
        go_on.set()
        await until(lambda: world.table.activity("one").progress_at != first.progress_at)
