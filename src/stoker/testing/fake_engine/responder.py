"""How the fake engine answers an inference request, and how it goes wrong."""

from __future__ import annotations

import os
import signal
import zlib
from collections.abc import Mapping
from typing import Any

import attrs
import trio

from stoker.testing.fake_engine import openai
from stoker.testing.fake_engine.faults import Faults
from stoker.testing.fake_engine.http import Connection, Request
from stoker.testing.fake_engine.tended import Tended

BOMB_PIECE = 1024 * 1024
SSE = ("content-type", "text/event-stream; charset=utf-8")


@attrs.define(kw_only=True)
class Counts:
    """What has happened so far."""

    requests: int = 0
    active: int = 0
    answered: int = 0
    cancelled: int = 0
    sigterms: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0


def _bomb(size: int) -> bytes:
    """So many zeros, compressed, a piece at a time."""
    packer = zlib.compressobj(wbits=31)
    piece = bytes(BOMB_PIECE)
    parts = [packer.compress(piece[: min(BOMB_PIECE, size - made)]) for made in range(0, size, BOMB_PIECE)]
    return b"".join([*parts, packer.flush()])


class Responder:
    """Answers for a model called ``names``, and for its adapters, and counts what it does."""

    def __init__(self, names: tuple[str, ...], counts: Counts, tended: Tended) -> None:
        self._names = names
        self._tended = tended
        self.counts = counts

    async def respond(self, connection: Connection, request: Request, faults: Faults) -> None:
        """Answer ``request`` as well as ``faults`` let it. Cancelled when its client leaves."""
        await self._tended.until_awake()
        if faults.hang:
            await trio.sleep_forever()
        await trio.sleep(faults.first_token_seconds)
        if faults.reset:
            await connection.reset()
        elif faults.garbage:
            await connection.raw(b"\x00\x01\x02 this is not HTTP\r\n\r\n")
        elif faults.informational:
            await connection.repeat(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n")
        elif faults.bomb_bytes is not None:
            bomb = await trio.to_thread.run_sync(_bomb, faults.bomb_bytes)
            await connection.answer(200, bomb, [("content-encoding", "gzip")])
            self.counts.answered += 1
        elif faults.status is not None:
            after = faults.retry_after_seconds
            headers = [] if after is None else [("retry-after", str(after))]
            await connection.answer(
                faults.status, openai.error(faults.status, "told to fail", "InternalServerError"), headers
            )
            self.counts.answered += 1
        else:
            await self._respond_well(connection, request, faults)

    async def _respond_well(self, connection: Connection, request: Request, faults: Faults) -> None:
        headers = [("x-filler", "x" * faults.head_bytes)] if faults.head_bytes else []
        try:
            content = self._read(request)
        except openai.Refused as refused:
            problem = openai.error(refused.status, str(refused), refused.type, refused.param)
            await connection.answer(refused.status, problem)
            self.counts.answered += 1
            return
        if isinstance(content, openai.Generation):
            self.counts.prompt_tokens += content.prompt_tokens
            if content.stream:
                await connection.head(200, [SSE, *headers])
                await self._stream(connection, content, faults)
                return
            for _ in content.tokens:
                await trio.sleep(faults.token_seconds)
                self.counts.generated_tokens += 1
            content = content.answer()
        if faults.half_answer:
            await connection.half_answer(200, content, headers)
            return
        await connection.answer(200, content, headers)
        self.counts.answered += 1

    def _read(self, request: Request) -> openai.Generation | Mapping[str, Any]:
        """What is asked for: a generation, or embeddings at once."""
        names = (*self._names, *self._tended.adapters)
        asked = openai.read_object(request.body, names)
        if request.path == openai.EMBEDDINGS:
            return openai.embed(asked, names)
        return openai.read_generation(request.path, asked, names)

    async def _stream(self, connection: Connection, generation: openai.Generation, faults: Faults) -> None:
        for number, event in enumerate(generation.events()):
            if number:
                await trio.sleep(faults.token_seconds)
            if await self._strike(connection, number, event, faults):
                return
            await connection.piece(event)
            self.counts.generated_tokens += 1
        await self._finish(connection)

    async def _strike(self, connection: Connection, sent: int, event: bytes, faults: Faults) -> bool:
        """Do what ``faults`` want after ``sent`` events, before ``event``; whether the stream is over."""
        if faults.die_after_chunks == sent:
            os.kill(os.getpid(), signal.SIGKILL)
        elif faults.exit_after_chunks == sent:
            os._exit(0)
        elif faults.stall_after_chunks == sent:
            await trio.sleep_forever()
        elif faults.reset_after_chunks == sent:
            await connection.reset()
        elif faults.cut_after_chunks == sent:
            await connection.piece(event[: len(event) // 2])
            await connection.close()
        elif faults.end_after_chunks == sent:
            await connection.end()
        elif faults.error_after_chunks == sent:
            problem = openai.error(500, "EngineCore encountered an issue.", "InternalServerError")
            await connection.piece(openai.event(problem))
            await self._finish(connection)
        else:
            return False
        return True

    async def _finish(self, connection: Connection) -> None:
        await connection.piece(openai.DONE)
        await connection.end()
        self.counts.answered += 1
