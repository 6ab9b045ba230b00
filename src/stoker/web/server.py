"""The HTTP server: the express lane at its front door, and Hypercorn's protocols for what is not the lane's.

No connection can end the process.
"""

from __future__ import annotations

import logging
import resource
import socket
import ssl
from collections.abc import Sequence
from contextlib import ExitStack

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework
from hypercorn.utils import wrap_app

from stoker.gateway.dialling import notice_vanished_peer, plain_socket
from stoker.gateway.express import KEEP_ALIVE_SECONDS, Visit
from stoker.gateway.framing import LONGEST_HEAD
from stoker.gateway.heading import Guard
from stoker.gateway.plane import DataPlane
from stoker.gateway.sockets import Channel
from stoker.web.connection import Connection
from stoker.web.last import LastAnswers
from stoker.web.tls import Ends, Terminator

logger = logging.getLogger("stoker.web")

BACKLOG = 1024
TICK_SECONDS = 1.0
BREATH_SECONDS = 0.1
HURRIED_SECONDS = 0.5  # enough to say why an answer ends


async def serve(
    app: ASGIFramework,
    sockets: Sequence[socket.socket],
    plane: DataPlane,
    guard: Guard | None,
    *,
    drain_seconds: float = 5.0,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on bound sockets, which it closes in the end, until cancelled.

    Every connection begins in the express lane of ``plane``, where ``guard`` sees each request; ``app`` gets the
    connections that leave it. With ``tls``, a server's context, all of them have to speak that.

    ``task_status.started`` gets the :class:`Server` once it listens. Cancelling stops listening at once, gives the
    requests under way ``drain_seconds`` (:meth:`Server.hurry` ends that), cuts off what is left, and then tells the
    application its lifespan is over. Raises what the application's start-up raises.
    """
    server = Server(app, sockets, plane, guard, drain_seconds, tls)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run)
        try:
            await server.listening.wait()
            task_status.started(server)
            await trio.sleep_forever()
        finally:
            server.shut_down()


class Server:
    """A running server. ``listening`` is set once it listens."""

    def __init__(
        self,
        app: ASGIFramework,
        sockets: Sequence[socket.socket],
        plane: DataPlane,
        guard: Guard | None,
        drain_seconds: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._terminator = None if tls is None else Terminator(tls)
        self.listening = trio.Event()
        self._app = wrap_app(LastAnswers(app), 0, "asgi")
        self._sockets = sockets
        self._express = plane.lane(guard)
        self._hub = plane.hub
        self._measures = plane.measures
        self._drain_seconds = drain_seconds
        self._config = _configuration()
        self._context = WorkerContext(None)
        self._connections: dict[Channel, Visit | Connection] = {}
        self._most = _most_connections()
        if tls is not None:  # three descriptors more for each
            self._most = max(1, self._most * 2 // 5)
        self._accepting = trio.CancelScope()
        self._draining = trio.CancelScope()
        self._complained_at = float("-inf")

    @property
    def contained(self) -> int:
        """How many failures were kept from spreading."""
        return self._measures.contained_failures

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    async def run(self) -> None:
        """The whole life, shielded from cancellation: :meth:`shut_down` is its end, and leaves time to drain."""
        lifespan = Lifespan(self._app, self._config, {})
        with trio.CancelScope(shield=True), ExitStack() as stack:
            for sock in self._sockets:
                stack.callback(sock.close)
            async with trio.open_nursery() as nursery:
                await nursery.start(lifespan.handle_lifespan)
                await lifespan.wait_for_startup()
                with self._draining:
                    await self._serve()
                await lifespan.wait_for_shutdown()
                nursery.cancel_scope.cancel()

    def shut_down(self) -> None:
        """Listen no more, and give the requests under way their time to drain."""
        self._accepting.cancel()

    def hurry(self) -> None:
        """Cut off all connections: now, if the server is shutting down, or soon after it does."""
        self._drain_seconds = min(self._drain_seconds, HURRIED_SECONDS)
        if self._accepting.cancel_called:
            self._draining.cancel()

    async def _serve(self) -> None:
        async with trio.open_nursery() as handlers:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    for sock in self._sockets:
                        nursery.start_soon(self._accept, _listener(sock), handlers)
                    nursery.start_soon(self._keep_time)
                    self.listening.set()
            await self._context.terminated.set()
            self._draining.deadline = trio.current_time() + self._drain_seconds
            for connection in tuple(self._connections.values()):
                connection.close_if_idle()

    async def _accept(self, listener: trio.SocketListener, handlers: trio.Nursery) -> None:
        async with listener:
            while True:
                while len(self._connections) >= self._most:  # the rest waits in the backlog
                    self._make_room()
                    await trio.sleep(BREATH_SECONDS)
                try:
                    stream = await listener.accept()
                except OSError as shortage:  # of descriptors or memory; whatever else can happen Trio deals with itself
                    self._complain(shortage)
                    await trio.sleep(BREATH_SECONDS)
                else:
                    handlers.start_soon(self._handle, stream)

    async def _handle(self, stream: trio.SocketStream) -> None:
        if self._terminator is None:
            await self._handle_plain(stream)
            return
        try:
            await self._terminator.serve(stream, self._handle_plain)
        except* Exception as group:  # noqa: BLE001 - the connection boundary: contained, logged, counted
            self._contain(group)

    async def _handle_plain(self, stream: trio.SocketStream, ends: Ends | None = None) -> None:
        """Serve one connection; ``ends`` are told where it comes through TLS."""
        try:
            channel = self._hub.watch(plain_socket(stream))
        except OSError as shortage:  # of what the poller needs
            self._complain(shortage)
            stream.socket.close()
            return
        visit = self._connections[channel] = Visit(self._express, channel)
        self._measures.connections += 1
        self._measures.connections_accepted += 1
        if self._accepting.cancel_called:
            visit.close_if_idle()
        try:
            rest = await visit.run()
            if rest is not None:
                await self._hand_over(channel, rest, ends)
        except* Exception as group:  # noqa: BLE001 - the connection boundary: contained, logged, counted
            self._contain(group)
        finally:
            del self._connections[channel]
            self._measures.connections -= 1
            channel.close()

    async def _hand_over(self, channel: Channel, rest: bytes, ends: Ends | None) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(channel.release()))
        connection = Connection(self._app, self._config, self._context, stream, self._contain, rest, ends)
        self._connections[channel] = connection
        await connection.run()

    def _make_room(self) -> None:
        """End the connections that have been idle for the longest, a tenth of all."""
        visits = [visit for visit in self._connections.values() if isinstance(visit, Visit) and visit.is_idle]
        for visit in sorted(visits, key=lambda visit: visit.deadline)[: max(1, self._most // 10)]:
            visit.leave()
        self._complain_once("there are as many connections as there may be; those that are idle are closed")

    async def _keep_time(self) -> None:
        """End the visits of those who take too long."""
        while True:
            await trio.sleep(TICK_SECONDS)
            now = trio.current_time()
            for connection in tuple(self._connections.values()):
                if isinstance(connection, Visit) and connection.deadline < now:
                    connection.leave()

    def _contain(self, error: BaseException) -> None:
        self._measures.contained_failures += 1
        logger.error("a connection failed: %s", _summary(error), exc_info=error)

    def _complain(self, shortage: OSError) -> None:
        self._complain_once(f"no more connections for now: {shortage.strerror}")

    def _complain_once(self, what: str) -> None:
        """Once a second, that is."""
        now = trio.current_time()
        if now - self._complained_at >= 1.0:
            self._complained_at = now
            logger.error("%s; %d are open", what, len(self._connections))


def _configuration() -> Config:
    config = Config()
    config.accesslog = None
    config.errorlog = logging.getLogger("stoker.web")
    config.include_server_header = False
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.keep_alive_max_requests = 1_000_000_000
    config.h11_max_incomplete_size = LONGEST_HEAD
    config.shutdown_timeout = 10.0
    return config


def _most_connections() -> int:
    """As many as leave each a descriptor towards an engine, and some for probes, logs and stops."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 2**31 if soft == resource.RLIM_INFINITY else max(8, (soft - 40) // 2)


def _listener(sock: socket.socket) -> trio.SocketListener:
    notice_vanished_peer(sock)  # accepted sockets inherit it
    sock.listen(BACKLOG)
    return trio.SocketListener(trio.socket.from_stdlib_socket(sock))


def _summary(error: BaseException) -> str:
    """The first true error within groups, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
