"""Policies that look at nothing: round-robin and random."""

from __future__ import annotations

import random
from collections.abc import Sequence

from stoker.builtin.policies import wording
from stoker.builtin.policies.turns import Turns
from stoker.model import Candidate, RouteRequest


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

    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        """Whose turn it is, and who had the last one."""
        chosen = self.choose(request, candidates, now)
        if len(candidates) == 1:
            return wording.only(chosen)
        if not self._turns.last(chosen.engine_id):
            return f"it is the turn of engine {chosen.engine_id}, which had none yet"
        latest = max(candidates, key=lambda candidate: self._turns.last(candidate.engine_id)).engine_id
        return f"it is the turn of engine {chosen.engine_id}, whose last is the longest ago; {latest} had the latest"


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

    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        """Chance decides; the next choice may be another."""
        if len(candidates) == 1:
            return wording.only(candidates[0])
        return f"chance decides: {wording.ids(candidates)} are equally likely"
