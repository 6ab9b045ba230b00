"""The simulated fleet, and what it says of the policies that come with Stoker."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from stoker.builtin.policies import (
    AtRandom,
    LeastLoad,
    PrefixAffinity,
    RoundRobin,
    SessionAffinity,
)
from stoker.contracts import RoutingPolicy
from stoker.model import Candidate, RouteRequest
from stoker.testing.comparing import WORKLOADS, compare
from stoker.testing.simulation import Conversation, Guard, Hardware, Outcome, Turn, simulate
from stoker.testing.workloads import chats

# 1,000 tokens a second in, 100 out, and a cache for four blocks of 16 tokens
HARDWARE = Hardware(
    prefill_tokens_per_second=1000.0, decode_tokens_per_second=100.0, cache_tokens=64, max_concurrency=2
)


def run(make: Callable[[], RoutingPolicy], workload: str) -> Outcome:
    return simulate(make(), WORKLOADS[workload]())


def turn(prompt: bytes, answer_tokens: int = 100, thinking_seconds: float = 0.0) -> Turn:
    request = RouteRequest(request_id="1", model="m", path="/", prompt=prompt)
    return Turn(request=request, answer_tokens=answer_tokens, thinking_seconds=thinking_seconds)


def one_engine(*conversations: Conversation) -> Outcome:
    return simulate(RoundRobin(), conversations, engines=1, hardware=HARDWARE)


# The fleet


def test_a_prompt_waits_for_those_before_it() -> None:
    outcome = one_engine(Conversation(1.0, [turn(400 * b"a")]), Conversation(1.05, [turn(400 * b"b")]))
    assert outcome.first_token_seconds == pytest.approx([0.1, 0.15])
    assert (outcome.prompt_tokens, outcome.cached_tokens) == (200, 0)


def test_a_request_waits_for_room() -> None:
    outcome = one_engine(*(Conversation(0.0, [turn(400 * bytes([n]))]) for n in range(3)))
    assert outcome.first_token_seconds == pytest.approx([0.1, 0.2, 1.2])


def test_a_turn_waits_for_the_answer_before_it_and_finds_its_prompt_cached() -> None:
    outcome = one_engine(Conversation(0.0, [turn(128 * b"a"), turn(128 * b"a" + 64 * b"b", thinking_seconds=5.0)]))
    assert outcome.first_token_seconds == pytest.approx([0.032, 0.016])
    assert (outcome.prompt_tokens, outcome.cached_tokens) == (80, 32)


def test_a_cache_forgets_what_was_not_used_for_the_longest_time() -> None:
    one, other, third = 128 * b"a", 128 * b"b", 128 * b"c"
    outcome = one_engine(*(Conversation(9.0 * n, [turn(each)]) for n, each in enumerate([one, other, one, third, one])))
    assert outcome.cached_tokens == 32 + 32
    outcome = one_engine(*(Conversation(9.0 * n, [turn(each)]) for n, each in enumerate([one, other, third, one])))
    assert outcome.cached_tokens == 0


class Stubborn(RoundRobin):
    """Sends everything to the first engine."""

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        return candidates[0]


def test_load_is_measured_at_each_choice() -> None:
    crowd = [Conversation(0.0, [turn(b"")]) for _ in range(6)]
    outcome = simulate(Stubborn(), crowd, engines=2, guard=Guard(load_factor=1.5, slack=2))
    assert outcome.greatest_load == 2.0
    assert outcome.guard_exceeded == 3
    assert simulate(RoundRobin(), crowd, engines=2).guard_exceeded == 0


def test_leases_balance() -> None:
    class Counting(LeastLoad):
        open = 0

        def opened(self, request: RouteRequest, candidate: Candidate) -> None:
            self.open += 1
            assert candidate.in_flight

        def closed(self, request: RouteRequest, candidate: Candidate) -> None:
            self.open -= 1

    policy = Counting()
    outcome = simulate(policy, chats(conversations=20), engines=2, hardware=HARDWARE)
    assert policy.open == 0
    assert len(outcome.first_token_seconds) == 20 * 6


def test_the_same_run_gives_the_same_figures() -> None:
    policies: list[Callable[[], RoutingPolicy]] = [PrefixAffinity, lambda: AtRandom(random.Random(1))]
    table = compare(policies)
    assert table == compare(policies)
    assert len(table.splitlines()) == 2 + len(policies) * len(WORKLOADS)


# The policies


@pytest.mark.parametrize(("workload", "margin"), [("chats", 0.15), ("documents", 0.35)])
def test_prefix_affinity_finds_more_in_caches_than_round_robin(workload: str, margin: float) -> None:
    affinity, in_turn = run(PrefixAffinity, workload), run(RoundRobin, workload)
    assert affinity.hit_rate > in_turn.hit_rate + margin
    assert affinity.mean_first_token_seconds < 0.7 * in_turn.mean_first_token_seconds
    assert affinity.p99_first_token_seconds < in_turn.p99_first_token_seconds


@pytest.mark.parametrize("workload", ["strangers", "crowd"])
def test_prefix_affinity_costs_little_where_caches_can_not_help(workload: str) -> None:
    affinity, least_load = run(PrefixAffinity, workload), run(LeastLoad, workload)
    assert affinity.mean_first_token_seconds < 1.05 * least_load.mean_first_token_seconds
    assert affinity.p99_first_token_seconds < 1.05 * least_load.p99_first_token_seconds


def test_session_affinity_finds_more_in_caches_than_round_robin() -> None:
    assert run(SessionAffinity, "chats").hit_rate > run(RoundRobin, "chats").hit_rate + 0.1


@pytest.mark.parametrize("workload", WORKLOADS)
@pytest.mark.parametrize("make", [PrefixAffinity, SessionAffinity])
def test_affinity_never_goes_beyond_its_guard(workload: str, make: Callable[[], RoutingPolicy]) -> None:
    assert run(make, workload).guard_exceeded == 0


@pytest.mark.parametrize("make", [PrefixAffinity, SessionAffinity])
def test_without_its_guard_affinity_would_bury_an_engine_under_the_crowd(make: Callable[..., RoutingPolicy]) -> None:
    guarded, unguarded = run(make, "crowd"), run(lambda: make(load_factor=100), "crowd")
    assert guarded.greatest_load < 1.6
    assert unguarded.greatest_load > 3
    assert unguarded.guard_exceeded > 400
    assert unguarded.p99_first_token_seconds > 1.1 * guarded.p99_first_token_seconds


@pytest.mark.parametrize("workload", WORKLOADS)
def test_the_guard_would_be_exceeded_by_chance(workload: str) -> None:
    assert run(lambda: AtRandom(random.Random(1)), workload).guard_exceeded > 0
