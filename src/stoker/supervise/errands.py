"""Errands: work at an engine that is done one at a time, and to its end once it has begun."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

import attrs
import trio

from stoker.errors import ConflictError

log = logging.getLogger("stoker.supervise")


@attrs.define(eq=False)
class _Outcome:
    error: Exception | None = None
    known: trio.Event = attrs.field(factory=trio.Event)
    awaited: bool = True


@attrs.define(eq=False)
class Errands:
    """The errands to one engine.

    An engine doesn't notice that nobody waits for it any more: a call that is cancelled leaves open what became of it.
    So an errand is a task of its own, which outlives whoever asked for it.
    """

    _turn: trio.Semaphore = attrs.field(factory=lambda: trio.Semaphore(1, max_value=1))  # unlike a lock, nobody's own

    async def run(self, nursery: trio.Nursery, work: Callable[[], Awaitable[None]]) -> None:
        """Do ``work`` in ``nursery`` when it is its turn, and raise what it raises.

        Cancelled before its turn it is not done; later it is all the same, and what it raises is logged.
        """
        await self._turn.acquire()
        outcome = _Outcome()
        nursery.start_soon(self._see_through, work, outcome)
        try:
            await outcome.known.wait()
        finally:
            outcome.awaited = False
        if outcome.error is not None:
            raise outcome.error

    async def _see_through(self, work: Callable[[], Awaitable[None]], outcome: _Outcome) -> None:
        try:
            await work()
        except trio.Cancelled:
            outcome.error = ConflictError("Stoker is shutting down")
            raise
        except Exception as error:  # noqa: BLE001 - it is for whoever asked, as if he had done it himself
            outcome.error = error
            if not outcome.awaited:
                log.warning("nobody waits any more to hear that: %s", error)
        finally:
            self._turn.release()
            outcome.known.set()
