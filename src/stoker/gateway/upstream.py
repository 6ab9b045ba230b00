"""The pool of connections to engines: the one interface behind which all requests to engines stand."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from stoker.core.addresses import NEVER_ALLOWED
from stoker.gateway.connection import Connection
from stoker.gateway.dialling import Dialler, Origin, SecureTransport
from stoker.gateway.failures import NoAnswer, NotConnected
from stoker.gateway.framing import Framing
from stoker.gateway.headers import request_head
from stoker.gateway.hub import Hub
from stoker.gateway.sockets import Channel
from stoker.model import Backend

IDLE_SECONDS = 4.0  # engines on uvicorn and llama.cpp close after 5
IDLE_PER_ENGINE = 128
CROSSING_SECONDS = 0.1  # in which a close that was on its way is seen; later, the engine may have worked on the request


class UpstreamPool:
    """Keeps connections to engines and reuses the one used last.

    ``clock`` gives monotonic seconds. An async context manager that closes what is idle when it is left;
    ``ssl_context`` is called once, in a thread, when the first ``https`` engine is used. Nothing is sent to addresses
    that are ``barred``.
    """

    def __init__(
        self,
        hub: Hub,
        framing: Framing,
        clock: Callable[[], float],
        connect_timeout_seconds: float,
        *,
        ssl_context: Callable[[], ssl.SSLContext] = ssl.create_default_context,
        barred: Callable[[str], bool] = NEVER_ALLOWED,
    ) -> None:
        self._framing = framing
        self._clock = clock
        self._dialler = Dialler(hub, connect_timeout_seconds, ssl_context, barred)
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

    async def request(
        self,
        backend: Backend,
        target: bytes,
        lines: bytes,
        request_id: bytes,
        body: bytes,
        carried: Callable[[Connection], None],
    ) -> Connection:
        """POST a request and return as soon as the answer's head is there; there is no limit on how long that takes.

        ``target`` and the header ``lines`` are written as they are. The connection that comes back is the
        caller's, to be given back with :meth:`give_back` or closed: closing it tells the engine to stop, and that is
        what a cancellation does here. ``carried`` is told of it before the request is sent. Raises the errors of
        :mod:`stoker.gateway.failures`.
        """
        base_url = backend.base_url
        origin = self._origins.get(base_url)
        if origin is None:
            origin = self._origins[base_url] = Origin.parse(base_url)
        head = request_head(
            origin.target(target),
            origin.authority,
            lines,
            request_id=request_id,
            api_key=backend.api_key,
            length=len(body),
        )
        connection = self._take(base_url)
        crossed = ""
        try:
            if connection is not None:
                carried(connection)
                sent_at = self._clock()
                try:
                    await connection.exchange(head, body)
                except NoAnswer as broken:
                    if self._clock() - sent_at > CROSSING_SECONDS:
                        raise
                    crossed = str(broken)
                    connection.close()  # the engine closed it in the moment in which it was used again
                else:
                    return connection
            connection = Connection(origin, await self._dial(origin, crossed), self._framing.answers())
            carried(connection)
            await connection.exchange(head, body)
        except BaseException:
            if connection is not None:
                connection.close()
            raise
        return connection

    async def _dial(self, origin: Origin, crossed: str) -> Channel | SecureTransport:
        """As the dialler does; but where a close ``crossed`` the request, the engine may have seen it nevertheless."""
        try:
            return await self._dialler.dial(origin)
        except NotConnected:
            if crossed:
                raise NoAnswer(crossed) from None
            raise

    def give_back(self, base_url: str, connection: Connection) -> None:
        """Keep the connection for another request, if its answer was read to the end; else close it at once."""
        if not connection.is_reusable:
            connection.close()
            return
        now = self._clock()
        connection.close_when_hung_up()
        connections = self._idle.get(base_url)
        if connections is None:
            connections = self._idle[base_url] = deque()
        connections.append((now, connection))
        if len(connections) > IDLE_PER_ENGINE:
            connections.popleft()[1].close()
        if now - self._swept_at > IDLE_SECONDS:
            self._sweep(now)

    def _take(self, base_url: str) -> Connection | None:
        """The connection that was used last and is still good."""
        connections = self._idle.get(base_url)
        if not connections:
            return None
        oldest = self._clock() - IDLE_SECONDS
        while connections:
            kept_at, connection = connections.pop()
            if kept_at >= oldest and not connection.is_stale:
                return connection
            connection.close()
        return None

    def _sweep(self, now: float) -> None:
        """Close what nobody used for a while, also of engines that are no more."""
        self._swept_at = now
        for base_url, connections in tuple(self._idle.items()):
            while connections and connections[0][0] < now - IDLE_SECONDS:
                connections.popleft()[1].close()
            if not connections:
                del self._idle[base_url]
                self._origins.pop(base_url, None)  # gone already where an exchange outlasted an earlier sweep
