"""An engine fails. The client must not notice where another one can answer, and must be told the truth otherwise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable

import pytest
import trio

from stoker.gateway.budget import MOST, RESERVE, RESERVE_PER_SECOND, RetryBudget
from stoker.settings import GatewaySettings

from .conftest import Lane, World, running
from .scripted import HANG_GUARD_SECONDS, Engine, Exchange, until

ASK = {"model": "m", "messages": []}


async def reset(exchange: Exchange) -> None:
    await exchange.reset()


async def hang_up(exchange: Exchange) -> None:
    await exchange.hang_up()


async def break_off_in_the_head(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-")
    await exchange.hang_up()


async def break_off_in_the_body(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
    await exchange.reset()


async def break_off_before_the_first_event(exchange: Exchange) -> None:
    await exchange.events()
    await exchange.data(b'data: {"half')
    await exchange.reset()


async def say_nonsense(exchange: Exchange) -> None:
    await exchange.raw(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def have_an_endless_head(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 200 OK\r\n" + b"x-header: 12345678901234567890\r\n" * 10_000)


async def have_a_head_that_is_too_long(exchange: Exchange) -> None:
    """Such a head once passed if its end came in one piece with what was over the limit."""
    await exchange.raw(b"HTTP/1.1 200 OK\r\nx-header: " + b"x" * 110_000 + b"\r\ncontent-length: 2\r\n\r\n{}")


async def send_endless_informational_answers(exchange: Exchange) -> None:
    await exchange.raw(b"HTTP/1.1 102 Processing\r\n\r\n" * 100)


async def be_unavailable(exchange: Exchange) -> None:
    await exchange.reply(503, {"error": {"message": "Loading model"}})


async def have_a_bad_gateway(exchange: Exchange) -> None:
    await exchange.reply(502, b"<html>")


async def fail_inside(exchange: Exchange) -> None:
    await exchange.reply(500, {"error": {"message": "EngineDeadError"}})


def once(failure: Callable[[Exchange], Awaitable[None]]) -> Callable[[Exchange], Awaitable[None]]:
    """Fail at the first request, then answer."""
    failures = [failure]

    async def script(exchange: Exchange) -> None:
        await (failures.pop()(exchange) if failures else exchange.reply(200, {}))

    return script


def ending(world: World, engine_id: str, engine: Engine) -> Callable[[Exchange], Awaitable[None]]:
    """End the whole engine at a request, as one does that is killed."""

    async def script(exchange: Exchange) -> None:
        engine.stop_listening()
        world.change(engine_id, accepting=False, expected=True)
        await exchange.reset()

    return script


@pytest.mark.parametrize(
    "failure",
    [
        reset,
        hang_up,
        break_off_in_the_head,
        break_off_in_the_body,
        break_off_before_the_first_event,
        say_nonsense,
        have_an_endless_head,
        have_a_head_that_is_too_long,
        send_endless_informational_answers,
        be_unavailable,
        have_a_bad_gateway,
    ],
)
async def test_another_engine_answers(world: World, failure: Callable[[Exchange], Awaitable[None]]) -> None:
    one = await world.engine("one", failure)
    two = await world.engine("two")
    answer = await world.ask(ASK)
    assert answer.status == 200
    assert answer.headers["x-stoker-engine"] == "two"
    assert (len(one.exchanges), len(two.exchanges)) == (1, 1)
    assert two.exchanges[0].body == one.exchanges[0].body
    assert [report[:2] for report in world.reports] == [("one", 1)]
    assert world.plane.forwarder.counters.retries == 1


async def test_an_engine_that_refuses_connections_is_passed_over_and_then_avoided(world: World) -> None:
    world.add("one")  # nobody listens there
    await world.engine("two")
    for _ in range(4):
        assert (await world.ask(ASK)).headers["x-stoker-engine"] == "two"
    assert len(world.reports) == 1
    assert "refused" in world.reports[0][2]


async def test_an_avoided_engine_is_used_again_when_it_changed(world: World) -> None:
    await world.engine("one", once(reset))
    await world.engine("two")
    assert (await world.ask(ASK)).headers["x-stoker-engine"] == "two"
    world.change("one", incarnation=2)
    assert (await world.ask(ASK)).headers["x-stoker-engine"] == "one"


async def test_an_avoided_engine_is_better_than_none(world: World) -> None:
    await world.engine("one", once(be_unavailable))
    assert (await world.ask(ASK)).status == 503
    assert (await world.ask(ASK)).status == 200


async def test_the_last_error_is_passed_on_when_all_engines_are_unavailable(world: World) -> None:
    engines = [await world.engine(engine_id, be_unavailable) for engine_id in ("one", "two")]
    answer = await world.ask(ASK)
    assert (answer.status, answer.error["message"]) == (503, "Loading model")
    assert [len(engine.exchanges) for engine in engines] == [1, 1]
    assert world.plane.forwarder.counters.errors == 1


async def test_a_request_is_tried_three_times_at_most(world: World) -> None:
    engines = [await world.engine(f"engine-{number}", reset) for number in range(5)]
    answer = await world.ask(ASK)
    assert (answer.status, answer.error["code"]) == (502, "engine_failed")
    assert sum(len(engine.exchanges) for engine in engines) == 3


async def test_an_engine_that_was_gone_before_the_request_reached_it_costs_no_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While engines were killed one after the other, requests got 502 of which the last of three saw nothing."""
    monkeypatch.setattr(
        "stoker.gateway.retrying.SEEN_GONE_SECONDS", HANG_GUARD_SECONDS
    )  # a slow machine takes its time
    for number in range(5):
        world.add(f"engine-{number}")  # nobody listens there
    async with world.client() as client:
        await client.send("/v1/completions", ASK)
        for number in range(5):
            await until(lambda: len(world.reports) > number)  # noqa: B023 - it is called in this round only
            world.change(world.reports[number][0], accepting=False, expected=True)
        assert len({engine_id for engine_id, *_ in world.reports}) == 5
        await world.engine("six")
        answer = await client.answer()
    assert (answer.status, answer.headers["x-stoker-engine"]) == (200, "six")


