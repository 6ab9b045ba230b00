"""Tells plugins what happened: each on a thread of its own, so that none can hold up requests, engines or others."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

import attrs
import trio

from stoker.model import NOTHING, EngineInfo, RequestRecord

log = logging.getLogger("stoker.plugins")

MOST_QUEUED = 1024
PATIENCE_SECONDS = 2.0


class Observer(Protocol):
    """A plugin's implementation of one of the hooks that observe."""

    @property
    def plugin(self) -> str:
        """The plugin's name."""
        ...

    def __call__(self, **arguments: object) -> Any:
        """Tell it. It may take its time, and may raise anything."""
        ...


class Listener:
    """The observers of one plugin, their thread, and what it has still to tell them.

    The thread is a daemon, and none of Trio's: one that hangs in a stranger's code can neither keep Stoker from ending
    nor take a place among the threads that Stoker needs. ``dropped`` and ``failures`` count. ``last`` are told, of
    nothing, when all else was.
    """

    def __init__(self, plugin: str, most_queued: int = MOST_QUEUED, last: Sequence[Observer] = ()) -> None:
        self.plugin = plugin
        self.dropped = 0
        self.failures = 0
        self._queue: queue.Queue[tuple[Observer, Mapping[str, object]] | None] = queue.Queue(most_queued)
        self._last = last
        self._closing = False
        self._complained: set[Observer] = set()
        self._thread = threading.Thread(target=self._run, name=f"observer {plugin}", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def tell(self, observer: Observer, **arguments: object) -> None:
        """Queue something to be told. Never waits; where the queue is full it is dropped, and counted."""
        try:
            self._queue.put_nowait((observer, arguments))
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Let the thread end when it has told what is queued."""
        self._closing = True
        with contextlib.suppress(queue.Full):  # then it has enough to do, and looks at ``_closing`` afterwards
            self._queue.put_nowait(None)

    def join(self, seconds: float) -> bool:
        """Wait for the thread, ``seconds`` at most. Blocks. Whether it ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not (self._closing and self._queue.empty()):
            item = self._queue.get()
            if item is not None:
                self._call(*item)
        for observer in self._last:
            self._call(observer, NOTHING)

    def _call(self, observer: Observer, arguments: Mapping[str, object]) -> None:
        try:
            observer(**arguments)
        except BaseException:  # the plugin boundary: contained, named, counted; SystemExit is the plugin's own affair
            self.failures += 1
            if observer not in self._complained:
                self._complained.add(observer)
                message = "an observer of the plugin %r failed; it is told on, and this is not said again"
                log.exception(message, self.plugin)


@attrs.define(eq=False)
class Observers:
    """All observers.

    ``engines`` hear of changes of engines, ``requests`` of requests that are over, ``endings`` of the end.
    """

    engines: Sequence[Observer] = ()
    requests: Sequence[Observer] = ()
    endings: Sequence[Observer] = ()
    _listeners: dict[str, Listener] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for plugin in dict.fromkeys(each.plugin for each in (*self.engines, *self.requests, *self.endings)):
            last = [each for each in self.endings if each.plugin == plugin]
            self._listeners[plugin] = Listener(plugin, last=last)

    @property
    def listeners(self) -> Sequence[Listener]:
        """One for each plugin that observes anything."""
        return tuple(self._listeners.values())

    def engine_changed(self, before: EngineInfo | None, after: EngineInfo | None) -> None:
        """An engine changed. Returns at once."""
        for observer in self.engines:
            self._listeners[observer.plugin].tell(observer, before=before, after=after)

    def request_finished(self, record: RequestRecord) -> None:
        """A request is over. Returns at once."""
        for observer in self.requests:
            self._listeners[observer.plugin].tell(observer, record=record)

    @contextlib.asynccontextmanager
    async def told(self, patience_seconds: float = PATIENCE_SECONDS) -> AsyncIterator[None]:
        """Tell them for as long as the block lasts.

        In the end they are given ``patience_seconds`` together for what is queued, also if the block is cancelled. Who
        needs longer is left behind, and named.
        """
        for listener in self.listeners:
            listener.start()
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(self._end, patience_seconds)

    def _end(self, patience_seconds: float) -> None:
        for listener in self.listeners:
            listener.close()
        deadline = time.monotonic() + patience_seconds
        for listener in self.listeners:
            if not listener.join(max(0.0, deadline - time.monotonic())):
                log.warning("the plugin %r still observes what happened, and is not waited for", listener.plugin)
