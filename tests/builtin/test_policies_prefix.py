"""prefix-affinity: prompts go where their beginning is cached, unless that engine has too much to do."""

from __future__ import annotations

import gc
import re
from collections.abc import Sequence
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.builtin.policies import PrefixAffinity
from stoker.builtin.policies.prefixes import PrefixMemory
from stoker.contracts import RoutingPolicy
from stoker.model import Candidate, RouteRequest
from stoker.testing.policies import PolicyConformance

BLOCK = 256


class TestItConforms(PolicyConformance):
    def make_policy(self) -> RoutingPolicy:
        return PrefixAffinity()


class TestItConformsWhenSmall(PolicyConformance):
    def make_policy(self) -> RoutingPolicy:
        return PrefixAffinity(block_bytes=32, prompt_bytes=1024, remembered_blocks=5, load_factor=1.0, slack=1)


def engines(*names: str) -> list[Candidate]:
    return [Candidate(engine_id=name) for name in names]


def asked(prompt: bytes, model: str = "m") -> RouteRequest:
    return RouteRequest(request_id="1", model=model, path="/v1/chat/completions", prompt=prompt)


def text(seed: int, blocks: float) -> bytes:
    """A text unlike that of any other seed."""
    return (b"%d, " % seed * 99 * BLOCK)[: int(blocks * BLOCK)]


@attrs.define
class Fleet:
    """Engines with leases, as the gateway keeps them."""

    policy: PrefixAffinity
    engines: list[Candidate]
    leases: list[tuple[RouteRequest, Candidate]] = attrs.field(factory=list)

    def open(self, prompt: bytes, model: str = "m") -> str:
        """Who gets the request, which stays in flight."""
        request = asked(prompt, model)
        chosen = self.policy.choose(request, self.engines, 0.0)
        self.lease(request, chosen)
        return chosen.engine_id

    def lease(self, request: RouteRequest, engine: Candidate) -> None:
        engine.in_flight += 1
        self.policy.opened(request, engine)
        self.leases.append((request, engine))

    def serve(self, prompt: bytes, model: str = "m") -> str:
        """Who gets the request, which is over soon."""
        name = self.open(prompt, model)
        self.close()
        return name

    def close(self) -> None:
        request, engine = self.leases.pop()
        engine.in_flight -= 1
        self.policy.closed(request, engine)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(PrefixAffinity(), engines("a", "b", "c"))


# Where a prompt goes


def test_a_conversation_stays_where_it_began(fleet: Fleet) -> None:
    prompts = [text(seed, 3) for seed in range(9)]
    first = [fleet.serve(prompt) for prompt in prompts]
    assert set(first) == {"a", "b", "c"}, "those that nobody knows are spread"
    for turn in range(4):
        assert [fleet.serve(prompt + text(turn, 2)) for prompt in prompts] == first


def test_the_longest_match_counts(fleet: Fleet) -> None:
    a, b, c = fleet.engines
    fleet.lease(asked(text(1, 2)), a)
    fleet.lease(asked(text(1, 4)), b)
    fleet.lease(asked(text(1, 3)), c)
    while fleet.leases:
        fleet.close()
    assert fleet.serve(text(1, 8)) == "b"


def test_what_is_alike_only_later_is_not_a_match(fleet: Fleet) -> None:
    assert fleet.serve(text(1, 1) + text(2, 9)) == "a"
    assert fleet.serve(text(3, 1) + text(2, 9)) == "b"


def test_models_do_not_share_caches(fleet: Fleet) -> None:
    assert [fleet.serve(text(1, 4), model) for model in ("one", "other", "one", "other")] == ["a", "b", "a", "b"]


def test_prompts_of_less_than_a_block_are_spread(fleet: Fleet) -> None:
    assert [fleet.serve(b"Hello!") for _ in range(4)] == ["a", "b", "c", "a"]


def test_those_that_all_engines_know_go_to_the_least_loaded(fleet: Fleet) -> None:
    for engine in fleet.engines:
        fleet.lease(asked(text(1, 3)), engine)
    assert [fleet.open(text(1, 3)) for _ in range(4)] == ["a", "b", "c", "a"]


