"""One HTTP/1.1 connection of the fake engine, with h11; and the ways to break it."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import h11
import trio

Headers = Iterable[tuple[str, str]]
MAX_HEAD = 1024 * 1024


@attrs.frozen(kw_only=True)
class Request:
    """A request with its whole body."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


class Connection:
    """Reads requests and writes answers. Every method may raise :class:`trio.BrokenResourceError`: the client left."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    async def next_request(self) -> Request | None:
        """The next request, or None at the end. Raises :class:`h11.RemoteProtocolError` for what is not HTTP."""
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
        if self._h11.our_state is not h11.IDLE:
            return None
        head: h11.Request | None = None
        body = bytearray()
        while True:
            if self._h11.they_are_waiting_for_100_continue:
                await self._send(h11.InformationalResponse(status_code=100, headers=[]))
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                self._h11.receive_data(await self._stream.receive_some())
            elif isinstance(event, h11.Request):
                head = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                return Request(
                    method=head.method.decode(),
                    target=head.target.decode("latin-1"),
                    headers=tuple((name.decode(), value.decode("latin-1")) for name, value in head.headers),
                    body=bytes(body),
                )
            else:
                return None

    async def until_client_leaves(self) -> None:
        """Return when the client has closed its side. What it may have sent meanwhile stays where it is."""
        try:
            waiting = await self._stream.socket.recv(1, socket.MSG_PEEK)
        except OSError:
            waiting = b""
        except trio.ClosedResourceError:
            waiting = b"it was us who left"
        if waiting:  # or a pipelined request: no end can be seen behind it
            await trio.sleep_forever()

    async def answer(self, status: int, content: Mapping[str, Any] | bytes, headers: Headers = ()) -> None:
        """A whole answer: JSON, or plain text."""
        kind, body = _encoded(content)
        await self.head(status, [("content-type", kind), ("content-length", str(len(body))), *headers])
        await self._send(h11.Data(data=body))
        await self.end()

    async def half_answer(self, status: int, content: Mapping[str, Any], headers: Headers = ()) -> None:
        """The head of a whole answer, half of its body, and the end of the connection."""
        kind, body = _encoded(content)
        await self.head(status, [("content-type", kind), ("content-length", str(len(body))), *headers])
        await self.raw(body[: len(body) // 2])

    async def head(self, status: int, headers: Headers) -> None:
        """The head of an answer; without a length among ``headers`` its body is chunked."""
        await self._send(h11.Response(status_code=status, headers=list(headers)))

    async def piece(self, data: bytes) -> None:
        """Some of a chunked body, as one chunk."""
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        """The answer is whole."""
        await self._send(h11.EndOfMessage())

    async def raw(self, data: bytes) -> None:
        """Bytes past HTTP, then the end of the connection."""
        await self._stream.send_all(data)
        await self.close()

    async def repeat(self, data: bytes) -> None:
        """Bytes past HTTP, again and again, until the client leaves."""
        while True:
            await self._stream.send_all(data * 100)

    async def reset(self) -> None:
        """End the connection with a TCP reset."""
        self._stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._stream.socket.close()
        await trio.lowlevel.checkpoint()

    async def close(self) -> None:
        """End the connection."""
        await self._stream.aclose()

    async def _send(self, event: h11.Event) -> None:
        if data := self._h11.send(event):
            await self._stream.send_all(data)


def _encoded(content: Mapping[str, Any] | bytes) -> tuple[str, bytes]:
    if isinstance(content, bytes):
        return "text/plain; charset=utf-8", content
    return "application/json", json.dumps(content).encode()
