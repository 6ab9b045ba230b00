"""Framing by h11, which is pure Python and so is there everywhere."""

from __future__ import annotations

import re

import h11

from stoker.gateway.framing import (
    HEAD_END,
    LONGEST_ANSWER_HEAD,
    LONGEST_HEAD,
    FramingError,
    RequestHead,
    request_head,
)

# What h11 forgives: lines that end in LF alone, folded lines, control characters of some sorts, lengths that are
# repeated or stand beside a transfer coding.
_UNLAWFUL = re.compile(rb"(?<!\r)\n|\r(?!\n)|\n[ \t]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_FIRST_LINE = re.compile(rb"[A-Z-]+ [\x21-\x7e]+ HTTP/[0-9]\.[0-9]\r\n")
_LENGTH = re.compile(rb"\ncontent-length:[ \t]*([^\r]*?)[ \t]*\r", re.IGNORECASE)
_CODING = re.compile(rb"\ntransfer-encoding:", re.IGNORECASE)
_CODING_AND_TAB = re.compile(rb"\ntransfer-encoding:[^\r]*\t\r", re.IGNORECASE)  # llhttp takes the tab for a part of it


class H11Framing:
    """The portable one."""

    name = "h11"

    def read_head(self, data: bytes) -> RequestHead:
        """See :class:`stoker.gateway.framing.Framing`."""
        _check(data)
        if _FIRST_LINE.match(data) is None:
            raise FramingError("the first line of the request is not METHOD TARGET HTTP/1.1")
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LONGEST_HEAD)
        connection.receive_data(data)
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as wrong:
            raise FramingError(f"the head of the request is not HTTP/1.1: {wrong}") from wrong
        if not isinstance(event, h11.Request):
            raise FramingError("the head of the request is not complete")
        return request_head(event.method, event.target, event.http_version, list(event.headers))

    def answers(self) -> H11Answers:
        """See :class:`stoker.gateway.framing.Framing`."""
        return H11Answers()


def _check(head: bytes) -> None:
    """Refuse what h11 would let pass."""
    if _UNLAWFUL.search(head) is not None:
        raise FramingError(
            "a line of the head ends in something else than CR LF, is folded, or holds a control character"
        )
    lengths = _LENGTH.findall(head)
    if len(lengths) > 1 or (lengths and _CODING.search(head)):
        raise FramingError("the head says more than once how long the body is")
    if lengths and not (lengths[0].isdigit() and len(lengths[0]) < 20):
        raise FramingError("the Content-Length is not a number")
    if _CODING_AND_TAB.search(head):
        raise FramingError("a tab follows the transfer coding")


class H11Answers:
    """See :class:`stoker.gateway.framing.AnswerReader`."""

    def __init__(self) -> None:
        self.excess = False
        self._head = bytearray()
        self.begin()

    def begin(self) -> None:
        """Expect another answer."""
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.fields: dict[bytes, bytes] = {}
        self.complete = False
        self._ended = False
        self._left = False
        self._lasting = False
        self._pieces: list[bytes] = []
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_ANSWER_HEAD)
        self._http.send(h11.Request(method="POST", target="/", headers=[("host", "x"), ("content-length", "0")]))
        self._http.send(h11.EndOfMessage())

    def feed(self, data: bytes) -> None:
        """Take in what came."""
        while not self.status and data:
            data = self._feed_head(data)
        if data:
            self._feed_body(data)

    def end(self) -> None:
        """The connection has ended."""
        if not self.complete:
            if self._head or not self.status:
                raise FramingError("the connection ended before the answer did")
            self._ended = True
            self._http.receive_data(b"")
            self._read()

    def take(self) -> bytes:
        """The body as far as it came and was not taken yet."""
        body = b"".join(self._pieces)
        self._pieces.clear()
        return body

    def rest_was_read(self) -> None:
        """Somebody else has read the rest."""
        self.complete = self._left = True

    @property
    def keeps_alive(self) -> bool:
        """Whether the connection can be used again."""
        if self._left:
            return self._lasting
        return not self._ended and self._http.their_state is h11.DONE and self._http.our_state is h11.DONE

    def _feed_head(self, data: bytes) -> bytes:
        """Take in a head, of which there may be several, and return what comes after it."""
        known = max(0, len(self._head) - len(HEAD_END))
        self._head += data
        end = self._head.find(HEAD_END, known)
        if end < 0:
            return b""
        head, rest = bytes(self._head[: end + len(HEAD_END)]), bytes(self._head[end + len(HEAD_END) :])
        self._head.clear()
        _check(head)
        self._http.receive_data(head)
        self._read()
        return rest

    def _feed_body(self, data: bytes) -> None:
        if self.complete:
            self.excess = True
        else:
            self._http.receive_data(data)
            self._read()

    def _read(self) -> None:
        try:
            while not self.complete:
                event = self._http.next_event()
                if isinstance(event, h11.Response):
                    self.status, self.headers = event.status_code, list(event.headers)
                    self.fields = dict(self.headers)
                    closing = b"close" in self.fields.get(b"connection", b"").lower()
                    self._lasting = event.http_version == b"1.1" and not closing
                elif isinstance(event, h11.Data):
                    self._pieces.append(bytes(event.data))
                elif isinstance(event, h11.EndOfMessage):
                    self.complete = True
                    self.excess = bool(self._http.trailing_data[0])
                elif isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    raise FramingError("it switched to another protocol, which nobody asked for")
                elif isinstance(event, type):  # NEED_DATA, PAUSED
                    return
        except h11.RemoteProtocolError as wrong:
            raise FramingError(str(wrong)) from wrong
