"""What the data plane knows of a request before its body: read once, and recognised when it comes again.

A client sends the same head with every request, but for the length of the body. So heads are remembered without that
number, and one that is known is neither parsed nor checked nor rewritten again.

Strangers can send new heads without end, and clients do that put an id into each. Neither must cost the others their
place: a head is remembered when it comes for the second time, and forgotten only if nobody has sent it for a while.
"""

from __future__ import annotations

from collections.abc import Callable

from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error
from stoker.gateway.callers import Caller
from stoker.gateway.framing import Framing, RequestHead
from stoker.gateway.headers import Fields, HeaderList, for_engine
from stoker.gateway.paths import is_proxied

MOST_KNOWN = 1024
MOST_SEEN_ONCE = 8192  # a number for each
LONGEST_KNOWN = 2048  # bytes; so much for what strangers can fill the memory with

Guard = Callable[[HeaderList], Answer | None]


class Heading:
    """The head of a POST to a proxied path, without its framing.

    ``path`` is decoded and ``target`` is not. The names of ``headers`` are lower case, ``fields`` has the last value of
    each. All of it is fit to be written as it is. ``caller`` is whoever sent it, as the keys were at ``edition``.
    """

    __slots__ = ("_lines", "_lines_of_a_stream", "caller", "edition", "fields", "headers", "path", "target")

    def __init__(self, path: str, target: bytes, headers: HeaderList, fields: Fields) -> None:
        self.path = path
        self.target = target
        self.headers = headers
        self.fields = fields
        self._lines: bytes | None = None
        self._lines_of_a_stream: bytes | None = None
        self.caller: Caller | None = None
        self.edition: object = None

    def lines(self, *, streamed: bool) -> bytes:
        """The header lines for an engine: see :func:`stoker.gateway.headers.for_engine`."""
        lines = self._lines_of_a_stream if streamed else self._lines
        if lines is None:
            lines = for_engine(self.headers, self.fields, streamed=streamed)
            if streamed:
                self._lines_of_a_stream = lines
            else:
                self._lines = lines
        return lines


class ExpressHead(Heading):
    """One that the express lane knows all about, and what the guard says of it."""

    __slots__ = ("closes", "expects", "is_in_use", "refusal")

    def __init__(self, path: str, head: RequestHead, refusal: Answer | None) -> None:
        headers = [header for header in head.headers if header[0] != b"content-length"]
        super().__init__(path, head.target, headers, head.fields)
        self.closes = head.fields.get(b"connection", b"").lower() == b"close"
        self.expects = b"expect" in head.fields
        self.refusal = refusal
        self.is_in_use = False  # whether it came again since this was last looked at


class HeadReader:
    """Reads heads by ``framing``, and remembers those of the express lane that come again.

    ``guard`` is asked about each until it is remembered.
    """

    def __init__(self, framing: Framing, guard: Guard | None) -> None:
        self._framing = framing
        self._guard = guard
        self._known: dict[bytes, ExpressHead] = {}
        self._seen_once: set[int] = set()

    def read(self, data: bytes) -> tuple[ExpressHead | None, int]:
        """The head of a request, and the length of its body; or None for one that is not the express lane's.

        ``data`` goes to the empty line that ends the head. Raises FramingError.
        """
        start = _start_of_length(data)
        if start < 0:
            return _refused_websocket(self._framing.read_head(data)), 0
        end = data.find(b"\r", start)
        key = data[:start] + data[end:]
        head = self._known.get(key)
        digits = data[start:end]
        if head is not None and len(digits) < 16 and digits.isdigit():
            head.is_in_use = True
            return head, int(digits)
        return self._read(data, key)

    def _read(self, data: bytes, key: bytes) -> tuple[ExpressHead | None, int]:
        parsed = self._framing.read_head(data)
        path = _express_path(parsed)
        if path is None:
            return _refused_websocket(parsed), 0
        head = ExpressHead(path, parsed, self._guard(parsed.headers) if self._guard is not None else None)
        if len(key) <= LONGEST_KNOWN and head.refusal is None:
            self._remember(key, head)
        return head, int(parsed.fields[b"content-length"])

    def _remember(self, key: bytes, head: ExpressHead) -> None:
        """Remember a head, if it was seen before."""
        trace = hash(key)  # of bytes: nobody outside can make two have the same
        if trace not in self._seen_once:
            if len(self._seen_once) >= MOST_SEEN_ONCE:
                self._seen_once.clear()
            self._seen_once.add(trace)
            return
        self._seen_once.discard(trace)
        while len(self._known) >= MOST_KNOWN:
            oldest = next(iter(self._known))
            old = self._known.pop(oldest)
            if old.is_in_use:  # it has another round
                old.is_in_use = False
                self._known[oldest] = old
        self._known[key] = head


_NO_WEBSOCKET = error(Code.NO_WEBSOCKET, "there are no websockets here; the API is plain HTTP")


def _refused_websocket(head: RequestHead) -> ExpressHead | None:
    """Refused here: on its way out, Hypercorn's side of one trips over what a client sends without waiting."""
    wanted = head.fields.get(b"upgrade", b"").lower() == b"websocket"
    return ExpressHead("", head, _NO_WEBSOCKET) if wanted else None


def _start_of_length(data: bytes) -> int:
    """Where the number of the header Content-Length stands in its usual spellings, or -1.

    It is sure to be that header, and the only one of its name once the head was parsed: the name fills its line up to
    the colon.
    """
    for name in (b"\r\nContent-Length: ", b"\r\ncontent-length: "):
        at = data.find(name)
        if at >= 0:
            return at + len(name)
    return -1


def _express_path(head: RequestHead) -> str | None:
    """The path of a request of which the express lane knows all there is to know; None for any other."""
    fields = head.fields
    simple = (
        head.method == b"POST"
        and head.version == b"1.1"
        and b"content-length" in fields
        and b"upgrade" not in fields
        and fields.get(b"connection", b"keep-alive").lower() in (b"keep-alive", b"close")
        and fields.get(b"expect", b"100-continue").lower() == b"100-continue"
        and not (head.repeated and _is_repeated(head.headers, b"connection", b"expect"))
        and b"%" not in head.target
        and b"#" not in head.target
    )
    path = head.target.partition(b"?")[0].decode("ascii", "replace")
    return path if simple and is_proxied(path) else None


def _is_repeated(headers: HeaderList, *wanted: bytes) -> bool:
    names = [name for name, _ in headers]
    return any(names.count(name) > 1 for name in wanted)
