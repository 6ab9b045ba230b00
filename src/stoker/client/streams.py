"""What a call with ``stream=True`` returns: an iterator that is also a context manager."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import httpx2

from stoker.client.asking import Streaming
from stoker.client.awaiting import AsyncEvents
from stoker.client.blocking import Events
from stoker.client.records import InferenceResult, StreamChunk
from stoker.client.steps import Broken

P = TypeVar("P")
Pick = Callable[[StreamChunk], P | None]


def text_of(chunk: StreamChunk) -> str | None:
    """The piece of text in a chunk, None where there is none."""
    return chunk.content or None


def all_of(chunk: StreamChunk) -> StreamChunk:
    """The chunk."""
    return chunk


class _Reading(Generic[P]):
    """What both sorts of streams have in common: all but the waiting."""

    def __init__(self, streaming: Streaming, pick: Pick[P], clock: Callable[[], float], owner: object) -> None:
        self._transcript = streaming.transcript
        self._pick = pick
        self._clock = clock
        self._began_at = streaming.began_at
        self._ended_at: float | None = None
        self._first: str | None = streaming.opened.first
        self._fresh = True
        self._owner = owner  # a client that nobody holds any more closes its connections

    @property
    def engine(self) -> str | None:
        """The id of the engine that answers, None where nobody says."""
        return self._transcript.engine

    @property
    def result(self) -> InferenceResult[str]:
        """The whole answer, with its usage where the engine told it. Raises RuntimeError until it is there."""
        if self._ended_at is None:
            raise RuntimeError("the stream is not at its end yet; read it to the end first")
        return self._transcript.result(self._ended_at - self._began_at)

    def _begun(self) -> httpx2.ServerSentEvent | None:
        """The event that came when the stream was opened."""
        self._fresh = False
        return None if self._first is None else httpx2.ServerSentEvent(data=self._first)

    def _take(self, event: httpx2.ServerSentEvent | Broken | None) -> StreamChunk | None:
        """The next chunk; None at the end of the answer. Raises what an end before that means."""
        if isinstance(event, Broken):
            raise self._transcript.broke(event)
        chunk = self._transcript.take(None if event is None else event.data)
        if chunk is None:
            self._ended_at = self._clock()
        return chunk


class TextStream(_Reading[P]):
    """The pieces of an answer as they come: texts, or with ``return_result=True`` :class:`StreamChunk`.

    Iterating raises StreamInterrupted where the answer is cut off, and Timeout where no next piece comes in time.
    Closing it, or letting go of it, ends the engine's work; a ``with`` statement closes it.
    """

    def __init__(self, streaming: Streaming, pick: Pick[P], clock: Callable[[], float], owner: object) -> None:
        super().__init__(streaming, pick, clock, owner)
        self._handle: Events = streaming.opened.handle
        self._finalizer = weakref.finalize(self, _end, self._handle, streaming.release)

    def close(self) -> None:
        """End it. May be done again."""
        self._finalizer()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> P:
        while self._finalizer.alive:
            try:
                chunk = self._take(self._begun() if self._fresh else self._handle.next())
                if chunk is None:
                    self._handle.next()  # the end itself: then the connection can be used again
            except BaseException:
                self.close()
                raise
            if chunk is None:
                self.close()
            elif (piece := self._pick(chunk)) is not None:
                return piece
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncTextStream(_Reading[P]):
    """The pieces of an answer as they come, as :class:`TextStream` has them, for ``async for``.

    A cancellation while it waits for a piece closes it. So does leaving ``async with``; without one, call
    :meth:`aclose` when you leave it before its end.
    """

    def __init__(self, streaming: Streaming, pick: Pick[P], clock: Callable[[], float], owner: object) -> None:
        super().__init__(streaming, pick, clock, owner)
        self._handle: AsyncEvents = streaming.opened.handle
        self._finalizer = weakref.finalize(self, streaming.release)

    async def aclose(self) -> None:
        """End it. May be done again, and is done even if it is cancelled."""
        self._finalizer()
        await self._handle.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> P:
        while self._finalizer.alive:
            try:
                chunk = self._take(self._begun() if self._fresh else await self._handle.next())
                if chunk is None:
                    await self._handle.next()  # the end itself: then the connection can be used again
            except BaseException:
                await self.aclose()
                raise
            if chunk is None:
                await self.aclose()
            elif (piece := self._pick(chunk)) is not None:
                return piece
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def _end(handle: Events, release: Callable[[], None]) -> None:
    try:
        handle.close()
    finally:
        release()
