"""What is measured of a request, however it ends."""

from __future__ import annotations

import json

import pytest
import trio

from stoker.gateway.measures import Traffic
from stoker.gateway.relay import HELD_ANSWER

from .conftest import CHAT, World
from .scripted import Exchange, until

ASK = {"model": "m", "messages": []}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def requests(world: World) -> dict[tuple[str, str, str, int], int]:
    return dict(world.plane.measures.snapshot().requests)


def traffic(world: World) -> Traffic:
    return world.plane.measures.snapshot().traffic["m", "one"]


@pytest.mark.parametrize("first", ["usage", "data"])
@pytest.mark.parametrize("size", [10, 20_000, HELD_ANSWER + 20_000])
async def test_tokens_are_counted_wherever_in_an_answer_they_are_reported(world: World, first: str, size: int) -> None:
    parts = {"usage": USAGE, "data": "x" * size}
    body = json.dumps({first: parts.pop(first), **parts}).encode()

    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, body)

    await world.engine("one", script)
    answer = await world.ask(ASK)
    assert answer.body == body
    await until(lambda: traffic(world).sent_bytes)
    measured = traffic(world)
    assert (measured.prompt_tokens, measured.completion_tokens) == (7, 3)
    assert (measured.sent_bytes, measured.received_bytes) == (len(body), len(json.dumps(ASK)))
    assert requests(world) == {("m", "one", CHAT, 200): 1}


async def test_of_a_stream_the_last_events_tell_the_tokens_and_each_gap_is_measured(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.events("1")
        await relayed.wait()
        await exchange.data(b'data: {"choices": [], "usage": %b}\n\n' % json.dumps(USAGE).encode())
        await exchange.data(b"data: [DONE]\n\n")
        await exchange.end()

    relayed = trio.Event()
    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, {**ASK, "stream": True})
        await client.head()
        await client.chunk()
        relayed.set()
        while await client.chunk():
            pass
    await until(lambda: requests(world))
    measured = traffic(world)
    assert (measured.prompt_tokens, measured.completion_tokens) == (7, 3)
    assert 1 <= sum(measured.gaps.counts) <= 2
    times = world.plane.measures.snapshot().times["m", "one", CHAT]
    assert sum(times.first_byte.counts) == sum(times.duration.counts) == 1


async def test_a_client_that_leaves_in_a_stream_is_no_success(world: World) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.events("1")
        await exchange.gone()

    await world.engine("one", script)
    async with world.client() as client:
        await client.send(CHAT, {**ASK, "stream": True})
        await client.head()
    await until(lambda: requests(world))
    assert requests(world) == {("m", "one", CHAT, 499): 1}


async def test_what_no_engine_answers_names_none(world: World) -> None:
    await world.engine("one", max_concurrency=0, expected=False, accepting=False)
    assert (await world.ask({"model": "stranger"})).status == 404
    assert (await world.ask(b"{")).status == 400
    assert (await world.ask(ASK)).status == 503
    await until(lambda: len(requests(world)) == 3)
    assert requests(world) == {("", "", CHAT, 404): 1, ("", "", CHAT, 400): 1, ("m", "", CHAT, 503): 1}


async def test_an_engine_is_asked_for_the_name_that_it_knows(world: World) -> None:
    engine = await world.engine("one", names=("alias",), renames={"alias": "m"})
    for name in ("alias", "m"):
        assert (await world.ask({"messages": [{"content": "alias"}], "model": name})).status == 200
    asked = [json.loads(exchange.body) for exchange in engine.exchanges]
    assert asked == [{"messages": [{"content": "alias"}], "model": "m"}] * 2
