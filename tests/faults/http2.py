"""A client of HTTP/2 that writes whatever frames it is told to."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from typing import Self

import attrs
import hpack
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from .fleet import CHAT
from .stoker_up import Stoker

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
ENHANCE_YOUR_CALM = 11
Headers = Sequence[tuple[bytes, bytes]]
USUAL: Headers = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", CHAT.encode()),
    (b":authority", b"localhost"),
    (b"content-type", b"application/json"),
)


def request(*changes: tuple[bytes, bytes | None]) -> Headers:
    """The usual headers with these in their place; None leaves one out."""
    wanted: dict[bytes, bytes | None] = {**dict(USUAL), **dict(changes)}
    return [(name, value) for name, value in wanted.items() if value is not None]


def settings(**values: int) -> SettingsFrame:
    return SettingsFrame(0, settings={getattr(SettingsFrame, name.upper()): value for name, value in values.items()})


def headers(stream: int, fields: Headers, *flags: str) -> HeadersFrame:
    """A block of headers that no dynamic table is needed for."""
    return HeadersFrame(stream, hpack.Encoder().encode(list(fields)), flags=["END_HEADERS", *flags])


def data(stream: int, body: bytes, *flags: str) -> DataFrame:
    return DataFrame(stream, body, flags=flags)


def continuation(stream: int, block: bytes) -> ContinuationFrame:
    return ContinuationFrame(stream, block)


def ping() -> PingFrame:
    return PingFrame(0, opaque_data=b"12345678")


def priority(stream: int, depends_on: int = 0) -> PriorityFrame:
    return PriorityFrame(stream, depends_on=depends_on, stream_weight=15)


def reset(stream: int) -> RstStreamFrame:
    return RstStreamFrame(stream, error_code=8)


def window(stream: int, more: int) -> WindowUpdateFrame:
    return WindowUpdateFrame(stream, window_increment=more)


@attrs.define
class Http2:
    """One connection."""

    sock: socket.socket
    _unread: bytes = b""
    _decoder: hpack.Decoder = attrs.field(factory=hpack.Decoder)

    @classmethod
    @contextlib.contextmanager
    def connect(cls, stoker: Stoker, **initial: int) -> Iterator[Self]:
        """A connection, on which the preface and ``initial`` settings were sent."""
        with stoker.connect() as sock:
            sock.sendall(PREFACE + settings(**initial).serialize())
            yield cls(sock)

    def send(self, *frames: Frame) -> None:
        """Send, also to a side that has closed already."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(b"".join(frame.serialize() for frame in frames))

    def frames(self) -> Iterator[Frame]:
        """The frames that come, until the other side closes."""
        with contextlib.suppress(ConnectionError):
            while True:
                while len(self._unread) < 9:
                    if not self._receive():
                        return
                frame, length = Frame.parse_frame_header(memoryview(self._unread[:9]))
                while len(self._unread) < 9 + length:
                    if not self._receive():
                        return
                frame.parse_body(memoryview(self._unread[9 : 9 + length]))
                self._unread = self._unread[9 + length :]
                yield frame

    def status(self, stream: int) -> int:
        """The status of the answer on that stream; minus the error code if it was reset."""
        for frame in self.frames():
            if isinstance(frame, HeadersFrame):
                fields = dict(self._decoder.decode(frame.data, raw=True))
                if frame.stream_id == stream:
                    return int(fields[b":status"])
            if isinstance(frame, RstStreamFrame) and frame.stream_id == stream:
                return -frame.error_code
        raise AssertionError(f"the connection closed without an answer on stream {stream}")

    def end(self) -> int | None:
        """Wait until the other side closes, and return the code of its GOAWAY, None if there was none."""
        code = None
        for frame in self.frames():
            if isinstance(frame, GoAwayFrame):
                code = frame.error_code
        return code

    def _receive(self) -> bool:
        came = self.sock.recv(65536)
        self._unread += came
        return bool(came)
