"""Asks a model, and says what it answers while it comes. Ctrl-C ends the answer, and the engine's work on it."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import trio

from stoker.cli.chatting.conversation import Ending, Message
from stoker.cli.chatting.plain_text import sound
from stoker.client import AsyncUnifiedInferenceClient, ClientError, StreamChunk
from stoker.errors import StokerError


@attrs.frozen(kw_only=True)
class Asked:
    """A question as it is sent, to ``model`` at the gateway's ``url``. ``fields`` are more members of the body."""

    url: str
    key: str | None = attrs.field(repr=False)
    model: str
    messages: Sequence[Message]
    fields: Mapping[str, Any]


@attrs.define(kw_only=True)
class Heard:
    """What came of it. ``error`` says why it ended where nobody stopped it."""

    text: str = ""
    ending: Ending = Ending.BROKEN
    error: StokerError | None = None
    engine: str | None = None
    tokens: int | None = None
    finish_reason: str | None = None
    first_seconds: float | None = None
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float | None:
        """After the first; None where there are too few to tell."""
        if self.tokens is None or self.tokens < 2 or self.first_seconds is None:
            return None
        took = self.seconds - self.first_seconds
        return (self.tokens - 1) / took if took > 0 else None


Say = Callable[[str], None]


def hear(asked: Asked, say: Say, think: Say, clock: Callable[[], float] = time.monotonic) -> Heard:
    """The answer, said by ``say`` piece by piece; ``think`` is given what a model thinks before it.

    Raises what ``say`` and ``think`` raise. Whatever else goes wrong is in what this returns. Must run in the main
    thread, which is the one that signals come to.
    """
    heard = Heard()
    ear = _Ear(heard, say, think, clock, clock())
    try:
        trio.run(ear.listen, asked)
    except KeyboardInterrupt:  # before there was anybody to take it, or when there no longer was
        if heard.ending is Ending.BROKEN and heard.error is None:
            heard.ending = Ending.STOPPED
    if ear.failure is not None:
        raise ear.failure
    return heard


@attrs.define
class _Ear:
    heard: Heard
    say: Say
    think: Say
    clock: Callable[[], float]
    began_at: float
    failure: OSError | None = None

    async def listen(self, asked: Asked) -> None:
        with trio.open_signal_receiver(signal.SIGINT) as signals:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._until_interrupted, signals, nursery.cancel_scope)
                try:
                    await self._ask(asked)
                    self.heard.ending = Ending.WHOLE
                except ClientError as error:
                    if self.heard.ending is Ending.BROKEN:
                        self.heard.error = error
                    self.heard.engine = self.heard.engine or error.engine
                except OSError as error:  # where it is said, not where it comes from: a pipe that nobody reads
                    self.failure = error
                self.heard.seconds = self.clock() - self.began_at
                nursery.cancel_scope.cancel()

    async def _until_interrupted(self, signals: Any, scope: trio.CancelScope) -> None:
        async for _ in signals:
            if self.heard.ending is Ending.BROKEN and self.heard.error is None:
                self.heard.ending = Ending.STOPPED
                self.heard.seconds = self.clock() - self.began_at
            scope.cancel()

    async def _ask(self, asked: Asked) -> None:
        async with AsyncUnifiedInferenceClient.create(asked.url, api_key=asked.key) as client:
            stream = await client.chat(
                asked.messages, model=asked.model, stream=True, return_result=True, **asked.fields
            )
            self.heard.engine = stream.engine
            async with stream:
                async for chunk in stream:
                    self._take(chunk)

    def _take(self, chunk: StreamChunk) -> None:
        heard = self.heard
        if thought := thought_in(chunk):
            self._first()
            self.think(thought)
        if chunk.content:
            self._first()
            heard.text += sound(chunk.content)
            self.say(chunk.content)
        if chunk.usage is not None:
            heard.tokens = chunk.usage.completion_tokens
        heard.finish_reason = chunk.finish_reason or heard.finish_reason

    def _first(self) -> None:
        if self.heard.first_seconds is None:
            self.heard.first_seconds = self.clock() - self.began_at


def thought_in(chunk: StreamChunk) -> str:
    """What a model thinks, under either of the names that engines give it."""
    choices = chunk.raw.get("choices")
    delta = choices[0].get("delta") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    if not isinstance(delta, dict):
        return ""
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    return thought if isinstance(thought, str) else ""