def test_an_engine_that_reads_much_for_others_gets_no_more_of_it(fleet: Fleet) -> None:
    a, b, c = fleet.engines
    fleet.lease(asked(text(1, 50)), a)
    fleet.lease(asked(text(2, 2)), b)
    fleet.lease(asked(text(3, 2)), b)
    fleet.lease(asked(text(4, 20)), c)
    assert fleet.open(text(5, 10)) == "b"


def test_a_little_that_is_known_is_no_reason_to_wait_for_an_engine_that_reads_much(fleet: Fleet) -> None:
    """Otherwise all that begins alike would go where that is known, until the load guard forbids it."""
    fleet.lease(asked(text(1, 1) + text(2, 40)), fleet.engines[0])
    assert fleet.open(text(1, 1) + text(3, 40)) == "b"


def test_a_restarted_engine_knows_nothing(fleet: Fleet) -> None:
    assert fleet.serve(text(1, 4)) == "a"
    fleet.engines[0] = Candidate(engine_id="a")
    assert fleet.serve(text(1, 4)) == "b"


def test_asking_changes_nothing(fleet: Fleet) -> None:
    for _ in range(5):
        assert fleet.policy.choose(asked(text(1, 4)), fleet.engines, 0.0).engine_id == "a"
        fleet.policy.explain(asked(text(1, 4)), fleet.engines, 0.0)
    assert fleet.serve(text(2, 4)) == "a"


# The guard


def test_a_hot_prompt_spreads_before_it_is_too_much_for_one_engine(fleet: Fleet) -> None:
    order = [fleet.open(text(1, 9)) for _ in range(30)]
    assert order[:4] == ["a", "a", "a", "a"]
    assert {engine.in_flight for engine in fleet.engines} <= {9, 10, 11, 12, 13}
    assert sum(engine.in_flight for engine in fleet.engines) == 30


requests = st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 9), st.booleans())


@given(
    asked_for=st.lists(requests, max_size=60),
    count=st.integers(1, 6),
    loads=st.lists(st.integers(0, 20), min_size=6, max_size=6),
    slack=st.integers(1, 5),
    factor=st.floats(1, 3),
)
def test_no_engine_gets_more_than_the_guard_allows(
    asked_for: list[tuple[int, int, int, bool]], count: int, loads: list[int], slack: int, factor: float
) -> None:
    policy = PrefixAffinity(load_factor=factor, slack=slack, remembered_blocks=20)
    fleet = [Candidate(engine_id=str(number), in_flight=loads[number]) for number in range(count)]
    leases: list[tuple[RouteRequest, Candidate]] = []
    for beginning, blocks, end, one_is_over in asked_for:
        request = asked(text(beginning, blocks) + text(end, 2))
        chosen = policy.choose(request, fleet, 0.0)
        share = (sum(candidate.in_flight for candidate in fleet) + 1) / len(fleet)
        assert chosen.in_flight + 1 <= max(slack, factor * share + 1)
        chosen.in_flight += 1
        policy.opened(request, chosen)
        leases.append((request, chosen))
        if one_is_over:
            over, engine = leases.pop(0)
            engine.in_flight -= 1
            policy.closed(over, engine)


# What is remembered


@given(
    prompts=st.lists(st.tuples(st.integers(0, 2), st.lists(st.sampled_from(b"xyz"), max_size=6)), max_size=30),
    room=st.integers(1, 12),
)
def test_memory_is_a_tree_of_which_the_oldest_leaves_fall(prompts: list[tuple[int, list[int]]], room: int) -> None:
    """Held against a slow and simple one: paths in the order of their use, each a tuple of letters."""
    memory = PrefixMemory(block_bytes=1, prompt_bytes=5, remembered_blocks=room)
    marks = [memory.new_mark() for _ in range(3)]
    model: list[tuple[int, tuple[int, ...]]] = []
    for engine, letters in prompts:
        path = memory.path("m", bytes(letters))
        prefixes = [tuple(letters[:end]) for end in range(1, min(len(letters), 5) + 1)]
        for each in range(3):
            known = sum(1 for prefix in prefixes if (each, prefix) in model)
            assert memory.matched(marks[each], path) == known
        memory.remember(marks[engine], path)
        for prefix in reversed(prefixes):
            model = [pair for pair in model if pair != (engine, prefix)] + [(engine, prefix)]
        model = model[-room:]
        assert len(memory) == len(model)


