"""Answers as they stand on the wire, in HTTP/1.1."""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from types import MappingProxyType

from stoker.gateway.headers import HeaderList
from stoker.gateway.sockets import Channel

_STATUS_LINES = MappingProxyType(
    {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}
)


class DateHeader:
    """The ``Date`` header, made anew once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._line = b""

    def line(self) -> bytes:
        """The header as it is now."""
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._line = b"date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._line


class WireSink:
    """Writes the answers of one connection, one after the other. See :class:`stoker.gateway.streaming.Sink`.

    While ``last`` is true, the client is told that the connection ends with the answer; it becomes true by itself when
    an answer breaks off. ``interrupt`` cancels whoever writes into it.
    """

    __slots__ = ("_chunked", "_date", "_head", "channel", "interrupt", "last")

    def __init__(self, channel: Channel, date: DateHeader, interrupt: Callable[[], None]) -> None:
        self.channel = channel
        self.interrupt = interrupt
        self._date = date
        self.last = False
        self._chunked = False
        self._head = b""

    async def answer(self, status: int, headers: HeaderList, body: bytes) -> None:
        """A whole answer."""
        await self.channel.send_all(self._written(status, headers, len(body)) + body)

    async def start(self, status: int, headers: HeaderList, length: int | None) -> None:
        """Keep the head until something of the body comes: together they are one packet."""
        self._head = self._written(status, headers, length)

    def frame(self, data: bytes) -> bytes:
        """A part of the body, with its framing."""
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    async def send(self, data: bytes) -> None:
        """Some of the body."""
        framed = self.frame(data)
        if self._head:
            framed, self._head = self._head + framed, b""
        await self.channel.send_all(framed)

    async def finish(self, data: bytes = b"") -> None:
        """The last of the body, and its end."""
        framed = self._head
        self._head = b""
        if data:
            framed += self.frame(data)
        if self._chunked:
            framed += b"0\r\n\r\n"
        if framed:
            await self.channel.send_all(framed)

    async def abort(self) -> None:
        """Have the connection closed."""
        self._head = b""
        self.last = True

    def _written(self, status: int, headers: HeaderList, length: int | None) -> bytes:
        lines = [_STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status, self._date.line()]
        lines += [b"%b: %b\r\n" % header for header in headers]
        self._chunked = False
        if status not in (204, 304):
            self._chunked = length is None
            lines.append(b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length)
        lines.append(b"connection: close\r\n\r\n" if self.last else b"\r\n")
        return b"".join(lines)
