"""The suite that every routing policy passes. Needs pytest and Hypothesis.

In a plugin's tests::

    class TestMyPolicy(PolicyConformance):
        def make_policy(self) -> RoutingPolicy:
            return MyPolicy()
"""
# ruff: noqa: D102 - the names of the tests say what they hold to

from __future__ import annotations

import re
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from stoker.contracts import RoutingPolicy
from stoker.model import Candidate, RouteRequest

NEEDS = frozenset({"headers", "body", "prompt", "session"})
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
    headers=st.dictionaries(st.sampled_from(["x-session-id", "authorization"]), st.text(max_size=8)),
    body=st.one_of(st.just(b""), st.binary(max_size=64), st.just(b'{"model": "small", "user": "me"}')),
    prompt=st.builds(
        lambda beginning, end: beginning + end,
        st.sampled_from([b"", b'[{"role": "system", "content": "' + 80 * b"Be brief. ", 300 * b"Once upon a time. "]),
        st.binary(max_size=64),
    ),
    session=st.sampled_from(["", "a", "b"]) | st.text(max_size=8),
)
limits = st.none() | st.integers(1, 64)


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
