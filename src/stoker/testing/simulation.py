"""A simulated fleet: how a routing policy does on engines with prefix caches, in seconds that nobody has to wait for.

Every engine prefills one prompt after the other, except for what its cache holds of it, and then decodes all its
requests side by side. The cache holds whole blocks and forgets those that were not used for the longest time. Answers
are not cached. Chance is drawn from seeds only, so a run can be repeated to the last digit::

    from stoker.testing.simulation import simulate
    from stoker.testing.workloads import chats

    print(simulate(MyPolicy(), chats()))
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Sequence

import attrs

from stoker.contracts import RoutingPolicy
from stoker.model import Candidate, RouteRequest

TOKEN_BYTES = 4
BLOCK_TOKENS = 16


def _blocks(prompt: bytes) -> Sequence[int]:
    """A number for each prefix of whole blocks, as an engine's cache knows it."""
    size, prefix, blocks = BLOCK_TOKENS * TOKEN_BYTES, 0, []
    for start in range(0, len(prompt) - size + 1, size):
        prefix = hash((prefix, prompt[start : start + size]))
        blocks.append(prefix)
    return blocks


@attrs.frozen(kw_only=True)
class Turn:
    """One request of a conversation, sent ``thinking_seconds`` after the answer before it."""

    request: RouteRequest
    answer_tokens: int = 100
    thinking_seconds: float = 0.0
    blocks: Sequence[int] = attrs.field(init=False, repr=False)

    @blocks.default
    def _of_the_prompt(self) -> Sequence[int]:
        return _blocks(self.request.prompt)


@attrs.frozen
class Conversation:
    """Requests that wait for each other's answers; the first is sent at ``begins_at`` seconds."""

    begins_at: float
    turns: Sequence[Turn]


@attrs.frozen(kw_only=True)
class Hardware:
    """What each engine of the fleet can do. The defaults are a smallish model on a smallish GPU."""

    prefill_tokens_per_second: float = 8_000.0
    decode_tokens_per_second: float = 50.0
    cache_tokens: int = 64 * 1024
    max_concurrency: int = 32


@attrs.frozen(kw_only=True)
class Guard:
    """The bounded load that choices are measured by: ``load_factor`` times the even share, ``slack`` at least."""

    load_factor: float = 1.25
    slack: int = 4

    def limit(self, share: float) -> int:
        """The most requests an engine may have where ``share`` is its even share of them all."""
        return max(self.slack, math.ceil(self.load_factor * share))


@attrs.define(kw_only=True)
class Outcome:
    """What came of a run. Times to the first token are seconds, from when the client sent its request.

    ``greatest_load`` is the most that an engine had of its even share of the requests in flight, 1 being exactly that;
    engines with no more than the guard's ``slack`` don't count. ``guard_exceeded`` counts the choices that went beyond
    the :class:`Guard`.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    first_token_seconds: list[float] = attrs.field(factory=list, repr=False)
    greatest_load: float = 0.0
    guard_exceeded: int = 0

    @property
    def hit_rate(self) -> float:
        """The part of all prompt tokens that was in the engine's cache, 0 to 1."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else 0.0

    @property
    def mean_first_token_seconds(self) -> float:
        """The mean time to the first token."""
        return math.fsum(self.first_token_seconds) / len(self.first_token_seconds)

    @property
    def p99_first_token_seconds(self) -> float:
        """The time to the first token that 99 of 100 requests do not exceed."""
        return sorted(self.first_token_seconds)[math.ceil(0.99 * len(self.first_token_seconds)) - 1]


@attrs.define(eq=False)
class _Engine:
    hardware: Hardware
    candidate: Candidate
    cache: OrderedDict[int, None] = attrs.field(factory=OrderedDict)
    idle_at: float = 0.0

    def cached(self, blocks: Sequence[int]) -> int:
        """How many of the blocks are there, from the first one on; all of them are, afterwards."""
        known = next((n for n, block in enumerate(blocks) if block not in self.cache), len(blocks))
        for block in reversed(blocks):
            self.cache[block] = None
            self.cache.move_to_end(block)
        while len(self.cache) * BLOCK_TOKENS > self.hardware.cache_tokens:
            self.cache.popitem(last=False)
        return known

    def prefill(self, tokens: int, now: float) -> float:
        """When ``tokens`` more are computed, behind those that wait already."""
        self.idle_at = max(self.idle_at, now) + tokens / self.hardware.prefill_tokens_per_second
        return self.idle_at


