"""The policies that come with Stoker: least-load, round-robin, random."""

from __future__ import annotations

import random
from collections.abc import Sequence

from stoker.contracts import RoutingPolicy
from stoker.hookspecs import hookimpl
from stoker.model import Candidate, RouteRequest


class Turns:
    """Remembers in which order engines last had their turn. Bounded: the longest unused are forgotten first."""

    def __init__(self, remembered: int = 4096) -> None:
        self._remembered = remembered
        self._last: dict[str, int] = {}
        self._count = 0

    def last(self, engine_id: str) -> int:
        """A number that grows with every turn taken; 0 for an engine that had none yet."""
        return self._last.get(engine_id, 0)

    def take(self, engine_id: str) -> None:
        """``engine_id`` had its turn now."""
        self._count += 1
        self._last.pop(engine_id, None)
        self._last[engine_id] = self._count
        if len(self._last) > self._remembered:
            del self._last[next(iter(self._last))]


class LeastLoad:
    """The engine with the fewest open requests; among equals, the one whose turn is the longest ago."""

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


class RoundRobin:
    """Every engine in its turn, however busy it is."""

    name = "round-robin"
    needs: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._turns = Turns()

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        """The candidate whose turn is the longest ago."""
        last = self._turns.last
        return min(candidates, key=lambda candidate: last(candidate.engine_id))

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        """It had its turn."""
        self._turns.take(candidate.engine_id)

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        """Nothing to remember."""


class AtRandom:
    """Any engine. ``chance`` can be seeded, so that a run can be repeated."""

    name = "random"
    needs: frozenset[str] = frozenset()

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        """One candidate, each as likely as the next."""
        return self._chance.choice(candidates)

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        """Nothing to remember."""

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        """Nothing to remember."""


@hookimpl
def stoker_register_policies() -> Sequence[RoutingPolicy]:
    """New policies each time: they hold state, and nobody else's."""
    return [LeastLoad(), RoundRobin(), AtRandom(random.Random())]  # noqa: S311 - spreads load, guards nothing
