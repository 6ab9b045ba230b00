"""Framing by llhttp, the parser of Node.js, through ``httptools``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from stoker.gateway.framing import AnswerReader, Framing, FramingError, RequestHead, check_coding, request_head
from stoker.gateway.h11_framing import H11Framing


class LlhttpFraming:
    """The fast one. ``httptools`` is the module, which is not there everywhere."""

    name = "httptools"

    def __init__(self, httptools: ModuleType) -> None:
        self._parser = httptools.HttpRequestParser
        self._answer_parser = httptools.HttpResponseParser
        self._error: type[Exception] = httptools.HttpParserError
        self._upgrade: type[Exception] = httptools.HttpParserUpgrade

    def read_head(self, data: bytes) -> RequestHead:
        """See :class:`stoker.gateway.framing.Framing`."""
        head = _Head()
        parser = self._parser(head)
        try:
            parser.feed_data(data)
        except self._upgrade:  # it ends at the head then, and so does what we want of it
            pass
        except self._error as wrong:
            raise FramingError(f"the head of the request is not HTTP/1.1: {wrong}") from wrong
        method = parser.get_method()
        # llhttp takes other protocols' version for HTTP's, more than one space, and no version at all.
        expected = b"%b %b HTTP/%b\r\n" % (method, head.target, parser.get_http_version().encode())
        if not data.startswith(expected):
            raise FramingError("the first line of the request is not METHOD TARGET HTTP/1.1")
        return request_head(method, head.target, expected[-5:-2], head.headers)

    def answers(self) -> AnswerReader:
        """See :class:`stoker.gateway.framing.Framing`."""
        return _Answers(self._answer_parser, self._error, self._upgrade)


class _Head:
    """What llhttp calls back while it reads the head of a request."""

    __slots__ = ("headers", "target")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, target: bytes) -> None:
        self.target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))


class _Answers:
    """See :class:`stoker.gateway.framing.AnswerReader`."""

    __slots__ = (
        "_error",
        "_framed",
        "_kept",
        "_make",
        "_parser",
        "_pieces",
        "_upgrade",
        "complete",
        "excess",
        "fields",
        "headers",
        "status",
    )

    def __init__(self, parser: Any, error: type[Exception], upgrade: type[Exception]) -> None:
        self._error = error
        self._upgrade = upgrade
        self._pieces: list[bytes] = []
        self.excess = False
        self.begin()
        self._make = parser
        self._parser = parser(self)

    def begin(self) -> None:
        """Expect another answer."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.fields: dict[bytes, bytes] = {}
        self.complete = False
        self._framed = False

    def feed(self, data: bytes) -> None:
        """Take in what came."""
        try:
            self._parser.feed_data(data)
        except (self._error, self._upgrade) as wrong:
            if self.complete:
                self.excess = True
            elif isinstance(wrong, self._upgrade):
                raise FramingError("it switched to another protocol, which nobody asked for") from None
            else:
                raise FramingError(str(wrong)) from wrong

    def end(self) -> None:
        """The connection has ended."""
        if not self.status or self._framed:
            raise FramingError("the connection ended before the answer did")
        self.complete = True
        self._kept = False

    def take(self) -> bytes:
        """The body as far as it came and was not taken yet."""
        pieces = self._pieces
        if len(pieces) == 1:
            return pieces.pop()
        self._pieces = []
        return b"".join(pieces)

    def rest_was_read(self) -> None:
        """Somebody else has read the rest."""
        self.complete = True
        self._kept = self._parser.should_keep_alive()
        self._parser = self._make(self)

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection can be used again."""
        return self._kept

    # What llhttp calls back

    def on_message_begin(self) -> None:
        if self.complete:
            self.excess = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # later ones are trailers, which end here
            self.headers.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        if self.complete:
            return
        status: int = self._parser.get_status_code()
        if status < 200:
            self.headers = []
            return
        fields = self.fields = dict(self.headers)
        if b"transfer-encoding" in fields:
            check_coding(self.headers)  # llhttp would pass on what another one makes of the body
        self.status = status
        self._framed = b"content-length" in fields or b"transfer-encoding" in fields or status in (204, 304)

    def on_body(self, body: bytes) -> None:
        if not self.complete:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        if self.status:
            self.complete = True
            self._kept = self._parser.should_keep_alive()


def best_framing(httptools: ModuleType | None) -> Framing:
    """The fastest framing there is, given the module or None where it could not be loaded."""
    return H11Framing() if httptools is None else LlhttpFraming(httptools)
