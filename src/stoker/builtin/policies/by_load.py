"""Policies that look at how busy engines are: least-load and power-of-two."""

from __future__ import annotations

import random
from collections.abc import Sequence

from stoker.builtin.policies import wording
from stoker.builtin.policies.turns import Turns
from stoker.model import Candidate, RouteRequest


class LeastLoad:
    """The engine with the fewest open requests; among equals, the one whose turn is the longest ago.

    The requests are those that this gateway sent, which it knows to the moment. What engines say of themselves
    (``Candidate.load``) is some seconds old: going by that would send every request of those seconds to one engine.
    """

    name = "least-load"
    needs: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._turns = Turns()

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        """The least loaded candidate."""
        last = self._turns.last
        return min(candidates, key=lambda candidate: (candidate.in_flight, last(candidate.engine_id)))

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        """It had its turn."""
        self._turns.take(candidate.engine_id)

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        """Nothing to remember."""

    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        """How many requests each engine has."""
        chosen = self.choose(request, candidates, now)
        if len(candidates) == 1:
            return wording.only(chosen)
        count = wording.requests(chosen.in_flight)
        equals = [candidate for candidate in candidates if candidate.in_flight == chosen.in_flight]
        rest = [candidate for candidate in candidates if candidate.in_flight > chosen.in_flight]
        more = f"; {wording.loads(rest)}" if rest else ""
        if len(equals) == 1:
            return f"engine {chosen.engine_id} has {count}, the fewest{more}"
        turn = f"{chosen.engine_id} had its last the longest ago"
        return f"engines {wording.ids(equals)} have {count} each, and {turn}{more}"


class PowerOfTwo:
    """The less busy of two engines drawn at random: nearly as even as least-load, and several gateways that know
    nothing of each other don't all run to the same engine.
    """

    name = "power-of-two"
    needs: frozenset[str] = frozenset()

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        """The one with fewer open requests of two that are drawn; of equals, the one drawn first."""
        if len(candidates) == 1:
            return candidates[0]
        drawn = int(self._chance.random() * len(candidates))
        step = int(self._chance.random() * (len(candidates) - 1)) + 1
        one, other = candidates[drawn], candidates[(drawn + step) % len(candidates)]
        return one if one.in_flight <= other.in_flight else other

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        """Nothing to remember."""

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        """Nothing to remember."""

    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        """What chance would draw from; the next choice may be another."""
        if len(candidates) == 1:
            return wording.only(candidates[0])
        return f"the one with fewer requests in flight of two that are drawn by chance; {wording.loads(candidates)}"
