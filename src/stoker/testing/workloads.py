"""What clients send to the simulated fleet: four workloads that a routing policy may meet. Each is seeded."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence

from stoker.model import RouteRequest
from stoker.testing.simulation import Conversation, Turn

Message = Mapping[str, str]


def chats(seed: int = 1, *, conversations: int = 100, turns: int = 6) -> Sequence[Conversation]:
    """Chats of several turns, each of which sends all that was said before. All begin with the same instructions."""
    chance = random.Random(seed)  # noqa: S311 - as all in this module: it imitates clients
    system = _said("system", chance, 4_000)
    return [
        Conversation(begins_at, [*_chat(f"chat-{n}", system, turns, chance)])
        for n, begins_at in enumerate(_arrivals(chance, conversations, every_seconds=0.7))
    ]


def documents(seed: int = 2, *, questions: int = 500, documents: int = 12) -> Sequence[Conversation]:
    """Questions, each by another client, about one of a few long documents that is sent along with it."""
    chance = random.Random(seed)  # noqa: S311
    texts = [_said("user", chance, 48_000) for _ in range(documents)]
    return [
        _single(begins_at, f"reader-{n}", [chance.choice(texts), _said("user", chance, 300)])
        for n, begins_at in enumerate(_arrivals(chance, questions, every_seconds=0.3))
    ]


def strangers(seed: int = 3, *, requests: int = 500) -> Sequence[Conversation]:
    """Prompts that have nothing in common."""
    chance = random.Random(seed)  # noqa: S311
    return [
        _single(begins_at, f"stranger-{n}", [_said("user", chance, chance.randrange(1_000, 16_000))])
        for n, begins_at in enumerate(_arrivals(chance, requests, every_seconds=0.1))
    ]


def crowd(seed: int = 4, *, requests: int = 800) -> Sequence[Conversation]:
    """One session that sends four requests of five, with one long beginning: more than one engine can bear."""
    chance = random.Random(seed)  # noqa: S311
    beginning = _said("system", chance, 16_000)
    return [
        _single(begins_at, "crowd", [beginning, _said("user", chance, 500)])
        if chance.random() < 0.8
        else _single(begins_at, f"stranger-{n}", [_said("user", chance, 8_000)])
        for n, begins_at in enumerate(_arrivals(chance, requests, every_seconds=0.03))
    ]


def _chat(session: str, system: Message, turns: int, chance: random.Random) -> Iterator[Turn]:
    messages = [system]
    for _ in range(turns):
        messages.append(_said("user", chance, chance.randrange(200, 2_000)))
        yield _turn(session, messages, thinking_seconds=chance.uniform(2.0, 10.0))
        messages.append(_said("assistant", chance, 800))


def _single(begins_at: float, session: str, messages: Sequence[Message]) -> Conversation:
    return Conversation(begins_at, [_turn(session, messages)])


def _turn(session: str, messages: Sequence[Message], thinking_seconds: float = 0.0) -> Turn:
    prompt = json.dumps(messages).encode()
    request = RouteRequest(
        request_id=f"{session}/{len(messages)}",
        model="model",
        path="/v1/chat/completions",
        headers={"content-type": "application/json"},
        body=b'{"model": "model", "user": "%s", "messages": %s}' % (session.encode(), prompt),
        prompt=prompt,
        session=session,
    )
    return Turn(request=request, thinking_seconds=thinking_seconds)


def _said(role: str, chance: random.Random, size: int) -> Message:
    """A message of ``size`` letters that nobody else wrote."""
    return {"role": role, "content": chance.randbytes(size // 2).hex()}


def _arrivals(chance: random.Random, count: int, every_seconds: float) -> Iterator[float]:
    """Moments that know nothing of each other."""
    return itertools.accumulate(chance.expovariate(1 / every_seconds) for _ in range(count))
