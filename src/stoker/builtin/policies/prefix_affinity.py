"""The policy prefix-affinity: a prompt goes where the least of it has to be read."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from typing import Any, Self

import attrs

from stoker.builtin.policies import wording
from stoker.builtin.policies.guard import LoadGuard
from stoker.builtin.policies.options import Allowed, Number, Whole, checked
from stoker.builtin.policies.prefixes import PrefixMemory
from stoker.builtin.policies.turns import Turns
from stoker.model import Candidate, RouteRequest

BLOCK_BYTES = 256
PROMPT_BYTES = 128 * 1024
OWN_BLOCKS = 4  # what a block of the request weighs beside one of those that are in flight
MOST_BLOCKS = 4096  # of one prompt: what can be looked at well within the time a policy may take

OPTIONS: Mapping[str, Allowed] = {
    "block_bytes": Whole(32, 65_536),
    "prompt_bytes": Whole(32, 16 * 1024 * 1024),
    "remembered_blocks": Whole(1, 16 * 1024 * 1024),
    "load_factor": Number(1, 100),
    "slack": Whole(1, 10_000),
}


@attrs.define(eq=False)
class _Engine:
    """What is known of one candidate: its mark in the memory, and the blocks in flight that were new to it."""

    mark: int
    reading: int = 0


class PrefixAffinity:
    """Of the engines that the guard allows, the one that has the least to read.

    That is what it was not sent before of the prompt's beginning. What others sent it counts as well: the blocks of the
    requests in flight that were new to it, though only a quarter of them, since much of it is read by now. It decides
    among engines that know the same of the prompt, or nothing. Ties go to the least loaded, and then to the one whose
    turn is the longest ago.

    An engine that restarts is another candidate, and nothing is remembered of it.
    """

    name = "prefix-affinity"
    needs = frozenset({"prompt"})

    def __init__(
        self,
        block_bytes: int = BLOCK_BYTES,
        prompt_bytes: int = PROMPT_BYTES,
        remembered_blocks: int = 64 * 1024,
        load_factor: float = 1.25,
        slack: int = 4,
    ) -> None:
        self._block_bytes = block_bytes
        self._guard = LoadGuard(load_factor, slack)
        self._memory = PrefixMemory(block_bytes, prompt_bytes, remembered_blocks)
        self._engines: weakref.WeakKeyDictionary[Candidate, _Engine] = weakref.WeakKeyDictionary()
        self._leases: dict[RouteRequest, tuple[_Engine, int]] = {}
        self._turns = Turns()
        self._latest: tuple[RouteRequest | None, Sequence[int]] = (None, ())

    def configured(self, options: Mapping[str, Any]) -> Self:
        """A new policy with ``block_bytes``, ``prompt_bytes``, ``remembered_blocks``, ``load_factor`` and ``slack``."""
        given = checked(options, OPTIONS)
        prompt_bytes = given.get("prompt_bytes", PROMPT_BYTES)
        if prompt_bytes // given.get("block_bytes", BLOCK_BYTES) > MOST_BLOCKS:
            least = -(-prompt_bytes // MOST_BLOCKS)
            raise ValueError(
                f"block_bytes must be at least {least} where prompt_bytes is {prompt_bytes}: "
                f"a prompt is cut into {MOST_BLOCKS} blocks at most"
            )
        return type(self)(**given)

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        """The one that has the least to read of those that the guard allows."""
        path, limit, last = self._path(request), self._guard.limit(candidates), self._turns.last
        return min(
            [candidate for candidate in candidates if candidate.in_flight < limit],
            key=lambda each: (self._to_read(each, path), each.in_flight, last(each.engine_id)),
        )

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        """The engine reads what is new of the prompt, and has it in its cache then."""
        path, engine = self._path(request), self._engines.get(candidate)
        if engine is None:
            engine = self._engines[candidate] = _Engine(self._memory.new_mark())
        new = len(path) - self._memory.matched(engine.mark, path)
        engine.reading += new
        self._leases[request] = (engine, new)
        self._memory.remember(engine.mark, path)
        self._turns.take(candidate.engine_id)
        self._latest = (None, ())

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        """It is no longer in flight; the engine keeps what it read."""
        engine, new = self._leases.pop(request)
        engine.reading -= new

    def explain(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
        """How much of the prompt the engine was sent before, and why not one that was sent more of it."""
        chosen = self.choose(request, candidates, now)
        if len(candidates) == 1:
            return wording.only(chosen)
        path, limit = self._path(request), self._guard.limit(candidates)
        known = {each: self._matched(each, path) for each in candidates}
        longest = max(candidates, key=lambda each: known[each])
        has = f"engine {chosen.engine_id} has {wording.requests(chosen.in_flight)} (its limit is {limit} at present)"
        if not path:
            return f"the prompt is shorter than a block of {self._block_bytes} bytes; {has} and the least to read"
        if not known[longest]:
            return f"no engine was sent the beginning of this prompt before; {has} and the least to read for others"
        sent = f"{has} and was sent {self._part(known[chosen], request)} before"
        if known[chosen] == known[longest]:
            return f"{sent}; none was sent more of it"
        full = longest.in_flight >= limit
        busy = f"has {wording.requests(longest.in_flight)}" if full else "has much to read for others"
        return f"{sent}; engine {longest.engine_id} was sent {self._part(known[longest], request)}, but {busy}"

    def _to_read(self, candidate: Candidate, path: Sequence[int]) -> int:
        engine = self._engines.get(candidate)
        if engine is None:
            return OWN_BLOCKS * len(path)
        return OWN_BLOCKS * (len(path) - self._memory.matched(engine.mark, path)) + engine.reading

    def _matched(self, candidate: Candidate, path: Sequence[int]) -> int:
        engine = self._engines.get(candidate)
        return self._memory.matched(engine.mark, path) if engine is not None else 0

    def _part(self, blocks: int, request: RouteRequest) -> str:
        if not blocks:
            return "nothing of it"
        return f"{blocks * self._block_bytes:,} of the prompt's {len(request.prompt):,} bytes"

    def _path(self, request: RouteRequest) -> Sequence[int]:
        """Hashed once for a choice and the lease that follows it."""
        if self._latest[0] is not request:
            self._latest = (request, self._memory.path(request.model, request.prompt))
        return self._latest[1]
