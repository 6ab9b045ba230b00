"""Tells whoever listens what changed in the fleet."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import attrs
import trio

from stoker.core.engine import Engine
from stoker.model import EngineInfo, EngineState

log = logging.getLogger("stoker.engine")

SUBSCRIBER_BACKLOG = 256


@attrs.frozen
class Change:
    """One change of one engine: as it was, as it is (None: new, or forgotten), and when (Unix time)."""

    before: EngineInfo | None
    after: EngineInfo | None
    at: float


@attrs.define(eq=False)
class Bulletin:
    """Hands each change to every subscriber; never waits for one."""

    _subscribers: list[trio.MemorySendChannel[Change]] = attrs.field(factory=list)

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[trio.MemoryReceiveChannel[Change]]:
        """Every change from now on. A reader that falls behind by 256 changes finds its channel closed."""
        send, receive = trio.open_memory_channel[Change](SUBSCRIBER_BACKLOG)
        self._subscribers.append(send)
        try:
            yield receive
        finally:
            send.close()
            receive.close()
            if send in self._subscribers:
                self._subscribers.remove(send)

    def publish(self, change: Change) -> None:
        """Tell them now."""
        for subscriber in list(self._subscribers):
            try:
                subscriber.send_nowait(change)
            except trio.WouldBlock:  # it does not read: closed, it can tell that it missed something
                subscriber.close()
                self._subscribers.remove(subscriber)


def is_visible(before: Engine | None, after: Engine | None) -> bool:
    """Whether anything changed that somebody would want to hear of: a heartbeat is not, nor is a name that is held."""
    if before is None or after is None:
        return True
    return _visible(before) != _visible(after)


def _visible(engine: Engine) -> Engine:
    endpoint = attrs.evolve(engine.endpoint, held=()) if engine.endpoint.held else engine.endpoint
    return attrs.evolve(engine, last_heartbeat=None, endpoint=endpoint)


def log_change(before: Engine | None, after: Engine | None) -> None:
    """One line for each change of state."""
    if after is None:
        if before is not None:
            log.info("%s forgotten", before.engine_id, extra={"engine": before.engine_id})
        return
    if before is not None and before.state is after.state:
        return
    reason = "" if after.reason.upper() == after.state else after.reason
    words = [reason, f"pid {after.endpoint.pid}" if after.endpoint.pid else ""]
    detail = f" ({', '.join(filter(None, words))})" if any(words) else ""
    about = {"engine": after.engine_id, "state": str(after.state)}
    if after.state is EngineState.ERROR:
        log.error("%s %s%s: %s", after.engine_id, after.state, detail, after.last_error, extra=about)
    else:
        log.info("%s %s%s", after.engine_id, after.state, detail, extra=about)
