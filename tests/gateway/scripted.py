"""Engines that do what a test says, byte by byte, on real sockets; and a client that shows what really arrived."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import trio

HANG_GUARD_SECONDS = 20
Headers = Sequence[tuple[str, str]]


async def until(condition: Callable[[], object]) -> None:
    """Return as soon as the condition holds."""
    with trio.fail_after(HANG_GUARD_SECONDS):
        while not condition():
            await trio.sleep(0.002)


@attrs.define(eq=False)
class Exchange:
    """One request as an engine got it, and the means to answer it."""

    stream: trio.abc.Stream
    http: h11.Connection
    request: h11.Request
    body: bytes

    @property
    def target(self) -> str:
        return self.request.target.decode()

    def header(self, name: str) -> str | None:
        values = [value.decode() for key, value in self.request.headers if key.decode() == name]
        assert len(values) <= 1, f"{name} was sent {len(values)} times"
        return values[0] if values else None

    async def reply(self, status: int, body: bytes | object, headers: Headers = ()) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        content_type = ("content-type", "application/json")
        await self.head(status, [content_type, *headers, ("content-length", str(len(data)))])
        await self.data(data)
        await self.end()

    async def events(self, *events: str) -> None:
        """The head of a stream, and the first of its events."""
        await self.head(200, [("content-type", "text/event-stream")])
        for event in events:
            await self.data(f"data: {event}\n\n".encode())

    async def head(self, status: int, headers: Headers) -> None:
        await self.raw(self.http.send(h11.Response(status_code=status, headers=list(headers))))

    async def data(self, data: bytes) -> None:
        await self.raw(self.http.send(h11.Data(data=data)))

    async def end(self) -> None:
        await self.raw(self.http.send(h11.EndOfMessage()))

    async def raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def reset(self) -> None:
        """Hang up as a killed process does: with a reset."""
        assert isinstance(self.stream, trio.SocketStream)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await self.stream.aclose()

    async def hang_up(self) -> None:
        await self.stream.aclose()

    async def gone(self) -> None:
        """Return when the gateway has closed its side."""
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


Script = Callable[[Exchange], Awaitable[None]]


@attrs.define(eq=False)
class Engine:
    """A listening engine that answers each request by ``script``, which a test may change. Remembers what it got."""

    script: Script
    port: int = 0
    exchanges: list[Exchange] = attrs.field(factory=list)
    connections: int = 0
    open_connections: int = 0
    _listening: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as connections:
            listeners = await trio.open_tcp_listeners(self.port)
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started()
            with self._listening:
                await trio.serve_listeners(self.handle, listeners, handler_nursery=connections)

    def stop_listening(self) -> None:
        """From now on refuse connections; those there are go on."""
        self._listening.cancel()

    async def handle(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        self.open_connections += 1
        try:
            http = h11.Connection(h11.SERVER)
            async with stream:
                while (exchange := await _receive(stream, http)) is not None:
                    self.exchanges.append(exchange)
                    await self.script(exchange)
                    if http.our_state is not h11.DONE:
                        return
                    http.start_next_cycle()
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass
        finally:
            self.open_connections -= 1


async def _receive(stream: trio.abc.Stream, http: h11.Connection) -> Exchange | None:
    request: h11.Request | None = None
    body = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(bytes(await stream.receive_some(65536)))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += event.data
        elif isinstance(event, h11.EndOfMessage):
            assert request is not None
            return Exchange(stream, http, request, bytes(body))
        else:
            return None


@attrs.define(eq=False)
class Answer:
    """An answer as a client got it. ``complete`` is false if the connection closed before the answer's end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    complete: bool

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.json()["error"]


@attrs.define(eq=False)
class Client:
    """A client connection; one after the other if it ``reconnects``, for a lane in which every answer is the last."""

    stream: trio.SocketStream
    reconnects: bool = False
    http: h11.Connection = attrs.field(factory=lambda: h11.Connection(h11.CLIENT))

    async def send(
        self, path: str, body: bytes | object, headers: Headers = (), *, method: str = "POST", chunked: bool = False
    ) -> None:
        if self.reconnects and self.http.their_state in (h11.MUST_CLOSE, h11.CLOSED):
            await self._reconnect()
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        framing = ("transfer-encoding", "chunked") if chunked else ("content-length", str(len(data)))
        names = {name.lower() for name, _ in headers}
        defaults = [("host", "localhost"), ("content-type", "application/json")]
        sent = [*(default for default in defaults if default[0] not in names), *headers, framing]
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in sent]
        await self._send(h11.Request(method=method, target=path, headers=encoded))
        await self._send(h11.Data(data=data))
        await self._send(h11.EndOfMessage())

    async def _send(self, event: h11.Event) -> None:
        data = self.http.send(event)
        if data:
            await self.stream.send_all(data)

    async def head(self) -> h11.Response:
        event = await self._event()
        assert isinstance(event, h11.Response), event
        return event

    async def chunk(self) -> bytes:
        """The next bytes of the body; empty at its end."""
        event = await self._event()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def answer(self) -> Answer:
        head = await self.head()
        headers = {name.decode(): value.decode() for name, value in head.headers}
        assert len(headers) == len(list(head.headers)), "a header was sent twice"
        body = bytearray()
        complete = False
        try:
            while isinstance(event := await self._event(), h11.Data):
                body += event.data
            complete = True
        except h11.RemoteProtocolError:
            pass
        if complete and self.http.our_state is self.http.their_state is h11.DONE:
            self.http.start_next_cycle()
        return Answer(head.status_code, headers, bytes(body), complete)

    async def ask(self, path: str, body: bytes | object, headers: Headers = (), *, method: str = "POST") -> Answer:
        with trio.fail_after(HANG_GUARD_SECONDS):
            await self.send(path, body, headers, method=method)
            return await self.answer()

    async def close(self) -> None:
        await self.stream.aclose()

    async def _reconnect(self) -> None:
        host, port = self.stream.socket.getpeername()
        await self.stream.aclose()
        self.stream = await trio.open_tcp_stream(host, port)
        self.http = h11.Connection(h11.CLIENT)

    async def _event(self) -> Any:
        with trio.fail_after(HANG_GUARD_SECONDS):
            while True:
                event = self.http.next_event()
                if isinstance(event, h11.InformationalResponse):
                    continue
                if event is not h11.NEED_DATA:
                    return event
                try:
                    data = await self.stream.receive_some(65536)
                except trio.BrokenResourceError:
                    data = b""
                self.http.receive_data(bytes(data))


@asynccontextmanager
async def connect(port: int, *, reconnects: bool = False) -> AsyncIterator[Client]:
    """A client of the gateway."""
    client = Client(await trio.open_tcp_stream("127.0.0.1", port), reconnects)
    try:
        yield client
    finally:
        await client.close()
