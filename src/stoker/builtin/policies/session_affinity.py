"""The policy session-affinity: what belongs together goes to one engine."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

from stoker.builtin.policies import wording
from stoker.builtin.policies.by_load import LeastLoad
from stoker.builtin.policies.guard import LoadGuard
from stoker.builtin.policies.options import Allowed, HeaderName, Number, Whole, checked
from stoker.model import Candidate, RouteRequest

WORD = (1 << 64) - 1
ODD = 0x9E3779B97F4A7C15
ENGINES_REMEMBERED = 4096

OPTIONS: Mapping[str, Allowed] = {"header": HeaderName(), "load_factor": Number(1, 100), "slack": Whole(1, 10_000)}


def hash64(text: str) -> int:
    """64 bits of ``text``: the same in every process, on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


class SessionAffinity:
    """Requests of one session go to one engine, as long as that has no more to do than the guard allows.

    By rendezvous hashing: each session puts the engines in an order of its own, by a hash of the two, and the first
    engine in it that the guard lets through is the one. That is a consistent hash: an engine that goes leaves the order
    of the others as it was, so only its own sessions move, each to its second; one that comes takes only those of which
    it is the first. The order depends on nothing but names, so it is the same after a restart and at other gateways,
    and there is nothing to remember.
    """

    name = "session-affinity"
    needs = frozenset({"headers", "session"})

    def __init__(self, header: str = "x-session-id", load_factor: float = 1.25, slack: int = 4) -> None:
        self._header = header.lower()
        self._guard = LoadGuard(load_factor, slack)
        self._hash_of_engine = functools.lru_cache(ENGINES_REMEMBERED)(hash64)
        self._without_session = LeastLoad()

    def configured(self, options: Mapping[str, Any]) -> Self:
        """A new policy with ``header``, ``load_factor`` and ``slack``."""
        return type(self)(**checked(options, OPTIONS))

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        """The first engine in the session's order that the guard allows; without a session, the least loaded."""
        session = request.headers.get(self._header) or request.session
        if not session:
            return self._without_session.choose(request, candidates, now)
        limit = self._guard.limit(candidates)
        return self._first(session, [candidate for candidate in candidates if candidate.in_flight < limit])

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        """It had its turn, of those without a session."""
        self._without_session.opened(request, candidate)

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        """Nothing to remember."""

    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        """Whose the session is, and why it goes elsewhere if it does."""
        header = request.headers.get(self._header)
        session = header or request.session
        if not session:
            return f"the request names no session; {self._without_session.explain(request, candidates, now)}"
        if len(candidates) == 1:
            return wording.only(candidates[0])
        source = f"header {self._header}" if header else "body"
        chosen, limit = self.choose(request, candidates, now), self._guard.limit(candidates)
        home = self._first(session, candidates)
        belongs = f"the session (named in the {source}) belongs to engine {home.engine_id}"
        if chosen is home:
            return f"{belongs}, which has {wording.requests(home.in_flight)}; its limit is {limit} at present"
        return (
            f"{belongs}, but that has {wording.requests(home.in_flight)} and its limit is {limit} at present; "
            f"engine {chosen.engine_id} is the next in the session's order and has {chosen.in_flight}"
        )

    def _first(self, session: str, candidates: Sequence[Candidate]) -> Candidate:
        base, hash_of_engine = hash64(session), self._hash_of_engine
        first, highest = candidates[0], -1
        for candidate in candidates:
            both = base ^ hash_of_engine(candidate.engine_id)
            mixed = ((both ^ both >> 32) * ODD) & WORD
            if mixed > highest:
                first, highest = candidate, mixed
        return first
