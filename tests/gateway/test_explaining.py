"""Where a request would go, and why: told without sending it, and without leaving a trace."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from stoker.builtin.policies import AtRandom, LeastLoad, RoundRobin
from stoker.contracts import RoutingPolicy
from stoker.gateway.choosing import Failures
from stoker.gateway.explaining import Explanation, explain
from stoker.gateway.policies import Policies
from stoker.gateway.routing import Lease, RoutingTable, Ticket
from stoker.model import Backend, Candidate, EngineLoad, RouteRequest

from .played import Played
from .test_choosing import raising, slow, use
from .test_routing import CHAT, EMBED, backend


def request(model: str = "m", path: str = CHAT) -> RouteRequest:
    return RouteRequest(request_id="r", model=model, path=path)


def table_of(policy: RoutingPolicy, *backends: Backend) -> RoutingTable:
    table = RoutingTable(Policies(policy, LeastLoad(), plugins={policy.name: "a plugin"}), lambda: 0.0)
    table.update(backends)
    return table


def explained(table: RoutingTable, model: str = "m", path: str = CHAT) -> Explanation:
    told = explain(table, request(model, path))
    assert told is not None
    return told


def lease(table: RoutingTable) -> Lease:
    opened = table.open(Ticket(request(), 1.0))
    assert opened is not None
    return opened


@attrs.define(eq=False)
class Talkative(Played):
    """Says why, as it is told to."""

    says: str = "because it is the last"

    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        self.before()
        if self.says == "raise":
            raise LookupError("I forgot")
        return self.says


def test_the_policy_says_it_in_its_own_words() -> None:
    told = explained(table_of(Talkative("talkative"), backend("one"), backend("two")))
    assert (told.model, told.policy, told.plugin, told.in_service) == ("m", "talkative", "a plugin", True)
    assert (told.choice, told.why, told.may_differ) == ("two", "because it is the last", False)
    assert [each.engine_id for each in told.engines if each.candidate] == ["one", "two"]


def test_one_that_says_nothing_has_it_said_for_it() -> None:
    told = explained(table_of(Played("silent"), backend("one")))
    assert (told.choice, told.why) == ("one", "the policy 'silent' chose it")
    told = explained(table_of(Talkative(says="raise"), backend("one")))
    assert told.why == "the policy 'played' chose it, and failed to say why (LookupError: I forgot)"


async def later() -> str:
    return "because"


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (None, "it gave None"),
        (5, "it gave 5"),
        ("", "it gave ''"),
        (" \n", r"it gave ' \n'"),
        (b"because", "it gave b'because'"),
        (later, "it gave <coroutine object later"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_sentence_is_said_to_be_none(said: Any, shown: str) -> None:
    """It was shown as if it was one: ``why  None``."""
    says: Any = said() if said is later else said
    told = explained(table_of(Talkative(says=says), backend("one")))
    assert told.why.startswith(f"the policy 'played' chose it, and failed to say why ({shown}")


def test_a_sentence_is_one_line_without_what_would_disturb_a_terminal() -> None:
    told = explained(table_of(Talkative(says="because\n  \x1b[2Jit is\t\x00the last"), backend("one")))
    assert told.why == "because [2Jit is the last"


@pytest.mark.parametrize("make", [LeastLoad, RoundRobin])
def test_what_is_told_is_what_then_happens(make: type[RoutingPolicy]) -> None:
    table = table_of(make(), *(backend(f"e{number}") for number in range(4)))
    for _ in range(20):
        told = [explained(table) for _ in range(3)]
        opened = lease(table)
        assert {each.choice for each in told} == {opened.backend.engine_id}
        assert not any(each.may_differ for each in told)
        if told[0].choice in ("e1", "e3"):
            opened.close()


def test_it_leaves_no_trace() -> None:
    policy = Talkative()
    table = table_of(policy, backend("one", max_concurrency=1))
    explained(table)
    assert policy.open == []
    assert (table.in_flight(), table.waiting()) == (0, 0)
    [used] = table.policies.used()
    policy.before = raising(SystemExit(1))
    told = explained(table)
    assert told.choice == "one"
    assert told.why.startswith("the policy 'played' failed (SystemExit: 1); ")
    assert used.failures == Failures()
    assert used.in_service


def test_where_chance_decides_that_is_said() -> None:
    policy = AtRandom(random.Random(1))
    assert explained(table_of(policy, *(backend(f"e{number}") for number in range(5)))).may_differ
    assert not explained(table_of(policy, backend("one"))).may_differ


def test_every_engine_is_told_with_why_it_is_none() -> None:
    table = table_of(
        LeastLoad(),
        backend("full", max_concurrency=1),
        backend("other path", paths=frozenset({EMBED})),
        backend("down", accepting=False, detail="ERROR; exited with 1"),
        backend("failing"),
        backend("well", max_concurrency=8),
    )
    failing = table.known("m")
    assert failing is not None
    failing.engines[3].suspected_until = 5.0
    full = lease(table)
    assert full.backend.engine_id == "full"
    table.report_load("well", 1, EngineLoad(running=2.0))
    told = explained(table)
    assert told.choice == "well"
    assert {each.engine_id: each.why_not for each in told.engines} == {
        "full": "it has as many requests as it may have",
        "other path": f"it does not serve {CHAT}",
        "down": "ERROR; exited with 1",
        "failing": "it failed a request a moment ago, and others did not",
        "well": "",
    }
    well = told.engines[-1]
    assert (well.candidate, well.in_flight, well.limit, well.load) == (True, 0, 8, EngineLoad(running=2.0))
    assert [each.suspected for each in told.engines] == [False, False, False, True, False]
    full.close()


def test_one_that_is_suspected_is_better_than_none() -> None:
    table = table_of(LeastLoad(), backend("failing"))
    lease(table).suspect()
    told = explained(table)
    assert told.choice == "failing"
    assert (told.engines[0].suspected, told.engines[0].candidate) == (True, True)


@pytest.mark.parametrize(
    ("change", "path", "why"),
    [
        ({"max_concurrency": 1}, CHAT, "it would wait for room at one"),
        ({"accepting": False, "expected": True}, CHAT, "it would wait for the start of one"),
        ({"accepting": False}, CHAT, "it would be refused: engines of the model are there, but none will take"),
        ({}, EMBED, f"it would be refused: no engine of 'm' serves {EMBED}, but {CHAT}"),
    ],
)
def test_when_there_is_none_it_says_what_comes_instead(change: dict[str, object], path: str, why: str) -> None:
    table = table_of(LeastLoad(), backend("one"))
    lease(table)
    table.update([backend("one", **change)])
    told = explained(table, path=path)
    assert told.choice is None
    assert told.why.startswith(why)


def test_behind_closed_doors_nobody_is_chosen() -> None:
    table = table_of(LeastLoad(), backend("one"))
    table.close_doors("Stoker is shutting down")
    told = explained(table)
    assert (told.choice, told.why) == (None, "it would be refused: Stoker is shutting down")


def test_a_model_that_nobody_has_is_none() -> None:
    assert explain(table_of(LeastLoad(), backend("one")), request("other")) is None


def test_of_a_policy_that_is_out_of_service_it_is_said() -> None:
    tardy = Played("tardy", before=slow)
    table = table_of(tardy, backend("one"))
    [used] = table.policies.used()
    use(used, 3)  # type: ignore[arg-type]
    told = explained(table)
    assert (told.policy, told.in_service, told.choice) == ("tardy", False, "one")
    assert told.why.startswith("the policy 'tardy' is out of service; ")
