"""One HTTP/1.1 connection to an engine: a request out, an answer in, and again."""

from __future__ import annotations

from typing import Protocol

from stoker.errors import UpstreamError
from stoker.gateway.dialling import Origin
from stoker.gateway.failures import CutShort, NoAnswer, NotHttp
from stoker.gateway.framing import LONGEST_ANSWER_HEAD, AnswerReader, FramingError
from stoker.gateway.sockets import Channel


class Transport(Protocol):
    """What carries the bytes. ``OSError`` says that it broke."""

    async def receive(self) -> bytes:
        """The next bytes; empty at the end."""
        ...

    async def send_both(self, head: bytes, body: bytes) -> None:
        """Send a request. What the engine does not take at once may be sent while its answer is received."""
        ...

    @property
    def is_settled(self) -> bool:
        """Whether all that was sent has been written."""
        ...

    @property
    def is_stale(self) -> bool:
        """Whether a connection that should be silent isn't."""
        ...

    def shut_down(self) -> None:
        """Nothing more is sent or received: whoever waits for it is at the end."""
        ...

    def close(self) -> None:
        """Close at once."""
        ...


class Connection:
    """A connection that carries one exchange at a time. ``reader`` has the answer's status and headers.

    ``channel`` is the transport where the hub can read from it, and None where bytes are not what they seem (TLS).
    """

    __slots__ = ("_end", "_failure", "_origin", "_transport", "_unsent", "channel", "reader")

    def __init__(self, origin: Origin, transport: Transport, reader: AnswerReader) -> None:
        self._origin = origin
        self._transport = transport
        self._unsent = False
        self._end: UpstreamError | None = None
        self._failure: UpstreamError | None = None
        self.channel = transport if isinstance(transport, Channel) else None
        self.reader = reader

    async def exchange(self, head: bytes, body: bytes) -> None:
        """Send a request, and return when the head of its answer is there.

        Raises NoAnswer, CutShort, NotHttp or GivenUp.
        """
        reader = self.reader
        reader.begin()
        if self.channel is not None:
            self.channel.on_hang_up = None
        try:
            await self._transport.send_both(head, body)
        except OSError:
            self._unsent = True  # it may have answered before it hung up: that it wants no such body, for one
        heard = 0
        while not reader.status:
            heard += await self._hear(heard)
            if heard > LONGEST_ANSWER_HEAD and not _has_head(reader):
                limit = f"its head is over {LONGEST_ANSWER_HEAD} bytes"
                raise NotHttp(f"{self._origin.url} sent what is no HTTP answer: {limit}")

    def break_off(self, failure: UpstreamError) -> None:
        """End the exchange: whoever waits for its answer gets ``failure``, behind what came before."""
        self._end = failure
        self._transport.shut_down()

    async def read(self) -> bytes:
        """The next bytes of the body, all that came at once; empty at its end. Raises CutShort, NotHttp or GivenUp."""
        reader = self.reader
        while True:
            body = reader.take()
            if body or reader.complete:
                return body
            if self._failure is not None:
                raise self._failure
            try:
                await self._hear(1)
            except UpstreamError as failure:
                self._failure = failure  # what came before it first

    async def read_past(self, most: int) -> bytes:
        """The next bytes of the body, up to ``most``, past the reader. Raises CutShort or GivenUp."""
        try:
            data = await self._transport.receive()
        except OSError as error:
            raise self._broken(error) from error
        if not data:
            raise self._broken(None)
        self.reader.excess = len(data) > most
        return data[:most]

    def fail(self, error: OSError | FramingError | None) -> None:
        """Somebody else read from it, and met ``error`` or (None) the end: :meth:`read` raises it, after what came."""
        self._failure = self._broken(error)

    def end(self) -> None:
        """The peer says no more. Raises FramingError if its answer is not whole; of one that was broken off none is."""
        if self._end is not None:
            raise FramingError("it was broken off")
        self.reader.end()

    def _broken(self, error: OSError | FramingError | None) -> UpstreamError:
        if self._end is not None:
            return self._end
        if isinstance(error, FramingError):
            return NotHttp(f"{self._origin.url} sent what is no HTTP answer: {error}")
        return CutShort(f"{self._origin.url} {'broke off its answer' if error is None else 'reset the connection'}")

    @property
    def is_reusable(self) -> bool:
        """Whether another exchange can follow."""
        reader = self.reader
        sent = self._transport.is_settled and not self._unsent
        return sent and self._end is None and reader.complete and not reader.excess and reader.keeps_alive

    @property
    def is_stale(self) -> bool:
        """Whether the engine closed it while nobody used it, or said something unasked."""
        return self._transport.is_stale

    def close_when_hung_up(self) -> None:
        """Close it by itself when the engine does, until it is used again."""
        if self.channel is not None:
            self.channel.on_hang_up = self.close

    def close(self) -> None:
        """Close at once, whatever is under way."""
        self._transport.close()

    async def _hear(self, heard: int) -> int:
        """Receive once, and return how much. ``heard`` says whether anything of this answer came before."""
        try:
            data = await self._transport.receive()
        except OSError as error:
            if heard or self._end is not None:
                raise self._broken(error) from error
            raise NoAnswer(f"{self._origin.url} reset the connection") from error
        try:
            if data:
                self.reader.feed(data)
            elif heard or self._end is not None:
                self.end()
            else:
                raise NoAnswer(f"{self._origin.url} closed the connection without an answer")
        except FramingError as wrong:
            raise self._broken(wrong if data else None) from wrong
        return len(data)


def _has_head(reader: AnswerReader) -> bool:
    """Whether the head is there, and not too long: what was heard may be much of the body as well."""
    length = sum(len(name) + len(value) + 4 for name, value in reader.headers)
    return reader.status != 0 and length <= LONGEST_ANSWER_HEAD