@attrs.define
class _Job:
    """A conversation on its way; ``turns`` are those to come, the present one first."""

    turns: deque[Turn]
    sent_at: float
    engine: _Engine | None = None


class _Run:
    """The events of one run: a request is sent, an answer is complete."""

    def __init__(self, policy: RoutingPolicy, engines: Sequence[_Engine], guard: Guard) -> None:
        self.outcome = Outcome()
        self._policy = policy
        self._engines = {id(engine.candidate): engine for engine in engines}
        self._guard = guard
        self._waiting: deque[_Job] = deque()
        self._events: list[tuple[float, int, _Job]] = []
        self._order = itertools.count()

    def at(self, time: float, job: _Job) -> None:
        heapq.heappush(self._events, (time, next(self._order), job))

    def go(self) -> None:
        while self._events:
            now, _, job = heapq.heappop(self._events)
            if job.engine is None:
                self._waiting.append(job)
            else:
                self._answered(job, job.engine, now)
            while self._waiting and self._served(self._waiting[0], now):
                self._waiting.popleft()

    def _answered(self, job: _Job, engine: _Engine, now: float) -> None:
        engine.candidate.in_flight -= 1
        self._policy.closed(job.turns.popleft().request, engine.candidate)
        if job.turns:
            sent_at = now + job.turns[0].thinking_seconds
            self.at(sent_at, _Job(job.turns, sent_at))

    def _served(self, job: _Job, now: float) -> bool:
        turn = job.turns[0]
        candidates = [each.candidate for each in self._engines.values() if _has_room(each.candidate)]
        if not candidates:
            return False
        chosen = self._policy.choose(turn.request, candidates, now)
        self._note_load(chosen, candidates)
        chosen.in_flight += 1
        self._policy.opened(turn.request, chosen)
        job.engine = engine = self._engines[id(chosen)]
        cached = engine.cached(turn.blocks) * BLOCK_TOKENS
        tokens = len(turn.request.prompt) // TOKEN_BYTES
        first_token_at = engine.prefill(tokens - cached, now)
        self.at(first_token_at + turn.answer_tokens / engine.hardware.decode_tokens_per_second, job)
        self.outcome.prompt_tokens += tokens
        self.outcome.cached_tokens += cached
        self.outcome.first_token_seconds.append(first_token_at - job.sent_at)
        return True

    def _note_load(self, chosen: Candidate, candidates: Sequence[Candidate]) -> None:
        requests = chosen.in_flight + 1
        share = (sum(each.in_flight for each in candidates) + 1) / len(candidates)
        self.outcome.guard_exceeded += requests > self._guard.limit(share)
        if requests > self._guard.slack:
            self.outcome.greatest_load = max(self.outcome.greatest_load, requests / share)


def _has_room(candidate: Candidate) -> bool:
    return candidate.max_concurrency is None or candidate.in_flight < candidate.max_concurrency


def simulate(
    policy: RoutingPolicy,
    conversations: Sequence[Conversation],
    *,
    engines: int = 4,
    hardware: Hardware | None = None,
    guard: Guard | None = None,
) -> Outcome:
    """Send ``conversations`` through a new ``policy`` to ``engines`` engines that are idle and have cached nothing."""
    hardware = hardware or Hardware()
    fleet = [
        _Engine(hardware, Candidate(engine_id=f"engine-{n + 1}", max_concurrency=hardware.max_concurrency))
        for n in range(engines)
    ]
    run = _Run(policy, fleet, guard or Guard())
    for conversation in conversations:
        if conversation.turns:
            run.at(conversation.begins_at, _Job(deque(conversation.turns), conversation.begins_at))
    run.go()
    return run.outcome
