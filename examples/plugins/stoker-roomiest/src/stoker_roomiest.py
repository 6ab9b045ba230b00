"""A policy: the engine with the most room in its KV cache, as its own metrics tell it."""

from __future__ import annotations

from collections.abc import Sequence

from stoker.contracts import RoutingPolicy
from stoker.hookspecs import hookimpl
from stoker.model import Candidate, RouteRequest


class Roomiest:
    """Of engines with the same room, and of those that don't tell, the one with the fewest open requests."""

    name = "roomiest"
    needs: frozenset[str] = frozenset()

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        """The candidate whose cache is emptiest."""
        return min(candidates, key=lambda candidate: (used(candidate), candidate.in_flight))

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        """Nothing to remember."""

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        """Nothing to remember."""

    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        """What ``stoker route explain`` prints."""
        chosen = self.choose(request, candidates, now)
        return f"the KV cache of {chosen.engine_id} is {used(chosen):.0%} full, no other is emptier"


def used(candidate: Candidate) -> float:
    """The part of its cache in use, in tenths: requests of the last seconds matter as well."""
    load = candidate.load
    return 0.0 if load is None or load.kv_cache_used is None else round(load.kv_cache_used, 1)


@hookimpl
def stoker_register_policies() -> Sequence[RoutingPolicy]:
    """The one policy of this plugin."""
    return [Roomiest()]
