"""The built-in policies pass the suite, and each keeps the promise of its name."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from stoker.builtin.policies import AtRandom, LeastLoad, RoundRobin, Turns, stoker_register_policies
from stoker.contracts import RoutingPolicy
from stoker.model import Candidate, RouteRequest
from stoker.testing.policies import PolicyConformance, fleets

REQUEST = RouteRequest(request_id="1", model="m", path="/v1/chat/completions")


class TestLeastLoadConforms(PolicyConformance):
    def make_policy(self) -> RoutingPolicy:
        return LeastLoad()


class TestRoundRobinConforms(PolicyConformance):
    def make_policy(self) -> RoutingPolicy:
        return RoundRobin()


class TestRandomConforms(PolicyConformance):
    def make_policy(self) -> RoutingPolicy:
        return AtRandom(random.Random(1))


def idle(*engine_ids: str) -> list[Candidate]:
    return [Candidate(engine_id=engine_id, in_flight=0) for engine_id in engine_ids]


def serve(policy: RoutingPolicy, fleet: list[Candidate]) -> str:
    """One request from its beginning to its end: who got it."""
    chosen = policy.choose(REQUEST, fleet, 0.0)
    policy.opened(REQUEST, chosen)
    policy.closed(REQUEST, chosen)
    return chosen.engine_id


@given(fleet=fleets())
def test_least_load_chooses_nobody_who_has_more_to_do_than_another(fleet: list[Candidate]) -> None:
    chosen = LeastLoad().choose(REQUEST, fleet, 0.0)
    assert chosen.in_flight == min(candidate.in_flight for candidate in fleet)


def test_equally_loaded_engines_share_requests_evenly() -> None:
    policy = LeastLoad()
    assert [serve(policy, idle("a", "b", "c")) for _ in range(7)] == ["a", "b", "c", "a", "b", "c", "a"]


def test_two_models_in_turn_do_not_keep_each_others_replicas_idle() -> None:
    policy = LeastLoad()
    served = [serve(policy, idle(*names)) for _ in range(4) for names in (("chat-1", "chat-2"), ("embed-1", "embed-2"))]
    assert served[::2] == ["chat-1", "chat-2", "chat-1", "chat-2"]
    assert served[1::2] == ["embed-1", "embed-2", "embed-1", "embed-2"]


def test_round_robin_goes_on_in_order_however_busy_engines_are() -> None:
    policy = RoundRobin()
    fleet = [Candidate(engine_id="a", in_flight=50), *idle("b", "c")]
    assert [serve(policy, fleet) for _ in range(4)] == ["a", "b", "c", "a"]


def test_an_engine_that_comes_late_has_its_turn_next() -> None:
    policy = RoundRobin()
    for _ in range(3):
        serve(policy, idle("a", "b"))
    assert serve(policy, idle("a", "b", "new")) == "new"


def test_asking_for_a_choice_takes_nobodys_turn() -> None:
    for policy in (LeastLoad(), RoundRobin()):
        assert {policy.choose(REQUEST, idle("a", "b"), 0.0).engine_id for _ in range(5)} == {"a"}


def test_random_with_one_seed_gives_one_sequence_that_reaches_everybody() -> None:
    first, second = (AtRandom(random.Random(7)) for _ in range(2))
    sequence = [serve(first, idle("a", "b", "c")) for _ in range(50)]
    assert sequence == [serve(second, idle("a", "b", "c")) for _ in range(50)]
    assert set(sequence) == {"a", "b", "c"}


@given(names=st.lists(st.sampled_from("abcdef")))
def test_turns_remember_the_latest_and_forget_the_oldest(names: list[str]) -> None:
    turns = Turns(remembered=3)
    for name in names:
        turns.take(name)
    latest = list(dict.fromkeys(reversed(names)))
    remembered = sorted((name for name in set(names) if turns.last(name)), key=turns.last, reverse=True)
    assert remembered == latest[:3]


def test_every_registration_makes_policies_of_its_own() -> None:
    first, second = stoker_register_policies(), stoker_register_policies()
    assert [policy.name for policy in first] == ["least-load", "round-robin", "random"]
    assert not {id(policy) for policy in first} & {id(policy) for policy in second}