async def test_one_that_can_not_be_reached_and_is_not_gone_costs_an_attempt(world: World) -> None:
    for number in range(5):
        world.add(f"engine-{number}")  # nobody listens there
    assert (await world.ask(ASK)).status == 502
    assert len(world.reports) == 3


async def test_one_that_got_the_request_on_a_connection_of_before_may_have_ended_of_it(world: World) -> None:
    """Else a request that ends engines at once would end all of them, since there is no second connection to those."""
    engines = {f"engine-{number}": await world.engine(f"engine-{number}", accepting=False) for number in range(5)}
    for engine_id in engines:
        world.change(engine_id, accepting=True)
        assert (await world.ask(ASK)).headers["x-stoker-engine"] == engine_id, "there is a connection to it now"
        world.change(engine_id, accepting=False)

    for engine_id, engine in engines.items():
        world.change(engine_id, accepting=True)
        engine.script = ending(world, engine_id, engine)
    assert (await world.ask(ASK)).status == 502
    assert sum(len(engine.exchanges) == 2 for engine in engines.values()) == 3


async def test_retries_can_be_forbidden(lane: Lane) -> None:
    async with running(GatewaySettings(retry_ratio=0), lane=lane) as world:
        await world.engine("one", reset)
        await world.engine("two")
        assert (await world.ask(ASK)).status == 502


