"""One HTTP/1.1 connection to an engine, framed by h11."""

from __future__ import annotations

from typing import Self

import h11
import trio

from stoker.errors import UpstreamError
from stoker.gateway.dialling import Origin, Stream
from stoker.gateway.failures import CutShort, NoAnswer, NotHttp, Unsendable
from stoker.gateway.headers import HeaderList

LONGEST_HEAD = 100 * 1024
MOST_INFORMATIONAL = 32
_RECEIVE = 64 * 1024
_JOINED_BODY = 64 * 1024  # up to this size a body is sent in one piece with its head


class Connection:
    """A connection that carries one exchange at a time."""

    def __init__(self, origin: Origin, stream: Stream) -> None:
        self._origin = origin
        self._stream = stream
        self.socket = (stream.transport_stream if isinstance(stream, trio.SSLStream) else stream).socket
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)
        self._heard = False
        self._unsent = False
        self._complete = False
        self._failure: UpstreamError | None = None

    async def exchange(self, method: bytes, target: bytes, headers: HeaderList, body: bytes) -> Response:
        """Send a request and wait for the head of its answer. Raises NoAnswer, CutShort, NotHttp or Unsendable."""
        self._heard = self._complete = False
        head = self._head(method, target, headers, body)
        try:
            if len(body) <= _JOINED_BODY:
                await self._stream.send_all(head + body)
            else:
                await self._stream.send_all(head)
                await self._stream.send_all(body)
        except trio.BrokenResourceError:
            self._unsent = True  # it may have answered before it hung up: that it wants no such body, for one
        for _ in range(MOST_INFORMATIONAL):
            event = await self._event()
            if isinstance(event, h11.Response):
                return Response(self, event.status_code, list(event.headers))
        raise NotHttp(f"{self._origin.url} sent {MOST_INFORMATIONAL} informational answers and no other")

    async def chunk(self) -> bytes:
        """The next bytes of the body, all that came at once; empty at its end. Raises CutShort or NotHttp."""
        if self._failure is not None:
            raise self._failure
        parts: list[bytes] = []
        while not self._complete:
            try:
                event = self._parse()
            except UpstreamError as failure:
                if not parts:
                    raise
                self._failure = failure  # what came before it first
                break
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._complete = True
            elif parts:
                break
            else:
                await self._receive()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def finish(self) -> bool:
        """Make ready for another exchange, and say whether there can be one."""
        if not self._complete or self._unsent or self._http.trailing_data[0]:
            return False
        try:
            self._http.start_next_cycle()
        except h11.LocalProtocolError:  # one of the two sides said "close"
            return False
        return True

    def close(self) -> None:
        """Close at once, whatever is under way."""
        self.socket.close()

    def _head(self, method: bytes, target: bytes, headers: HeaderList, body: bytes) -> bytes:
        """The request's head. All of the request is run through h11's state machine, the body without being copied."""
        framed = [(b"host", self._origin.authority), *headers, (b"content-length", b"%d" % len(body))]
        try:
            request = h11.Request(method=method, target=self._origin.target(target), headers=framed)
            head: bytes = self._http.send(request)
            self._http.send_with_data_passthrough(h11.Data(data=body))
            self._http.send(h11.EndOfMessage())
        except h11.LocalProtocolError as wrong:
            raise Unsendable(f"the request can't be sent to {self._origin.url}: {wrong}") from wrong
        return head

    async def _event(self) -> h11.Event:
        while True:
            event = self._parse()
            if event is not None:
                return event
            await self._receive()

    def _parse(self) -> h11.Event | None:
        """The next event, or None if it needs more data."""
        try:
            event = self._http.next_event()
        except h11.RemoteProtocolError as wrong:
            if self._http.trailing_data[1]:
                raise CutShort(f"{self._origin.url} broke off its answer") from wrong
            raise NotHttp(f"{self._origin.url} sent what is no HTTP answer: {wrong}") from wrong
        if isinstance(event, type):  # h11.NEED_DATA, h11.PAUSED
            return None
        return event

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive_some(_RECEIVE)
        except trio.BrokenResourceError as broken:
            failure = CutShort if self._heard else NoAnswer
            raise failure(f"{self._origin.url} reset the connection") from broken
        if not data and not self._heard:
            raise NoAnswer(f"{self._origin.url} closed the connection without an answer")
        self._heard = True
        self._http.receive_data(bytes(data))


class Response:
    """The answer of an engine. Iterating over it gives the bytes of its body as they come."""

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: Connection, status: int, headers: HeaderList) -> None:
        self._connection = connection
        self.status = status
        self.headers = headers

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._connection.chunk()
        if not chunk:
            raise StopAsyncIteration
        return chunk
