"""Listens to the gateway's events, so that a client knows at once when an engine comes, fails or goes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import httpx2

from stoker.client.asking import Asking
from stoker.client.awaiting import AsyncEvents, AsyncShell
from stoker.client.errors import ClientError
from stoker.client.steps import Steps
from stoker.client.wire import Doors, is_stream, parts_of

SILENCE_SECONDS = 60.0  # the gateway says every few seconds that it is still there
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 2.0

Run = Callable[[Steps[None]], Awaitable[None]]


async def watch(http: httpx2.AsyncClient, asking: Asking, run: Run) -> None:
    """Keep the directory of ``asking`` up to date, until this is cancelled. ``run`` carries calls out.

    Where events can't be had (any more), it is tried again, and meanwhile the directory says that nobody watches.
    """
    discovery = asking.discovery
    assert discovery is not None
    pause = _FIRST_PAUSE_SECONDS
    while True:
        try:
            request = http.build_request(**parts_of(asking.manage("GET", "/events"), SILENCE_SECONDS))
            async with _opened(http, request) as response:
                if is_stream(response):
                    pause = _FIRST_PAUSE_SECONDS
                    await _follow(response, asking, run)
        except (httpx2.HTTPError, ClientError):
            pass  # the gateway stops, restarts, or wants another key: whoever asks it something is told
        finally:
            discovery.unwatched()
        await anyio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def _follow(response: httpx2.Response, asking: Asking, run: Run) -> None:
    discovery = asking.discovery
    assert discovery is not None
    events = AsyncEvents(response)
    try:
        while isinstance(event := await events.next(), httpx2.ServerSentEvent):
            if discovery.told(event.event, event.data):
                await run(asking.refresh())
                discovery.watched()
    finally:
        await events.close()


@contextlib.asynccontextmanager
async def _opened(http: httpx2.AsyncClient, request: httpx2.Request) -> AsyncIterator[httpx2.Response]:
    response = await http.send(request, stream=True)
    try:
        yield response
    finally:
        with anyio.CancelScope(shield=True):
            await response.aclose()


class WatcherThread:
    """Watches in a thread of its own, for callers that have no event loop."""

    def __init__(self, doors: Doors, asking: Asking) -> None:
        self._doors = doors
        self._asking = asking
        self._running = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._scope: anyio.CancelScope
        # A daemon, for otherwise the interpreter would wait for it before anybody could tell it to end.
        self._thread = threading.Thread(target=asyncio.run, args=(self._main(),), name="stoker-client", daemon=True)
        self._thread.start()
        self._running.wait()

    def close(self) -> None:
        """End it, and wait until it has ended. (A garbage collection may do this in the thread itself.)"""
        with contextlib.suppress(RuntimeError):  # it has ended already
            self._loop.call_soon_threadsafe(self._scope.cancel)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    async def _main(self) -> None:
        shell = AsyncShell(self._doors)
        try:
            with anyio.CancelScope() as self._scope:
                self._loop = asyncio.get_running_loop()
                self._running.set()
                await watch(shell.gateway, self._asking, shell.run)
        finally:
            self._running.set()
            await shell.aclose()