async def test_retries_have_a_budget(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.gateway.budget.RESERVE_PER_SECOND", 0)  # or a slow machine refills it meanwhile
    async with running(GatewaySettings(retry_ratio=0.001), lane=lane) as world:
        await world.engine("one", be_unavailable)
        await world.engine("two", be_unavailable)
        async with world.client() as client:
            for _ in range(RESERVE + 50):
                await client.ask("/v1/completions", ASK)
        counters = world.plane.forwarder.counters
        assert counters.requests == RESERVE + 50
        assert RESERVE <= counters.retries < RESERVE + 50


async def test_what_an_engine_held_when_it_died_is_retried_without_a_budget(world: World) -> None:
    """Of 500 requests of which it held half, those over the budget once failed although another engine was idle."""
    count = RESERVE + 20
    dead = trio.Event()

    async def die(exchange: Exchange) -> None:
        await dead.wait()
        await exchange.reset()

    await world.engine("one", die)
    statuses: list[int] = []

    async def ask() -> None:
        statuses.append((await world.ask(ASK)).status)

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(ask)
        await until(lambda: world.table.in_flight() == count)
        await world.engine("two")
        world.change("one", accepting=False)
        dead.set()
    assert statuses == [200] * count


def test_the_budget_is_a_share_of_the_requests_and_a_reserve_that_comes_back() -> None:
    now = 0.0
    budget = RetryBudget(0.25, lambda: now)

    def affordable() -> int:
        return next(count for count in itertools.count() if not budget.withdraw())

    assert affordable() == RESERVE
    for _ in range(100):
        budget.deposit()
    assert affordable() == 25
    now += 1
    assert affordable() == RESERVE_PER_SECOND
    now += 1_000_000
    assert affordable() == RESERVE
    for _ in range(1_000_000):
        budget.deposit()
    assert affordable() == MOST


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests in which nothing becomes of the engine that failed: don't wait for it as long as one should."""
    monkeypatch.setattr("stoker.gateway.retrying.FOUND_FAILING_SECONDS", 0.05)


async def test_an_internal_error_of_a_healthy_engine_is_the_requests_own(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is passed on as soon as the engine has answered a probe, not after all the time that one may take."""
    monkeypatch.setattr("stoker.gateway.retrying.FOUND_FAILING_SECONDS", math.inf)
    one = await world.engine("one", fail_inside)
    two = await world.engine("two", fail_inside)
    world.answered.add("one")
    answer = await world.ask(ASK)
    assert (answer.status, answer.error["message"]) == (500, "EngineDeadError")
    assert len(one.exchanges) + len(two.exchanges) == 1
    assert [report[0] for report in world.reports] == ["one"]


@pytest.mark.parametrize("way", ["it fails its probes", "it is replaced", "it is gone"])
async def test_an_internal_error_of_an_engine_found_failing_is_retried(world: World, way: str) -> None:
    await world.engine("one", fail_inside)
    await world.engine("two")
    async with world.client() as client:
        await client.send("/v1/completions", ASK)
        await until(lambda: world.reports)
        if way == "it fails its probes":
            world.change("one", accepting=False)
        elif way == "it is replaced":
            world.change("one", incarnation=2)
        else:
            world.forget("one")
        answer = await client.answer()
    assert (answer.status, answer.headers["x-stoker-engine"]) == (200, "two")


async def test_a_retry_waits_for_the_engine_that_is_being_replaced(world: World) -> None:
    await world.engine("one", once(reset))
    async with world.client() as client:
        await client.send("/v1/completions", ASK)
        await until(lambda: world.reports)
        world.change("one", accepting=False, expected=True)
        await until(lambda: world.table.waiting() == 1)
        world.change("one", accepting=True, incarnation=2)
        assert (await client.answer()).status == 200


async def test_a_registered_engine_that_comes_back_as_it_was_is_tried_again(world: World) -> None:
    await world.engine("one", once(reset))
    async with world.client() as client:
        await client.send("/v1/completions", ASK)
        await until(lambda: world.reports)
        world.change("one", accepting=False, expected=True)
        await until(lambda: world.table.waiting() == 1)
        world.change("one", accepting=True)
        assert (await client.answer()).status == 200


async def test_the_only_engine_dies_for_good(world: World) -> None:
    await world.engine("one", reset)
    async with world.client() as client:
        await client.send("/v1/completions", ASK)
        await until(lambda: world.reports)
        world.change("one", accepting=False, detail="ERROR; given up")
        answer = await client.answer()
    assert (answer.status, answer.error["code"]) == (502, "engine_failed")
    assert "one" in answer.error["message"]


async def test_a_connection_the_engine_closed_meanwhile_is_not_used(world: World) -> None:
    async def answer_and_hang_up(exchange: Exchange) -> None:
        await exchange.reply(200, {})
        await exchange.hang_up()

    engine = await world.engine("one", answer_and_hang_up)
    for _ in range(3):
        assert (await world.ask(ASK)).status == 200
        await until(lambda: engine.open_connections == 0)
    assert engine.connections == 3
    assert world.reports == []


async def test_a_connection_the_engine_closes_in_that_moment_is_replaced_without_a_retry(world: World) -> None:
    engine = await world.engine("one")
    assert (await world.ask(ASK)).status == 200
    engine.script = once(reset)
    assert (await world.ask(ASK)).status == 200
    assert (engine.connections, len(engine.exchanges)) == (2, 3)
    assert world.reports == []
    assert world.plane.forwarder.counters.retries == 0


async def test_a_connection_on_which_more_came_than_an_answer_is_not_used_again(world: World) -> None:
    async def say_too_much(exchange: Exchange) -> None:
        answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
        await exchange.raw(answer + b"{}" + answer + b"ha")
        await exchange.gone()

    engine = await world.engine("one", say_too_much)
    for _ in range(3):
        assert (await world.ask(ASK)).body == b"{}"
    assert engine.connections == 3


@pytest.mark.parametrize("stays", [False, True])
async def test_an_engine_that_says_close_gets_a_new_connection(world: World, stays: bool) -> None:
    async def answer_and_say_close(exchange: Exchange) -> None:
        await exchange.reply(200, {}, [("connection", "close")])
        if stays:
            await exchange.gone()

    engine = await world.engine("one", answer_and_say_close)
    for _ in range(3):
        answer = await world.ask(ASK)
        assert answer.complete
        assert ("connection" in answer.headers) == (world.lane is Lane.HYPERCORN)
    assert engine.connections == 3


async def test_an_engine_that_refuses_a_large_body_before_it_came_is_heard(world: World) -> None:
    answered = trio.Event()

    async def handle(stream: trio.SocketStream) -> None:
        await stream.receive_some(100)
        await stream.send_all(
            b"HTTP/1.1 413 Too Large\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
        )
        await stream.aclose()
        answered.set()

    listeners = await world.nursery.start(trio.serve_tcp, handle, 0)
    world.add("one", port=listeners[0].socket.getsockname()[1])
    answer = await world.ask(b'{"model": "m", "x": "' + b"x" * 20_000_000 + b'"}')
    assert answered.is_set()
    assert (answer.status, answer.body) == (413, b"{}")


@pytest.mark.usefixtures("briefly")
async def test_an_address_that_leads_nowhere_is_an_engine_failure(world: World) -> None:
    world.add("one", base_url="ftp://x")
    world.add("two", base_url="http://" + "a" * 70 + ".invalid/")
    answer = await world.ask(ASK)
    assert (answer.status, answer.error["code"]) == (502, "engine_failed")
    assert len(world.reports) == 2