def test_only_the_beginning_of_a_long_prompt_is_looked_at() -> None:
    memory = PrefixMemory(block_bytes=256, prompt_bytes=1000, remembered_blocks=100)
    assert len(memory.path("m", 5000 * b"x")) == 3
    assert memory.path("m", 5000 * b"x") == memory.path("m", 1000 * b"x")


def test_an_engine_that_is_gone_is_not_kept(fleet: Fleet) -> None:
    fleet.serve(text(1, 4))
    fleet.engines.clear()
    gc.collect()
    assert not fleet.policy._engines


# Why, and options


def test_it_says_how_much_of_the_prompt_was_sent_where(fleet: Fleet) -> None:
    def why(prompt: bytes) -> str:
        return fleet.policy.explain(asked(prompt), fleet.engines, 0.0)

    assert why(text(1, 3)) == (
        "no engine was sent the beginning of this prompt before; engine a has 0 requests in flight (its limit is 4 at "
        "present) and the least to read for others"
    )
    assert why(b"Hello!") == (
        "the prompt is shorter than a block of 256 bytes; engine a has 0 requests in flight (its limit is 4 at "
        "present) and the least to read"
    )
    fleet.serve(text(1, 3))
    assert why(text(1, 3) + b"More") == (
        "engine a has 0 requests in flight (its limit is 4 at present) and was sent 768 of the prompt's 772 bytes "
        "before; none was sent more of it"
    )
    fleet.engines[0].in_flight = 9
    assert why(text(1, 3)) == (
        "engine b has 0 requests in flight (its limit is 5 at present) and was sent nothing of it before; "
        "engine a was sent 768 of the prompt's 768 bytes, but has 9 requests in flight"
    )
    fleet.engines[0].in_flight = 0
    fleet.lease(asked(text(2, 40)), fleet.engines[0])
    assert why(text(1, 3)) == (
        "engine b has 0 requests in flight (its limit is 4 at present) and was sent nothing of it before; "
        "engine a was sent 768 of the prompt's 768 bytes, but has much to read for others"
    )


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"blocks": 1}, "there is no option 'blocks'; there are: block_bytes, load_factor, prompt_bytes, "),
        ({"block_bytes": 31}, "block_bytes must be a whole number from 32 to 65536, not 31"),
        ({"prompt_bytes": 0}, "prompt_bytes must be a whole number from 32 to 16777216, not 0"),
        ({"remembered_blocks": 1.5}, "remembered_blocks must be a whole number from 1 to 16777216, not 1.5"),
        ({"load_factor": "2"}, "load_factor must be a number from 1 to 100, not '2'"),
        ({"slack": True}, "slack must be a whole number from 1 to 10000, not True"),
        (
            {"prompt_bytes": 16 * 1024 * 1024},
            "block_bytes must be at least 4096 where prompt_bytes is 16777216: a prompt is cut into 4096 blocks",
        ),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(complaint)):
        PrefixAffinity().configured(options)


def test_options_count() -> None:
    def served(options: dict[str, Any], prompts: Sequence[bytes]) -> list[str]:
        fleet = Fleet(PrefixAffinity().configured(options), engines("a", "b"))
        return [fleet.open(prompt) for prompt in prompts]

    twice = [text(1, 1), text(1, 1)]
    assert served({}, twice) == ["a", "a"]
    assert served({"block_bytes": 512}, twice) == ["a", "b"]
    assert served({"prompt_bytes": 128}, twice) == ["a", "b"]
    assert served({"slack": 1, "load_factor": 1}, twice) == ["a", "b"]
    assert served({"slack": 1, "load_factor": 2}, twice) == ["a", "a"]
    later = [text(1, 1), text(2, 1), text(3, 1), text(1, 1)]
    assert served({}, later) == ["a", "b", "a", "a"]
    assert served({"remembered_blocks": 2}, later) == ["a", "b", "a", "b"]
