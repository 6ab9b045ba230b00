"""Each model goes by its own policy, which sees of a request what it asked for, in every lane."""

from __future__ import annotations

import json

import pytest
import trio

from stoker.builtin.policies import LeastLoad
from stoker.gateway.policies import Policies
from stoker.gateway.routing import RoutingTable, Ticket
from stoker.model import Backend, EngineLoad, RouteRequest

from .conftest import CHAT, Lane, running
from .played import Played
from .scripted import until
from .test_choosing import raising, slow
from .test_routing import backend

ALL = frozenset({"headers", "body", "prompt", "session"})
MESSAGES = b'[ {"role": "user", "content": "h\xc3\xa9llo"} ]'


def test_the_engines_of_a_model_say_by_which_policy_it_goes() -> None:
    default, other = Played("default"), Played("other")
    table = RoutingTable(Policies(default, LeastLoad(), {"default": default, "other": other}), lambda: 0.0)
    table.update([backend("one", names=("m", "alias"), policy="other"), backend("two", model="m2", names=("m2",))])

    def asked(name: str) -> str:
        lease = table.open(Ticket(RouteRequest(request_id="r", model=name, path=CHAT), 1.0))
        assert lease is not None
        lease.close()
        played = next(policy for policy in (default, other) if policy.seen)
        played.seen.clear()
        return played.name

    assert [asked(name) for name in ("m", "alias", "m2")] == ["other", "other", "default"]
    table.update([backend("one"), backend("two", model="m2", names=("m2",), policy="other")])
    assert [asked(name) for name in ("m", "m2")] == ["default", "other"]
    assert [used.name for used in table.policies.used()] == ["default", "other"]
    assert [table.models_by(used) for used in table.policies.used()] == [("m",), ("m2",)]


@pytest.mark.parametrize(
    ("backends", "goes_by"),
    [
        ([backend("one"), backend("two", policy="other")], "other"),
        ([backend("one", policy="default", accepting=False), backend("two", policy="other")], "other"),
        ([backend("one", accepting=False, policy="other"), backend("two")], "other"),
        ([backend("one", policy="nobody knows it")], "default"),
    ],
    ids=[
        "it is enough that one says it",
        "who is on its way out has no say",
        "but is heard if no other says",
        "unknown",
    ],
)
def test_which_engine_is_believed(backends: list[Backend], goes_by: str) -> None:
    default, other = Played("default"), Played("other")
    table = RoutingTable(Policies(default, LeastLoad(), {"default": default, "other": other}), lambda: 0.0)
    table.update(backends)
    model = table.known("m")
    assert model is not None
    assert model.policy.name == goes_by


def test_a_lease_is_closed_with_the_policy_that_opened_it() -> None:
    before, after = Played("before"), Played("after")
    table = RoutingTable(Policies(before, LeastLoad(), {"after": after}), lambda: 0.0)
    table.update([backend("one")])
    lease = table.open(Ticket(RouteRequest(request_id="r", model="m", path=CHAT), 1.0))
    assert lease is not None
    assert before.open == ["one"]
    table.update([backend("one", policy="after")])
    lease.close()
    assert (before.open, after.open, table.in_flight()) == ([], [], 0)


def test_a_candidate_shows_the_load_of_its_incarnation_alone() -> None:
    policy = Played()
    table = RoutingTable(Policies(policy, LeastLoad()), lambda: 0.0)
    table.update([backend("one")])
    load = EngineLoad(running=2, waiting=1, kv_cache_used=0.5)
    table.report_load("one", 1, load)
    table.report_load("one", 7, EngineLoad(running=99))
    table.report_load("nobody", 1, load)
    assert table.activity("one").load == load
    model = table.known("m")
    assert model is not None
    assert model.engines[0].candidate.load == load
    table.report_load("one", 1, None)
    assert table.activity("one").load is None
    table.report_load("one", 1, load)
    table.update([backend("one", incarnation=2)])
    assert table.activity("one").load is None


# In every lane


async def test_a_policy_sees_what_it_needs(lane: Lane) -> None:
    curious, modest = Played("curious", ALL), Played("modest")
    async with running(lane=lane, policy=modest, policies={"curious": curious}) as world:
        await world.engine("one", policy="curious")
        await world.engine("two", model="m2", names=("m2",))
        body = b'{"model": "%b", "messages": ' + MESSAGES + b', "user": "me"}'
        headers = [("X-Session-Id", "s-\xe9"), ("x-REQUEST-id", "mine")]
        for name in (b"m", b"m2"):
            assert (await world.ask(body % name, headers)).status == 200
    [seen] = curious.seen
    assert (seen.request_id, seen.model, seen.path) == ("mine", "m", CHAT)
    assert (seen.prompt, seen.session, seen.body) == (MESSAGES, "me", body % b"m")
    assert seen.headers["x-session-id"] == "s-\xe9"
    assert all(name == name.lower() for name in seen.headers)
    [seen] = modest.seen
    assert (seen.prompt, seen.session, seen.body, dict(seen.headers)) == (b"", "", b"", {})


async def test_a_large_prompt_is_seen_whole(lane: Lane) -> None:
    policy = Played(needs=frozenset({"prompt"}))
    prompt = json.dumps("long " * 200_000).encode()
    async with running(lane=lane, policy=policy) as world:
        await world.engine("one")
        assert (await world.ask(b'{"model": "m", "prompt": %b}' % prompt)).status == 200
    assert [seen.prompt for seen in policy.seen] == [prompt]


async def test_a_policy_that_fails_costs_no_answer(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    bad = Played("bad", before=raising(SystemExit(1)))
    async with running(lane=lane, policy=bad) as world:
        for engine_id in ("one", "two"):
            await world.engine(engine_id)
        answers = [await world.ask({"model": "m"}) for _ in range(4)]
        assert [answer.status for answer in answers] == [200] * 4
        assert {answer.headers["x-stoker-engine"] for answer in answers} == {"one", "two"}
        [used] = world.table.policies.used()
        assert used.failures.raised == 4
    assert len([record for record in caplog.records if "'bad'" in record.getMessage()]) == 1


async def test_a_policy_that_is_too_slow_is_done_without(lane: Lane, caplog: pytest.LogCaptureFixture) -> None:
    tardy = Played("tardy", before=slow, needs=ALL)
    async with running(lane=lane, policy=tardy) as world:
        await world.engine("one")
        for _ in range(5):
            assert (await world.ask({"model": "m"})).status == 200
        [used] = world.table.policies.used()
        assert not used.in_service
    assert len(tardy.seen) == 3
    assert len([record for record in caplog.records if "out of service" in record.getMessage()]) == 1


async def test_who_waits_gets_its_lease_whatever_the_policy_does(lane: Lane) -> None:
    """Its ``closed`` fails in the very call in which the room appears that another one waits for."""
    go = trio.Event()
    policy = Played(at_closed=raising(LookupError("no")))
    async with running(lane=lane, policy=policy) as world:
        engine = await world.engine("one", max_concurrency=1)
        answer_at_once = engine.script

        async def wait(exchange: object) -> None:
            await go.wait()
            await answer_at_once(exchange)  # type: ignore[arg-type]

        engine.script = wait
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await world.ask({"model": "m"})).status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(lambda: engine.exchanges)
            nursery.start_soon(ask)
            await until(world.table.waiting)
            go.set()
        assert statuses == [200, 200]
