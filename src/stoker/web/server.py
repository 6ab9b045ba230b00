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
from functools import partial

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
from stoker.web.crowd import CROWDED, FULL, Crowd, Guest, Reserve, address_of, make_room, turn_away
from stoker.web.http2 import bound
from stoker.web.last import LastAnswers
from stoker.web.tls import Ends, Handshake, Terminator

logger = logging.getLogger("stoker.web")

BACKLOG = 1024
TICK_SECONDS = 1.0
BREATH_SECONDS = 0.1
DRAIN_SECONDS = 1.5  # when the engines have stopped: for last words
HURRIED_SECONDS = 0.5  # enough to say why an answer ends


async def serve(
    app: ASGIFramework,
    sockets: Sequence[socket.socket],
    plane: DataPlane,
    guard: Guard | None,
    *,
    drain_seconds: float = DRAIN_SECONDS,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve on bound sockets, which it closes in the end, until cancelled.

    Every connection begins in the express lane of ``plane``, where ``guard`` sees each request; ``app`` gets the
    connections that leave it. With ``tls``, a server's context, all of them have to speak that.

    ``task_status.started`` gets the :class:`Server` once it listens. Cancelling stops listening at once, gives the
    requests under way ``drain_seconds`` (:meth:`Server.hurry` ends that), ends what is left with an error and cuts it
    off a moment later, and then tells the application its lifespan is over. Raises what the application's start-up
    raises.
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
        self._cut_short = plane.forwarder.cut_short
        self._settings = plane.settings
        self._measures = plane.measures
        self._drain_seconds = drain_seconds
        self._config = _configuration()
        self._context = WorkerContext(None)
        self._connections: dict[trio.SocketStream, Guest] = {}
        self._most = _most_connections()
        if tls is not None:  # three descriptors more for each
            self._most = max(1, self._most * 2 // 5)
        self._crowd = Crowd(plane.settings.connections_per_address)
        self._reserve = Reserve()
        self._accepting = trio.CancelScope()
        self._draining = trio.CancelScope()
        self._patience = trio.CancelScope()
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
            stack.callback(self._reserve.close)
            async with trio.open_nursery() as nursery:
                await nursery.start(lifespan.handle_lifespan)
                await lifespan.wait_for_startup()
                nursery.start_soon(self._see_out)
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
            self._patience.cancel()

    async def _see_out(self) -> None:
        """Cut off what is left when the time to drain is over; but leave a moment to say why."""
        await self._context.terminated.wait()
        self._patience.deadline = trio.current_time() + self._drain_seconds
        with self._patience:
            await trio.sleep_forever()
        self._cut_short()
        await trio.sleep(HURRIED_SECONDS)
        self._draining.cancel()

    async def _serve(self) -> None:
        async with trio.open_nursery() as handlers:
            with self._accepting:
                async with trio.open_nursery() as nursery:
                    for sock in self._sockets:
                        nursery.start_soon(self._accept, sock, handlers)
                    nursery.start_soon(self._keep_time)
                    self.listening.set()
            await self._context.terminated.set()
            for connection in tuple(self._connections.values()):
                connection.close_if_idle()

    async def _accept(self, sock: socket.socket, handlers: trio.Nursery) -> None:
        async with _listener(sock) as listener:
            while True:
                try:
                    stream = await listener.accept()
                except OSError as shortage:  # of descriptors or memory; whatever else can happen Trio deals with itself
                    self._complain(shortage)
                    if not self._turn_one_away(sock, handlers):
                        await trio.sleep(BREATH_SECONDS)
                else:
                    self._admit(stream, handlers)

    def _admit(self, stream: trio.SocketStream, handlers: trio.Nursery) -> None:
        """Let one in that just connected, if there is room for it."""
        address = address_of(stream)
        if len(self._connections) >= self._most and not self._make_room():
            handlers.start_soon(turn_away, plain_socket(stream), FULL)
        elif (place := self._crowd.enter(address)) is None:
            self._complain_once(f"as many connections from {address} as there may be")
            handlers.start_soon(turn_away, plain_socket(stream), CROWDED)
        else:
            handlers.start_soon(self._handle, stream, place)

    def _turn_one_away(self, sock: socket.socket, handlers: trio.Nursery) -> bool:
        """With a descriptor that was kept for that, tell the next who waits. Says whether there was one."""
        self._reserve.lend()
        try:
            late, _ = sock.accept()
        except OSError:
            self._reserve.fill()
            return False
        handlers.start_soon(self._refuse, late)
        return True

    async def _refuse(self, late: socket.socket) -> None:
        try:
            await turn_away(late, FULL)
        finally:
            self._reserve.fill()

    async def _handle(self, stream: trio.SocketStream, place: str) -> None:
        try:
            if self._terminator is None:
                await self._handle_plain(stream, stream)
            else:
                handshake = self._connections[stream] = Handshake()
                await self._terminator.serve(stream, partial(self._handle_plain, stream), handshake)
        except* Exception as group:  # noqa: BLE001 - the connection boundary: contained, logged, counted
            self._contain(group)
        finally:
            self._connections.pop(stream, None)
            self._crowd.leave(place)

    async def _handle_plain(
        self, accepted: trio.SocketStream, stream: trio.SocketStream, ends: Ends | None = None
    ) -> None:
        """Serve what is said on ``stream``; where that is within TLS on what was ``accepted``, ``ends`` are told."""
        try:
            channel = self._hub.watch(plain_socket(stream))
        except OSError as shortage:  # of what the poller needs
            self._complain(shortage)
            stream.socket.close()
            return
        channel.patience_seconds = self._settings.send_stall_seconds
        visit = self._connections[accepted] = Visit(self._express, channel)
        self._measures.connections += 1
        self._measures.connections_accepted += 1
        if self._accepting.cancel_called:
            visit.close_if_idle()
        try:
            rest = await visit.run()
            if rest is not None:
                await self._hand_over(accepted, channel, rest, ends)
        except* Exception as group:  # noqa: BLE001 - the connection boundary: contained, logged, counted
            self._contain(group)
        finally:
            self._connections.pop(accepted, None)
            self._measures.connections -= 1
            channel.close()

    async def _hand_over(self, accepted: trio.SocketStream, channel: Channel, rest: bytes, ends: Ends | None) -> None:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(channel.release()))
        stall_seconds = self._settings.send_stall_seconds
        connection = Connection(
            self._app, self._config, self._context, stream, self._contain, rest, stall_seconds, ends
        )
        self._connections[accepted] = connection
        await connection.run()

    def _make_room(self) -> bool:
        """End a tenth of the connections, of those that have nothing under way. Says whether there were any."""
        self._complain_once("there are as many connections as there may be; those that ask for nothing are closed")
        return make_room(self._connections, max(1, self._most // 10))

    async def _keep_time(self) -> None:
        """End the visits of those who take too long."""
        while True:
            await trio.sleep(TICK_SECONDS)
            now = trio.current_time()
            for connection in tuple(self._connections.values()):
                connection.keep_time(now)

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
    bound(config)
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
