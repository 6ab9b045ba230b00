"""Requests that no engine has room for wait, in their order, and every one of them gets an answer."""

from __future__ import annotations

import trio

from stoker.settings import GatewaySettings

from .conftest import CHAT, Lane, World, running
from .scripted import Answer, Exchange, until

ASK = {"model": "m", "messages": []}


async def test_a_request_waits_for_an_engine_that_is_starting(world: World) -> None:
    engine = await world.engine("one", accepting=False, expected=True)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await until(lambda: world.table.waiting() == 1)
        assert engine.connections == 0
        world.change("one", accepting=True)
        assert (await client.answer()).status == 200


async def test_a_request_waits_for_one_that_is_not_even_known_to_start_yet_only_if_it_is_expected(world: World) -> None:
    world.add("one", accepting=False, detail="STOPPED")
    world.add("two", accepting=False, expected=True)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await until(lambda: world.table.waiting() == 1)
        world.change("two", expected=False, detail="ERROR; given up")
        answer = await client.answer()
    assert answer.status == 503
    assert "one: STOPPED, two: ERROR; given up" in answer.error["message"]


async def test_waiting_ends_with_503_and_a_time_to_come_back(lane: Lane) -> None:
    async with running(GatewaySettings(queue_seconds=0.05), lane=lane) as world:
        world.add("one", accepting=False, expected=True, detail="STARTING")
        answer = await world.ask(ASK)
    assert answer.status == 503
    assert answer.error["code"] == "queue_timeout"
    assert "one: STARTING" in answer.error["message"]
    assert int(answer.headers["retry-after"]) > 0


async def test_a_full_queue_refuses_with_429(lane: Lane) -> None:
    async with running(GatewaySettings(queue_size=2), lane=lane) as world:
        world.add("one", accepting=False, expected=True)
        async with world.client() as first, world.client() as second:
            await first.send(CHAT, ASK)
            await second.send(CHAT, ASK)
            await until(lambda: world.table.waiting() == 2)
            answer = await world.ask(ASK)
            assert (answer.status, answer.error["code"], answer.error["type"]) == (
                429,
                "queue_full",
                "rate_limit_error",
            )
            assert int(answer.headers["retry-after"]) > 0


async def test_no_engine_gets_more_than_its_limit(world: World) -> None:
    let_go = trio.Event()
    at_once = most_at_once = 0

    async def work(exchange: Exchange) -> None:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        await let_go.wait()
        at_once -= 1
        await exchange.reply(200, {})

    await world.engine("one", work, max_concurrency=2)
    async with trio.open_nursery() as nursery:
        for _ in range(12):
            nursery.start_soon(world.ask, ASK)
        await until(lambda: (world.table.in_flight(), world.table.waiting()) == (2, 10))
        let_go.set()
    assert most_at_once == 2


async def test_waiting_is_first_come_first_served(world: World) -> None:
    let_go = trio.Event()

    async def work(exchange: Exchange) -> None:
        await let_go.wait()
        await exchange.reply(200, {})

    engine = await world.engine("one", work, max_concurrency=1)
    async with trio.open_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(world.ask, ASK, [("x-number", str(number))])
            await until(lambda: world.table.in_flight() + world.table.waiting() == number + 1)  # noqa: B023
        let_go.set()
    assert [exchange.header("x-number") for exchange in engine.exchanges] == [str(number) for number in range(12)]


async def test_a_newcomer_does_not_overtake(world: World) -> None:
    let_go = trio.Event()

    async def work(exchange: Exchange) -> None:
        if exchange.header("x-number") == "busy":
            await let_go.wait()
        await exchange.reply(200, {})

    engine = await world.engine("one", work, max_concurrency=1)
    async with world.client() as busy, world.client() as waiting, world.client() as newcomer:
        await busy.send(CHAT, ASK, [("x-number", "busy")])
        await until(lambda: engine.exchanges)
        await waiting.send(CHAT, ASK, [("x-number", "waiting")])
        await until(lambda: world.table.waiting() == 1)
        let_go.set()
        await newcomer.send(CHAT, ASK, [("x-number", "newcomer")])
        for client in (newcomer, waiting, busy):
            assert (await client.answer()).status == 200
    assert [exchange.header("x-number") for exchange in engine.exchanges] == ["busy", "waiting", "newcomer"]


async def test_those_who_wait_for_other_models_do_not_hold_each_other_up(world: World) -> None:
    world.add("one", accepting=False, expected=True)
    await world.engine("two", model="other", names=("other",))
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await until(lambda: world.table.waiting() == 1)
        assert (await world.ask({"model": "other"})).status == 200


async def test_everybody_gets_an_answer_when_the_doors_close(world: World) -> None:
    world.add("one", accepting=False, expected=True)
    answers: list[Answer] = []

    async def ask() -> None:
        answers.append(await world.ask(ASK))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
        await until(lambda: world.table.waiting() == 5)
        world.table.close_doors("Stoker is shutting down")
    answers.append(await world.ask(ASK))
    assert [answer.status for answer in answers] == [503] * 6
    assert {answer.error["message"] for answer in answers} == {"Stoker is shutting down"}
    assert all("retry-after" in answer.headers for answer in answers)


async def test_a_waiting_request_is_told_when_its_model_goes(world: World) -> None:
    world.add("one", accepting=False, expected=True)
    async with world.client() as client:
        await client.send(CHAT, ASK)
        await until(lambda: world.table.waiting() == 1)
        world.forget("one")
        assert (await client.answer()).status == 404
