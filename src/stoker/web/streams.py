"""Bodies that have no end of their own: the events of the fleet, and a log that is followed.

Each is a response body of Quart's kind: entered when the answer begins, left when it is over or its client has gone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from math import inf
from types import TracebackType

import attrs
import trio
from quart.wrappers.response import ResponseBody

from stoker.model import EngineInfo
from stoker.web.control import Change, Control
from stoker.web.wire import Wire

_COMMENT = b": still here\n\n"


@attrs.define(eq=False)
class OpenEnds:
    """The streams that wait for more, so that they can be told that there is no more."""

    _over: bool = False
    _waiting: set[trio.CancelScope] = attrs.field(factory=set)

    def end(self) -> None:
        """End all of them, now and from now on."""
        self._over = True
        for scope in self._waiting:
            scope.cancel()

    async def next(self, wait: Callable[[], Awaitable[bytes]], seconds: float = inf) -> bytes | None:
        """What ``wait`` returns, or None if it took longer than ``seconds``.

        Raises StopAsyncIteration once :meth:`end` was called.
        """
        with trio.CancelScope(deadline=trio.current_time() + seconds) as scope:
            self._waiting.add(scope)
            try:
                if not self._over:
                    return await wait()
            finally:
                self._waiting.discard(scope)
        if self._over:
            raise StopAsyncIteration
        return None


class EventStream(ResponseBody):
    """Server-sent events: one ``snapshot`` of all engines, then one ``engine`` for every change.

    It ends when ``ends`` says so, or its reader is too slow to be told everything; a client then connects again and
    gets a snapshot again. While nothing happens, a comment keeps the connection from looking dead. Its reader hears of
    the engines that it ``may_know`` alone.
    """

    def __init__(
        self,
        control: Control,
        wire: Wire,
        ends: OpenEnds,
        keep_alive_seconds: float,
        may_know: Callable[[EngineInfo], bool],
    ) -> None:
        self._control = control
        self._may_know = may_know
        self._wire = wire
        self._ends = ends
        self._keep_alive_seconds = keep_alive_seconds
        self._subscription: AbstractContextManager[trio.MemoryReceiveChannel[Change]]
        self._changes: trio.MemoryReceiveChannel[Change]
        self._snapshot: bytes | None

    async def __aenter__(self) -> AsyncIterator[bytes]:
        # No checkpoint between the subscription and the snapshot, so that no change is lost between them or told twice.
        self._subscription = self._control.subscribe()
        self._changes = self._subscription.__enter__()
        self._snapshot = self._event("snapshot", {"engines": [*filter(self._may_know, self._control.infos())]})
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._subscription.__exit__(kind, error, traceback)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._snapshot is not None:
            first, self._snapshot = self._snapshot, None
            return first
        return await self._ends.next(self._next_change, self._keep_alive_seconds) or _COMMENT

    async def _next_change(self) -> bytes:
        while True:
            try:
                change = await self._changes.receive()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
            before, after = change.before, change.after
            engine = after or before
            if engine is not None and self._may_know(engine):
                states = {"before": before and before.state, "after": after and after.state}
                return self._event("engine", {**states, "engine": engine})

    def _event(self, name: str, data: Mapping[str, object]) -> bytes:
        return b"event: %b\ndata: %b\n\n" % (name.encode(), self._wire.encode(data))


class LogStream(ResponseBody):
    """The chunks of a log that is followed, until ``ends`` says so. ``chunks`` is closed in the end if it can be."""

    def __init__(self, chunks: AsyncIterator[bytes], ends: OpenEnds) -> None:
        self._chunks = chunks
        self._ends = ends

    async def __aenter__(self) -> AsyncIterator[bytes]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        return await self._ends.next(self._chunks.__anext__) or b""
