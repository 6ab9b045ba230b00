"""Calls of the ASGI application, and what its server has to tell each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.typing import AppWrapper, ASGIReceiveEvent, ASGISendEvent, Scope

Send = Callable[[ASGISendEvent | None], Awaitable[None]]


class Inbox:
    """The messages for one call. A goodbye never has to wait for room, and nobody waits for a call that has ended."""

    def __init__(self, size: int) -> None:
        self._put, self._get = trio.open_memory_channel[ASGIReceiveEvent](size)
        self._goodbye: ASGIReceiveEvent = {"type": "http.disconnect"}

    async def put(self, event: ASGIReceiveEvent) -> None:
        """Leave a message; waits while the call has not taken enough of those before."""
        if event["type"] in ("http.disconnect", "websocket.disconnect"):
            self._goodbye = event
            self._put.close()
            return
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._put.send(event)

    async def receive(self) -> ASGIReceiveEvent:
        """Take the next message; after the goodbye, that again."""
        try:
            return await self._get.receive()
        except trio.EndOfChannel:
            return self._goodbye

    def close(self) -> None:
        """The call has ended."""
        self._get.close()
        self._put.close()


class Calls:
    """What Hypercorn's protocols run the application in: the interface is that of its ``TaskGroup``.

    ``contain`` is given what a call raises, other than its cancellation; ``ended`` is called after every call, with the
    function by which it sent.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        contain: Callable[[BaseException], None],
        ended: Callable[[Send], Awaitable[None]],
    ) -> None:
        self._nursery = nursery
        self._contain = contain
        self._ended = ended

    def spawn(self, func: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Start a task of the protocol's own."""
        self._nursery.start_soon(func, *args)

    async def spawn_app(
        self, app: AppWrapper, config: Config, scope: Scope, send: Send
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Start a call of ``app`` and return the function that leaves messages for it."""
        inbox = Inbox(config.max_app_queue_size)
        self._nursery.start_soon(self._call, app, scope, inbox, send)
        return inbox.put

    async def _call(self, app: AppWrapper, scope: Scope, inbox: Inbox, send: Send) -> None:
        try:
            await app(scope, inbox.receive, send, trio.to_thread.run_sync, trio.from_thread.run)
        except* (trio.Cancelled, KeyboardInterrupt):
            raise
        except* BaseException as group:  # noqa: BLE001 - the connection boundary: contained, logged, counted
            self._contain(group)  # also SystemExit: whether Stoker ends is not for the page of a plugin to say
        finally:
            inbox.close()
        await self._ended(send)
