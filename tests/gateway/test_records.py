"""Whoever asks for it is given one record of every request that is over, whatever became of it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import attrs
import pytest
import trio

from stoker.model import RequestRecord
from stoker.settings import GatewaySettings

from .conftest import CHAT, Lane, World, running
from .scripted import Exchange, until

ASK = {"model": "alias", "messages": []}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


@attrs.define(eq=False)
class Watched:
    """A gateway, and what is said of its requests."""

    world: World
    records: list[RequestRecord]

    async def record(self) -> RequestRecord:
        """The one record that there is."""
        await until(lambda: self.records)
        await until(lambda: self.world.table.in_flight() == 0)
        [record] = self.records
        return record


@pytest.fixture
async def watched(lane: Lane) -> AsyncIterator[Watched]:
    records: list[RequestRecord] = []
    settings = GatewaySettings(queue_seconds=0.05, max_body_bytes=1024)
    async with running(settings, lane=lane, finished=records.append) as world:
        yield Watched(world, records)


async def test_a_request_that_was_answered(watched: Watched) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.reply(200, {"usage": USAGE})

    await watched.world.engine("one", script, names=("m", "alias"))
    before = time.time()
    answer = await watched.world.ask(ASK, [("x-request-id", "mine")])
    record = await watched.record()
    assert (record.request_id, record.path, record.asked, record.model) == ("mine", CHAT, "alias", "m")
    assert (record.engine_id, record.status, record.stream, record.attempts) == ("one", 200, False, 1)
    assert (record.prompt_tokens, record.completion_tokens, record.error) == (7, 3, "")
    assert record.sent_bytes == len(answer.body)
    assert record.received_bytes == len(b'{"model": "alias", "messages": []}')
    assert before - 1 < record.began_at < time.time() + 1
    assert record.first_byte_seconds is not None
    assert 0 <= record.waited_seconds <= record.first_byte_seconds <= record.duration_seconds


async def test_one_that_had_to_wait(watched: Watched) -> None:
    go = trio.Event()

    async def script(exchange: Exchange) -> None:
        await go.wait()
        await exchange.reply(200, {})

    world = watched.world
    engine = await world.engine("one", script, accepting=False, expected=True, names=("alias",))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(world.ask, ASK)
        await until(world.table.waiting)
        world.change("one", accepting=True)
        await until(lambda: engine.exchanges)
        go.set()
    record = await watched.record()
    assert 0 < record.waited_seconds < record.duration_seconds


async def test_one_that_was_tried_twice(watched: Watched) -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.reply(503, {})

    await watched.world.engine("one", fail, names=("alias",))
    await watched.world.engine("two", names=("alias",))
    assert (await watched.world.ask(ASK)).status == 200
    record = await watched.record()
    assert (record.status, record.engine_id, record.attempts, record.error) == (200, "two", 2, "")


async def test_one_at_which_every_engine_failed(watched: Watched) -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.reset()

    await watched.world.engine("one", fail, names=("alias",))
    assert (await watched.world.ask(ASK)).status == 502
    record = await watched.record()
    assert (record.status, record.engine_id, record.model) == (502, "one", "m")
    assert record.error.startswith("the engine one failed")


async def test_a_stream_that_broke(watched: Watched) -> None:
    async def break_off(exchange: Exchange) -> None:
        await exchange.events("1")
        await exchange.reset()

    await watched.world.engine("one", break_off, names=("alias",))
    assert (await watched.world.ask({**ASK, "stream": True})).status == 200
    record = await watched.record()
    assert (record.status, record.stream) == (200, True)
    assert record.error


async def test_one_whose_client_left(watched: Watched) -> None:
    async def think(exchange: Exchange) -> None:
        await exchange.gone()

    engine = await watched.world.engine("one", think, names=("alias",))
    async with watched.world.client() as client:
        await client.send(CHAT, ASK)
        await until(lambda: engine.exchanges)
    record = await watched.record()
    assert (record.status, record.engine_id, record.error) == (499, "one", "the client left")
    assert record.first_byte_seconds is None


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"model": "nobody's"}, 404, 'the model "nobody\'s" does not exist'),
        (b"{", 400, "the body is not JSON"),
        (ASK, 503, "no engine can take requests"),
        (b'{"model": "m", "x": "%b"}' % (b"x" * 2000), 413, "larger than 1024 bytes"),
    ],
    ids=["no such model", "no JSON", "no engine", "too large"],
)
async def test_one_that_was_refused_names_no_engine(watched: Watched, body: object, status: int, error: str) -> None:
    watched.world.add("one", names=("alias",), accepting=False)
    assert (await watched.world.ask(body)).status == status
    record = await watched.record()
    assert (record.status, record.engine_id, record.model, record.attempts) == (status, "", "", 0)
    assert error in record.error
    assert record.request_id
