"""The suite that every routing policy passes. Needs pytest and Hypothesis.

In a plugin's tests::

    class TestMyPolicy(PolicyConformance):
        def make_policy(self) -> RoutingPolicy:
            return MyPolicy()
"""
# ruff: noqa: D102 - the names of the tests say what they hold to

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from stoker.contracts import Configurable, Explaining, RoutingPolicy
from stoker.model import Candidate, RouteRequest

NEEDS = frozenset({"headers", "body", "prompt", "session"})
REQUESTS_KEPT = 100
# A method of a base class runs in each class derived from it, which Hypothesis would rather ask about. Explaining a
# failure takes longer than finding it.
SUITE = settings(
    suppress_health_check=[HealthCheck.differing_executors],
    phases=[phase for phase in Phase if phase is not Phase.explain],
    report_multiple_bugs=False,
    deadline=None,
    max_examples=50,
)

requests = st.builds(
    RouteRequest,
    request_id=st.text(min_size=1, max_size=8),
    model=st.sampled_from(["small", "large"]),
    path=st.sampled_from(["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]),
    headers=st.dictionaries(st.sampled_from(["x-session-id", "user-agent"]), st.text(max_size=8)),
    body=st.one_of(st.just(b""), st.binary(max_size=64), st.just(b'{"model": "small", "user": "me"}')),
    prompt=st.builds(
        lambda beginning, end: beginning + end,
        st.sampled_from([b"", b'[{"role": "system", "content": "' + 80 * b"Be brief. ", 300 * b"Once upon a time. "]),
        st.binary(max_size=64),
    ),
    session=st.sampled_from(["", "a", "b"]) | st.text(max_size=8),
)
limits = st.none() | st.integers(1, 64)
# Each engine is chosen, restarts, and is chosen again: by chance that is not sure to be met in so few examples.
_QUESTION = RouteRequest(request_id="again", model="small", path="/v1/chat/completions")
RESTARTS = [(_QUESTION, step % 3, True) for step in range(12)]


@st.composite
def fleets(draw: st.DrawFn, min_size: int = 1) -> Sequence[Candidate]:
    """Candidates as a gateway offers them: each engine once, each with room for one more request."""
    ids = draw(st.lists(st.sampled_from([f"engine-{n}" for n in range(12)]), unique=True, min_size=min_size))
    fleet = []
    for engine_id in ids:
        limit = draw(limits)
        in_flight = draw(st.integers(0, 100 if limit is None else limit - 1))
        fleet.append(Candidate(engine_id=engine_id, in_flight=in_flight, max_concurrency=limit))
    return fleet


def one_request(number: int, prompt: bytes = b"") -> RouteRequest:
    """A request whose every part is unlike those of other numbers."""
    return RouteRequest(
        request_id=f"request-{number}",
        model="small",
        path="/v1/chat/completions",
        headers={"x-session-id": f"session-{number}"},
        body=b"%d" % number,
        prompt=prompt or b"%d: " % number + 1000 * b"?",
        session=f"session-{number}",
    )


class PolicyConformance:
    """Derive from it, and say how a new policy is made."""

    def make_policy(self) -> RoutingPolicy:
        """A new policy, as the plugin registers it."""
        raise NotImplementedError

    def test_it_is_a_policy_with_a_name_one_can_write(self) -> None:
        policy = self.make_policy()
        assert isinstance(policy, RoutingPolicy), f"{policy!r} lacks a part of stoker.contracts.RoutingPolicy"
        assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", policy.name), f"{policy.name!r} is not lower-case-with-hyphens"

    def test_it_asks_for_nothing_a_request_does_not_have(self) -> None:
        needs = self.make_policy().needs
        assert needs <= NEEDS, f"needs {sorted(needs - NEEDS)}, but there are only {sorted(NEEDS)}"

    @given(request=requests, candidate=fleets().map(lambda fleet: fleet[0]), now=st.floats(0, 1e9))
    @SUITE
    def test_of_one_candidate_it_chooses_that(self, request: RouteRequest, candidate: Candidate, now: float) -> None:
        assert self.make_policy().choose(request, [candidate], now) == candidate

    @given(
        asked=st.lists(st.tuples(requests, st.integers(0, 2), st.booleans()), max_size=30),
        kept=st.integers(1, 4),
    )
    @example(asked=RESTARTS, kept=1)
    @SUITE
    def test_it_chooses_engines_as_they_are_now(self, asked: list[tuple[RouteRequest, int, bool]], kept: int) -> None:
        """Engines restart: the new candidate has the name of the old one, whose leases are closed later."""
        policy = self.make_policy()
        fleet = [Candidate(engine_id=f"engine-{number}") for number in range(3)]
        leases: list[tuple[RouteRequest, Candidate]] = []
        for now, (request, number, restarts) in enumerate(asked):
            if restarts:
                fleet[number] = Candidate(engine_id=f"engine-{number}")
            chosen = policy.choose(request, tuple(fleet), float(now))
            assert any(chosen is candidate for candidate in fleet), f"{chosen!r} is no candidate, or one of the past"
            chosen.in_flight += 1
            policy.opened(request, chosen)
            leases.append((request, chosen))
            while len(leases) > kept:
                over, engine = leases.pop(0)
                engine.in_flight -= 1
                policy.closed(over, engine)

    @given(turns=st.lists(st.tuples(requests, fleets(), st.booleans()), max_size=12))
    @SUITE
    def test_it_always_chooses_a_candidate(self, turns: list[tuple[RouteRequest, list[Candidate], bool]]) -> None:
        """Whatever came before: engines come and go between requests, and leases stay open or are closed."""
        policy = self.make_policy()
        leases: list[tuple[RouteRequest, Candidate]] = []
        for now, (request, fleet, close_one) in enumerate(turns):
            offered = tuple(fleet)
            chosen = policy.choose(request, offered, float(now))
            assert chosen in offered, f"{chosen!r} is none of the candidates"
            policy.opened(request, chosen)
            leases.append((request, chosen))
            if close_one:
                policy.closed(*leases.pop(0))
        for lease in leases:
            policy.closed(*lease)

    @given(fleet=fleets(min_size=2))
    @SUITE
    def test_it_does_not_change_what_it_is_offered(self, fleet: list[Candidate]) -> None:
        before = list(fleet)
        self.make_policy().choose(RouteRequest(request_id="1", model="m", path="/v1/completions"), fleet, 0.0)
        assert fleet == before, "choose() changed the list of candidates"

    @given(fleet=fleets(min_size=2), request=requests)
    @SUITE
    def test_it_bears_a_lease_on_an_engine_it_did_not_choose(
        self, fleet: list[Candidate], request: RouteRequest
    ) -> None:
        """A choice may lead to nothing, and a retry may go elsewhere: only ``opened`` tells what happened."""
        policy = self.make_policy()
        chosen = policy.choose(request, fleet, 0.0)
        other = next(candidate for candidate in fleet if candidate != chosen)
        policy.opened(request, other)
        policy.closed(request, other)
        assert policy.choose(request, fleet, 1.0) in fleet

    def test_it_bears_many_engines_and_a_long_prompt(self) -> None:
        policy = self.make_policy()
        fleet = [Candidate(engine_id=f"engine-{number}", in_flight=number % 7) for number in range(64)]
        for number in range(4):
            request = one_request(number, prompt=128 * 1024 // 8 * b"letters ")
            chosen = policy.choose(request, fleet, 0.0)
            assert chosen in fleet
            policy.opened(request, chosen)
            policy.closed(request, chosen)

    def test_it_lets_go_of_requests_that_are_over(self) -> None:
        """Bodies can be megabytes. A policy may keep what it learned of requests, and the latest few, but not all."""
        policy = self.make_policy()
        fleet = [Candidate(engine_id=f"engine-{number}") for number in range(3)]
        seen = []
        for number in range(2 * REQUESTS_KEPT):
            request = one_request(number)
            seen.append(weakref.ref(request))
            chosen = policy.choose(request, fleet, float(number))
            policy.opened(request, chosen)
            policy.closed(request, chosen)
        del request
        gc.collect()
        alive = sum(reference() is not None for reference in seen)
        assert alive <= REQUESTS_KEPT, f"of {len(seen)} requests that are over, {alive} are still held"

    @given(asked=st.lists(requests, max_size=6), fleet=fleets(), request=requests)
    @SUITE
    def test_its_explanation_is_a_sentence_that_names_an_engine(
        self, asked: list[RouteRequest], fleet: list[Candidate], request: RouteRequest
    ) -> None:
        """If it has one (:class:`stoker.contracts.Explaining`), whatever it was asked before."""
        policy = self.make_policy()
        if not isinstance(policy, Explaining):
            return
        for before in asked:
            policy.opened(before, policy.choose(before, fleet, 0.0))
        text = policy.explain(request, fleet, 1.0)
        assert text.strip(), "the explanation is empty"
        assert text.isprintable(), f"more than one line: {text!r}"
        assert any(candidate.engine_id in text for candidate in fleet), f"it names none of the candidates: {text!r}"
        assert policy.choose(request, fleet, 1.0) in fleet

    def test_without_options_it_is_what_it_was(self) -> None:
        """If it has options (:class:`stoker.contracts.Configurable`)."""
        policy = self.make_policy()
        if not isinstance(policy, Configurable):
            return
        again = policy.configured({})
        assert again is not policy, "configured() must make a new policy"
        assert isinstance(again, RoutingPolicy)
        assert (again.name, again.needs) == (policy.name, policy.needs)

    def test_an_option_that_there_is_not_is_named(self) -> None:
        """By a ValueError, if it has options."""
        policy = self.make_policy()
        if not isinstance(policy, Configurable):
            return
        complaint = "nothing"
        try:
            policy.configured({"no-such-option": 1})
        except ValueError as error:
            complaint = str(error)
        assert "no-such-option" in complaint, f"of an option that there is not it said {complaint!r}"
