"""The built-in policies pass the suite, and each keeps the promise of its name."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections import Counter
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from stoker.builtin.policies import (
    AtRandom,
    LeastLoad,
    PowerOfTwo,
    PrefixAffinity,
    RoundRobin,
    Turns,
    stoker_register_policies,
)
from stoker.contracts import Explaining, RoutingPolicy
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


class TestPowerOfTwoConforms(PolicyConformance):
    def make_policy(self) -> RoutingPolicy:
        return PowerOfTwo(random.Random(1))


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
    assert [policy.name for policy in first] == [
        "least-load",
        "round-robin",
        "random",
        "power-of-two",
        "session-affinity",
        "prefix-affinity",
    ]
    assert not {id(policy) for policy in first} & {id(policy) for policy in second}


# power-of-two


@given(fleet=fleets(min_size=2), seed=st.integers())
def test_power_of_two_never_chooses_the_busiest_of_all(fleet: list[Candidate], seed: int) -> None:
    chosen = PowerOfTwo(random.Random(seed)).choose(REQUEST, fleet, 0.0)
    assert any(other.in_flight >= chosen.in_flight for other in fleet if other is not chosen)


def test_power_of_two_draws_every_pair() -> None:
    policy = PowerOfTwo(random.Random(1))
    for busy in "abcd":
        fleet = idle(*"abcd")
        next(candidate for candidate in fleet if candidate.engine_id == busy).in_flight = 1
        assert {policy.choose(REQUEST, fleet, 0.0).engine_id for _ in range(200)} == set("abcd") - {busy}


def test_power_of_two_gives_equals_the_same_share() -> None:
    policy, fleet = PowerOfTwo(random.Random(1)), idle(*"abcd")
    counts = Counter(policy.choose(REQUEST, fleet, 0.0).engine_id for _ in range(4000))
    assert all(900 < counts[engine_id] < 1100 for engine_id in "abcd")


# Why


def loaded(**in_flight: int) -> list[Candidate]:
    return [Candidate(engine_id=engine_id, in_flight=count) for engine_id, count in in_flight.items()]


def why(policy: Explaining, fleet: list[Candidate]) -> str:
    return policy.explain(REQUEST, fleet, 0.0)


def test_least_load_says_how_many_requests_each_has() -> None:
    assert why(LeastLoad(), loaded(a=5, b=1)) == "engine b has 1 request in flight, the fewest; a has 5"


def test_least_load_says_whose_turn_it_is_among_equals() -> None:
    policy = LeastLoad()
    serve(policy, idle("a", "b"))
    explained = "engines a and b have 2 requests in flight each, and b had its last the longest ago; c has 3"
    assert why(policy, loaded(a=2, b=2, c=3)) == explained


def test_of_many_engines_a_few_are_named() -> None:
    fleet = loaded(a=1, b=3, c=2, d=4, e=5, f=6, g=7)
    explained = "engine a has 1 request in flight, the fewest; c has 2, b has 3, d has 4, e has 5 and 2 more"
    assert why(LeastLoad(), fleet) == explained


def test_round_robin_says_whose_turn_it_is() -> None:
    policy = RoundRobin()
    assert why(policy, idle("a", "b")) == "it is the turn of engine a, which had none yet"
    serve(policy, idle("a", "b"))
    serve(policy, idle("a", "b"))
    assert why(policy, idle("a", "b")) == "it is the turn of engine a, whose last is the longest ago; b had the latest"


def test_policies_of_chance_say_so() -> None:
    chance = random.Random(1)
    assert why(AtRandom(chance), idle("a", "b", "c")) == "chance decides: a, b and c are equally likely"
    explained = "the one with fewer requests in flight of two that are drawn by chance; b has 1 and a has 2"
    assert why(PowerOfTwo(chance), loaded(a=2, b=1)) == explained


def test_where_there_is_no_choice_every_policy_says_so() -> None:
    for policy in stoker_register_policies():
        assert isinstance(policy, Explaining)
        request = RouteRequest(request_id="1", model="m", path="/", session="s", prompt=1000 * b"p")
        assert policy.explain(request, idle("a"), 0.0).endswith("engine a is the only one that can take the request")


# Memory


SMALL = {"remembered_blocks": 2000}


def test_what_is_remembered_has_a_bound() -> None:
    """Engines, sessions and prompts come and go; after some thousands of them memory grows no further."""
    for policy in stoker_register_policies():
        bounded = policy.configured(SMALL) if isinstance(policy, PrefixAffinity) else policy
        tracemalloc.start()
        try:
            before, after = (held_after(bounded, numbers) for numbers in (range(5_000), range(5_000, 10_000)))
        finally:
            tracemalloc.stop()
        assert after - before < 250_000, f"{policy.name} grew by {after - before} bytes"


def held_after(policy: RoutingPolicy, numbers: Iterable[int]) -> int:
    serve_strangers(policy, numbers)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    return held


def serve_strangers(policy: RoutingPolicy, numbers: Iterable[int]) -> None:
    for number in numbers:
        fleet = [Candidate(engine_id=f"engine-{number}-{n}") for n in range(2)]
        session, prompt = f"session-{number}", b"%d" % number + 600 * b"p"
        request = RouteRequest(request_id="1", model=f"model-{number}", path="/", session=session, prompt=prompt)
        chosen = policy.choose(request, fleet, 0.0)
        policy.opened(request, chosen)
        policy.closed(request, chosen)
