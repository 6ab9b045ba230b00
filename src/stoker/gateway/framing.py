"""HTTP/1.1 as it stands on the wire: heads of requests, and answers of engines. Two parsers do it, llhttp and h11.

Both are strict in the same way, for what two readers of a message read differently lets one request hide in another:
no message has a length twice or a length of another sort than digits, no line ends in anything but CR LF, nothing is
folded, and no control character stands in a head.
"""

from __future__ import annotations

import re
from typing import Protocol

from stoker.errors import StokerError

LONGEST_HEAD = 64 * 1024  # of a request
LONGEST_ANSWER_HEAD = 100 * 1024
MOST_HEADERS = 256
HEAD_END = b"\r\n\r\n"


class FramingError(StokerError):
    """What came is not HTTP/1.1, or not unmistakably. The message says what is wrong with it."""


class RequestHead:
    """The head of a request: names in lower case, values without the white space around them.

    ``fields`` has the last value of each name, ``repeated`` says whether a name came twice. ``version`` is ``b"1.1"``
    or ``b"1.0"``.
    """

    __slots__ = ("fields", "headers", "method", "repeated", "target", "version")

    def __init__(self, method: bytes, target: bytes, version: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.target = target
        self.version = version
        self.headers = headers
        self.fields = dict(headers)
        self.repeated = len(self.fields) != len(headers)


class AnswerReader(Protocol):
    """Reads the answers of one connection, one after the other.

    ``status`` is 0 until the head of the answer is complete; ``fields`` has the last value of each header.
    Informational answers are passed over. ``excess`` becomes true when something came that belongs to no answer.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    complete: bool
    excess: bool

    def begin(self) -> None:
        """Expect another answer."""
        ...

    def feed(self, data: bytes) -> None:
        """Take in what came. Raises FramingError; what was taken in before stays good."""
        ...

    def end(self) -> None:
        """The connection has ended, which completes an answer that has no other end. Raises FramingError otherwise."""
        ...

    def take(self) -> bytes:
        """The body as far as it came and was not taken yet."""
        ...

    def rest_was_read(self) -> None:
        """Somebody else has read what was to come of the body: the answer is complete."""
        ...

    @property
    def keeps_alive(self) -> bool:
        """Whether the engine lets the connection be used again after this answer, which is complete."""
        ...


class Framing(Protocol):
    """One parser. ``name`` is what people call it."""

    name: str

    def read_head(self, data: bytes) -> RequestHead:
        """Read the head of a request, from its first byte to the empty line that ends it. Raises FramingError."""
        ...

    def answers(self) -> AnswerReader:
        """A reader for a new connection."""
        ...


_METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"TRACE"})
_LONGEST_LENGTH = 19  # digits: as many as fit 64 bits
_NO_PATH = re.compile(rb"\*|https?://[0-9A-Za-z.:\[\]_~-]+(?:/[\x21-\x7e]*)?")


def request_head(method: bytes, target: bytes, version: bytes, headers: list[tuple[bytes, bytes]]) -> RequestHead:
    """What a parser has read, after the checks that not every parser makes. Raises FramingError."""
    if version not in (b"1.1", b"1.0"):
        raise FramingError(f"HTTP/{version.decode()} is not spoken here; send HTTP/1.1")
    if method not in _METHODS:
        raise FramingError("the method of the request is not known here")
    if target[:1] != b"/" and _NO_PATH.fullmatch(target) is None:
        raise FramingError("the target of the request is neither a path nor a URL")
    if len(headers) > MOST_HEADERS:
        raise FramingError(f"the head has more than {MOST_HEADERS} headers")
    head = RequestHead(method, target, version, headers)
    if head.repeated or b"host" not in head.fields:
        hosts = sum(name == b"host" for name, _ in headers)
        if hosts > 1 or (not hosts and version == b"1.1"):
            raise FramingError("a request of HTTP/1.1 needs one Host header, and no more")
    if len(head.fields.get(b"content-length", b"")) > _LONGEST_LENGTH:
        raise FramingError("the Content-Length is not a number of bytes that could ever come")
    if b"transfer-encoding" in head.fields:
        check_coding(headers)
    return head


def check_coding(headers: list[tuple[bytes, bytes]]) -> None:
    """Raise FramingError unless the headers name just the one transfer coding that is known here."""
    if [value.lower() for name, value in headers if name == b"transfer-encoding"] != [b"chunked"]:
        raise FramingError("the one transfer coding known here is chunked, and that once")
