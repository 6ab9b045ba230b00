"""One client connection under Hypercorn's protocols, from the request on that the express lane handed over.

It stands in for Hypercorn's ``TCPServer``, whose every part it would have to override: sending is shielded there, so a
client that stops reading holds up the shutdown; a connection that its client closed stays open until the keep-alive
time is over; one that answers before the whole body came is reset, and the client never sees the answer; an application
that does not read its body, or a client of HTTP/2 that leaves, can block tasks for good; and an answer that is left
without its end is never ended at all over HTTP/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import h2.errors
import h2.exceptions
import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h2 import H2Protocol
from hypercorn.protocol.h11 import H2ProtocolAssumedError, H11Protocol
from hypercorn.protocol.http_stream import ASGIHTTPState, HTTPStream
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState
from hypercorn.utils import parse_socket_addr

from stoker.gateway.express import LINGER_SECONDS, MOST_LINGERED
from stoker.gateway.framing import LONGEST_HEAD
from stoker.gateway.sockets import untaken_bytes
from stoker.web.calls import Calls, Send
from stoker.web.http2 import Http2
from stoker.web.last import OneRequest
from stoker.web.tls import Ends

_RECEIVE = 64 * 1024


class Connection:
    """Reads for the protocol, writes for it, and closes when it says so, or when nothing comes for too long.

    ``first`` is what was read from the connection already. A client that takes nothing of what it is sent for
    ``stall_seconds`` is cut off. ``ends`` are there for one that comes through TLS.
    """

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        stream: trio.SocketStream,
        contain: Callable[[BaseException], None],
        first: bytes,
        stall_seconds: float = math.inf,
        ends: Ends | None = None,
    ) -> None:
        self._ends = ends
        self._app = app
        self._config = config
        self._context = context
        self._stream = stream
        self._contain = contain
        self._first = first
        self._stall_seconds = stall_seconds
        self._writing = trio.Lock()
        self._sending = trio.CancelScope()
        self._moved_at = 0.0
        self._untaken = -1
        self._reading = trio.CancelScope()
        self._idle = True
        self._closing = False

    async def run(self) -> None:
        """Serve until one side closes. Cancelling it cuts off whatever is under way."""
        sock = self._stream.socket
        try:
            try:
                ends = self._ends or _ends_of(sock)
            except OSError:
                return  # it left before it was looked at
            async with trio.open_nursery() as nursery:
                calls = Calls(nursery, self._contain, self._call_ended)
                self._protocol = _Protocols(
                    self._stall_seconds,
                    self._app,
                    self._config,
                    self._context,
                    calls,  # used as a context manager by nobody but TCPServer
                    ConnectionState({}),
                    self._ends is not None,
                    ends.client,
                    ends.server,
                    self._send,
                )
                self._set_idle(idle=False)  # a request came: see ``first``
                if isinstance(http := self._protocol.protocol, H11Protocol):
                    http.connection = OneRequest(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
                await self._protocol.initiate()
                await self._read()
        finally:
            sock.close()

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return self._idle and not self._closing

    @property
    def is_arriving(self) -> bool:
        """Never: what was handed over had a head."""
        return False

    @property
    def deadline(self) -> float:
        """When it is closed if nothing comes."""
        return self._reading.deadline

    def make_way(self) -> bool:
        """Read no more from it, and close it, for others. Says that it does."""
        self._reading.cancel()
        return True

    def close_if_idle(self) -> None:
        """Close it now if no request is under way on it, as it will be after that in a shutdown."""
        if self._idle:
            self._reading.cancel()

    def keep_time(self, now: float) -> None:
        """Cut it off if the client has taken nothing for too long of what is written. To be called now and then."""
        if self._writing.locked():
            untaken = untaken_bytes(self._stream.socket)
            if untaken != self._untaken:
                self._moved_at, self._untaken = now, untaken
            elif now - self._moved_at > self._stall_seconds:
                self._sending.cancel()

    async def _read(self) -> None:
        with self._reading, suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._protocol.handle(RawData(self._first))
            if isinstance(http := self._protocol.protocol, H2Protocol) and http.idle:
                self._set_idle(idle=True)  # the preface of HTTP/2 passed for a request
            unheard = 0
            while data := await self._stream.receive_some(_RECEIVE):
                if not self._closing:
                    await self._protocol.handle(RawData(bytes(data)))
                elif (unheard := unheard + len(data)) > MOST_LINGERED:
                    await trio.sleep_forever()  # until it has lingered long enough
        await self._protocol.handle(Closed())
        if isinstance(http := self._protocol.protocol, H2Protocol):
            for buffer in tuple(http.stream_buffers.values()):  # or calls wait for ever for them to be sent
                await buffer.close()

    async def _send(self, event: Event) -> None:
        match event:
            case RawData():
                await self._write(event.data)
            case Updated():
                self._set_idle(idle=event.idle)
            case Closed():
                await self._hang_up()

    async def _write(self, data: bytes) -> None:
        try:
            async with self._writing:
                with trio.CancelScope() as self._sending:
                    self._moved_at, self._untaken = trio.current_time(), -1
                    await self._stream.send_all(data)
                if self._sending.cancelled_caught:
                    self._stream.socket.close()
                    await self._protocol.handle(Closed())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self._protocol.handle(Closed())
        except BaseException:  # cancelled: a part of it may be on its way, so nothing may follow it
            self._stream.socket.close()
            raise

    async def _call_ended(self, send: Send) -> None:
        """Tell the protocol. A stream of HTTP/2 that was left without its end it would just forget: that is reset."""
        http, stream = self._protocol.protocol, getattr(send, "__self__", None)
        if isinstance(http, H2Protocol) and isinstance(stream, HTTPStream) and stream.state is ASGIHTTPState.RESPONSE:
            with suppress(KeyError, h2.exceptions.ProtocolError):  # it is gone already
                await http.stream_buffers[stream.stream_id].drain()
                http.connection.reset_stream(stream.stream_id, h2.errors.ErrorCodes.INTERNAL_ERROR)
                await self._write(http.connection.data_to_send())
        await send(None)

    async def _hang_up(self) -> None:
        """Send no more, but let the client finish: one that is still sending would be reset and lose the answer."""
        self._closing = True
        self._reading.deadline = trio.current_time() + (LINGER_SECONDS if self._client_is_sending() else 0)
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            await self._stream.send_eof()
        await self._protocol.handle(Closed())

    def _client_is_sending(self) -> bool:
        protocol = self._protocol.protocol
        if not isinstance(protocol, H11Protocol) or not isinstance(protocol.connection, h11.Connection):
            return False
        return protocol.connection.their_state not in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    def _set_idle(self, *, idle: bool) -> None:
        if not self._closing:
            self._idle = idle
            self._reading.deadline = trio.current_time() + self._config.keep_alive_timeout if idle else math.inf
            if idle and self._context.terminated.is_set():
                self._reading.cancel()


def _ends_of(sock: trio.socket.SocketType) -> Ends:
    """Raises OSError for a connection whose client has left."""
    return Ends(
        parse_socket_addr(sock.family, sock.getpeername()),
        parse_socket_addr(sock.family, sock.getsockname()),
    )


class _Protocols(ProtocolWrapper):
    """The protocol of one connection, as Hypercorn finds it out, with HTTP/2 as we speak it."""

    def __init__(self, stall_seconds: float, *hypercorn: Any) -> None:
        super().__init__(*hypercorn)
        self._stall_seconds = stall_seconds
        if isinstance(self.protocol, H2Protocol):  # agreed upon within TLS
            self.protocol = self._http2()

    async def handle(self, event: Event) -> None:
        try:
            await self.protocol.handle(event)
        except H2ProtocolAssumedError as preface:
            self.protocol = self._http2()
            await self.protocol.initiate()
            await self.protocol.handle(RawData(preface.data))

    def _http2(self) -> Http2:
        return Http2(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.state,
            self.ssl,
            self.client,
            self.server,
            self.send,
            stall_seconds=self._stall_seconds,
        )
