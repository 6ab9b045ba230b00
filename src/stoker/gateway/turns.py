"""One after the other: the requests of one conversation, in the order they came."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import attrs
import trio

from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error, shown

Release = Callable[[], None]


@attrs.define(eq=False)
class _Line:
    """Those of one conversation: the one whose turn it is, and ``waiting`` others."""

    lock: trio.Lock = attrs.field(factory=trio.Lock)
    waiting: int = 0


class Turns:
    """Whose turn it is, by conversation. ``queue_size`` may wait in all, each for ``queue_seconds``."""

    def __init__(self, queue_size: int, queue_seconds: float) -> None:
        self._queue_size = queue_size
        self._queue_seconds = queue_seconds
        self._waiting = 0
        self._lines: dict[str, _Line] = {}

    async def take(self, session_id: str) -> Release | Answer:
        """Return when it is this request's turn, with what ends it, which its own task has to call; or an error.

        First come, first served. One that is cancelled leaves its place to the next.
        """
        line = self._lines.setdefault(session_id, _Line())
        if line.lock.locked() and self._waiting >= self._queue_size:
            message = f"the session {shown(session_id)} is being answered, and too many requests wait; try again"
            return error(Code.QUEUE_FULL, message)
        line.waiting += 1
        self._waiting += 1
        try:
            with suppress(trio.TooSlowError), trio.fail_after(self._queue_seconds):
                await line.lock.acquire()
                return partial(self._release, session_id, line)
        finally:
            line.waiting -= 1
            self._waiting -= 1
            self._forget(session_id, line)
        message = (
            f"the session {shown(session_id)} was being answered for {self._queue_seconds:g} seconds, and its requests "
            "are answered one after the other; try again, or raise queue_seconds"
        )
        return error(Code.QUEUE_TIMEOUT, message)

    def _release(self, session_id: str, line: _Line) -> None:
        line.lock.release()
        self._forget(session_id, line)

    def _forget(self, session_id: str, line: _Line) -> None:
        if not line.lock.locked() and not line.waiting and self._lines.get(session_id) is line:
            del self._lines[session_id]
