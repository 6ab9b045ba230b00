"""Many clients at once, who hold each answer to what they asked for: whole, or told to be broken, and never cut."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import attrs
import trio

from tests.e2e.running import HANG_GUARD_SECONDS, Program

from .fleet import CHAT, question

WHOLE, BROKEN = "whole", "ended by an error event"
ANSWERED = "answered without a stream"
LOST = "refused with 502"
STREAMED = 0.8  # of the requests
LAST_CHUNK = b"0\r\n\r\n"


@attrs.define(eq=False)
class Crowd:
    """Clients of one gateway, each of which asks for one stream after the other for as long as :meth:`ask_on` runs.

    ``outcomes`` counts how the streams ended: whole, ended by an error event, or refused with a status. One in
    five requests wants no stream, and a tenth as much: it is answered, or refused. Anything else fails the test.
    """

    url: str
    chance: random.Random
    outcomes: Counter[str] = attrs.field(factory=Counter)
    tokens: int = 0
    _asked: int = 0

    async def ask_on(self, clients: int, seconds: float, most_tokens: int) -> None:
        """``clients`` ask on for ``seconds``, and hear out what they asked for last."""
        end = trio.current_time() + seconds
        async with trio.open_nursery() as nursery:
            for _ in range(clients):
                nursery.start_soon(self._ask_until, end, most_tokens)

    @classmethod
    def of(cls, program: Program, seed: int = 0) -> Crowd:
        """Clients of this gateway."""
        return cls(program.url, random.Random(seed))

    @asynccontextmanager
    async def asking(self, count: int) -> AsyncIterator[None]:
        """Ask for ``count`` streams when the block begins; all of them have ended when it is left."""
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(self._ask, 4)
            yield

    async def until_waiting(self, program: Program, count: int) -> None:
        """Wait until so many requests wait for an engine."""
        with trio.fail_after(HANG_GUARD_SECONDS):
            while await trio.to_thread.run_sync(_waiting, program) != count:
                await trio.sleep(0.02)

    async def _ask_until(self, end: float, most_tokens: int) -> None:
        while trio.current_time() < end:
            stream = self.chance.random() < STREAMED
            # One that took longer than engines live would see three of them end, and be given up.
            await self._ask(self.chance.randint(1, most_tokens if stream else most_tokens // 10), stream=stream)

    async def _ask(self, tokens: int, *, stream: bool = True) -> None:
        self._asked += 1
        words = f"request{self._asked}"
        body = json.dumps(question(words, stream=stream, max_tokens=tokens)).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        address = urlsplit(self.url)
        with trio.fail_after(HANG_GUARD_SECONDS):
            async with await trio.open_tcp_stream(str(address.hostname), address.port or 0) as connection:
                await connection.send_all(head.encode() + body)
                answer = await _all_of_it(connection)
        outcome = judge(answer, words, tokens) if stream else judge_whole(answer, words, tokens)
        self.outcomes[outcome] += 1
        self.tokens += tokens * (outcome == WHOLE)


def _waiting(program: Program) -> int:
    return int(program.manage("GET", "/status").json()["queue"]["waiting"])


async def _all_of_it(stream: trio.SocketStream) -> bytes:
    """An answer, to the end that its head announces, or to the end of the connection."""
    answer = bytearray()
    left: int | None = None
    while left is None or len(answer) < left:
        try:
            piece = await stream.receive_some(65536)
        except trio.BrokenResourceError:
            break
        if not piece:
            break
        answer += piece
        if left is None and (length := _length(answer)) is not None:
            left = length
        if answer.endswith(LAST_CHUNK) and left is None:
            break
    return bytes(answer)


def _length(answer: bytes | bytearray) -> int | None:
    head, found, _ = bytes(answer).partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n") if found else []:
        if line.startswith(b"content-length:"):
            return len(head) + 4 + int(line.partition(b":")[2])
    return None


def judge(answer: bytes, words: str, tokens: int) -> str:
    """How a stream of so many ``tokens``, each of them ``words``, ended. Raises AssertionError for a silent cut."""
    status, body = _split(answer)
    if status != 200:
        return _refused(status, body)
    is_whole, events = _events(body)
    choices = [event["choices"][0] for event in events if isinstance(event, dict) and "choices" in event]
    said = [choice["delta"].get("content") for choice in choices]
    heard = [piece.strip() for piece in said if piece]
    assert heard == [words] * len(heard), f"{words} got somebody else's words: {heard}"
    last = events[-1] if events else None
    if isinstance(last, dict) and "error" in last:
        assert not is_whole, "an error event, and then a proper end"
        return BROKEN
    assert last == "[DONE]", f"cut silently after {len(heard)} of {tokens} tokens: {body[-200:]!r}"
    assert is_whole, "[DONE], but no proper end"
    assert len(heard) == tokens, f"[DONE] after {len(heard)} of {tokens} tokens"
    return WHOLE


def judge_whole(answer: bytes, words: str, tokens: int) -> str:
    """How a request that wanted no stream was answered. Raises AssertionError for half an answer."""
    status, body = _split(answer)
    if status != 200:
        return _refused(status, body)
    [choice] = json.loads(body)["choices"]
    assert choice["message"]["content"].split() == [words] * tokens
    return ANSWERED


def _split(answer: bytes) -> tuple[int, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    assert status, f"no answer, but {answer!r}"
    return int(status[0]), body


def _refused(status: int, body: bytes) -> str:
    error = json.loads(body)["error"]
    assert error["message"]
    assert status != 502 or error["code"] == "engine_failed", error
    return f"refused with {status}"


def _events(body: bytes) -> tuple[bool, list[Any]]:
    """Whether a body in chunks is whole, and its events: objects, or ``[DONE]``."""
    text = b""
    is_whole = False
    while body and not is_whole:
        size, _, body = body.partition(b"\r\n")
        length = int(size, 16)
        assert len(body) >= length + 2, f"cut within a chunk: {body[-200:]!r}"
        text += body[:length]
        body = body[length + 2 :]
        is_whole = not length
    lines = [line.removeprefix(b"data: ") for line in text.split(b"\n\n") if line]
    return is_whole, ["[DONE]" if line == b"[DONE]" else json.loads(line) for line in lines]
