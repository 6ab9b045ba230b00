"""Policies that do what a test wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs

from stoker.model import Candidate, RouteRequest


def nothing() -> None:
    pass


@attrs.define(eq=False)
class Played:
    """Chooses the last candidate, after what ``before`` does; keeps what it was shown and told of."""

    name: str = "played"
    needs: frozenset[str] = frozenset()
    before: Callable[[], object] = nothing
    at_opened: Callable[[], object] = nothing
    at_closed: Callable[[], object] = nothing
    seen: list[RouteRequest] = attrs.field(factory=list)
    open: list[str] = attrs.field(factory=list)

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        self.seen.append(request)
        self.before()
        return candidates[-1]

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        self.open.append(candidate.engine_id)
        self.at_opened()

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        self.open.remove(candidate.engine_id)
        self.at_closed()
