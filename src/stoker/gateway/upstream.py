"""The pool of connections to engines: the one interface behind which all requests to engines stand."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import trio

from stoker.gateway.connection import Connection, Response
from stoker.gateway.dialling import Dialler, Origin
from stoker.gateway.failures import NoAnswer
from stoker.gateway.headers import HeaderList
from stoker.model import Backend

IDLE_SECONDS = 4.0  # engines on uvicorn and llama.cpp close after 5
IDLE_PER_ENGINE = 128


class UpstreamPool:
    """Keeps connections to engines and reuses the one used last.

    An async context manager that closes what is idle when it is left; ``ssl_context`` is called once, in a thread, when
    the first ``https`` engine is used.
    """

    def __init__(
        self,
        connect_timeout_seconds: float,
        *,
        ssl_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
    ) -> None:
        self._dialler = Dialler(connect_timeout_seconds, ssl_context)
        self._origins: dict[str, Origin] = {}
        self._idle: dict[str, deque[tuple[float, Connection]]] = {}
        self._swept_at = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for connections in self._idle.values():
            for _, connection in connections:
                connection.close()
        self._idle.clear()

    @asynccontextmanager
    async def request(
        self, backend: Backend, method: bytes, target: bytes, headers: HeaderList, body: bytes
    ) -> AsyncIterator[Response]:
        """Send a request and give the answer as soon as its head is there; there is no limit on how long that takes.

        Raises the errors of :mod:`stoker.gateway.failures`, here and while the body is read. A connection is kept only
        if the answer was read to its end: leaving early, by an exception or a cancellation, closes it at once, which
        tells the engine to stop.
        """
        base_url = backend.base_url
        origin = self._origins.get(base_url)
        if origin is None:
            origin = self._origins[base_url] = Origin.parse(base_url)
        connection = self._take(base_url)
        reusable = False
        try:
            if connection is not None:
                try:
                    response = await connection.exchange(method, target, headers, body)
                except NoAnswer:  # the engine closed it in the moment in which it was used again
                    connection.close()
                    connection = None
            if connection is None:
                connection = Connection(origin, await self._dialler.dial(origin))
                response = await connection.exchange(method, target, headers, body)
            yield response
            reusable = connection.finish()
        finally:
            if reusable:
                assert connection is not None
                self._keep(base_url, connection)
            elif connection is not None:
                connection.close()

    def _take(self, base_url: str) -> Connection | None:
        """The connection that was used last and is still good: one with something to read was closed by the engine."""
        connections = self._idle.get(base_url)
        oldest = trio.current_time() - IDLE_SECONDS
        while connections:
            kept_at, connection = connections.pop()
            if kept_at >= oldest and not connection.socket.is_readable():
                return connection
            connection.close()
        return None

    def _keep(self, base_url: str, connection: Connection) -> None:
        now = trio.current_time()
        connections = self._idle.setdefault(base_url, deque())
        connections.append((now, connection))
        if len(connections) > IDLE_PER_ENGINE:
            connections.popleft()[1].close()
        if now - self._swept_at > IDLE_SECONDS:
            self._sweep(now)

    def _sweep(self, now: float) -> None:
        """Close what nobody used for a while, also of engines that are no more."""
        self._swept_at = now
        for base_url, connections in tuple(self._idle.items()):
            while connections and connections[0][0] < now - IDLE_SECONDS:
                connections.popleft()[1].close()
            if not connections:
                del self._idle[base_url]
                self._origins.pop(base_url, None)  # gone already where an exchange outlasted an earlier sweep
