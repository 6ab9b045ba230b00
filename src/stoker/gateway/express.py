"""The express lane: requests for engines, from the client's socket to the gateway and back, with nothing between.

It takes what it is sure of: a POST of HTTP/1.1 to a proxied path, with a body whose length is told. What is not
unmistakably HTTP it refuses. All else it hands over as it came, to a server that understands more.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import attrs
import trio

from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error, too_large
from stoker.gateway.forward import Forwarder
from stoker.gateway.framing import HEAD_END, LONGEST_HEAD, FramingError
from stoker.gateway.heading import ExpressHead, HeadReader
from stoker.gateway.pace import body_deadline, too_slow
from stoker.gateway.sockets import Channel
from stoker.gateway.wire import DateHeader, WireSink
from stoker.settings import GatewaySettings

KEEP_ALIVE_SECONDS = 75.0
HEAD_SECONDS = 10.0
LINGER_SECONDS = 2.0
LAST_CHANCE_SECONDS = 0.5  # in a shutdown, for the request of a client that has just connected
MOST_LINGERED = 1024 * 1024  # bytes of what a client goes on sending that is answered already
_HTTP_2 = b"PRI * HTTP/2.0\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@attrs.frozen
class ExpressLane:
    """What all connections share."""

    forwarder: Forwarder
    settings: GatewaySettings
    heads: HeadReader
    clock: Callable[[], float]
    date: DateHeader = attrs.field(factory=DateHeader)


class Visit:
    """One client's connection, while it is in this lane.

    ``deadline`` is when the client has to be done with what it is at.
    """

    __slots__ = (
        "_at",
        "_buffer",
        "_channel",
        "_head",
        "_is_cut_short",
        "_is_new",
        "_is_slow",
        "_lane",
        "_length",
        "_reads_body",
        "_scope",
        "_sink",
        "deadline",
        "is_idle",
    )

    def __init__(self, lane: ExpressLane, channel: Channel) -> None:
        self._lane = lane
        self._channel = channel
        self._buffer = b""
        self._at = 0
        self._head: ExpressHead | None = None
        self._length = 0
        self._scope = trio.CancelScope()
        self._sink = WireSink(channel, lane.date, self.cut_short)
        self.is_idle = self._is_new = True
        self._is_cut_short = self._is_slow = self._reads_body = False
        self.deadline = self._lane.clock() + HEAD_SECONDS

    async def run(self) -> bytes | None:
        """Serve until the connection is over, or return what was read of a request that is for somebody else.

        A client that hangs up cancels what is done for it.
        """
        try:
            with self._scope, suppress(OSError):  # of the client's connection: those of engines are UpstreamErrors
                while await self._read_head():
                    head, length = self._head, self._length
                    if head is None:
                        await self._channel.flush()
                        return self._buffer
                    if not await self._serve(head, length):
                        return None
            if self._is_slow or self._is_cut_short:
                with suppress(OSError), trio.move_on_after(LINGER_SECONDS):
                    await (self._refuse(self._too_slow(), self._head) if self._is_slow else self._hang_up())
            return None
        finally:
            self._sink.interrupt = _nothing  # else the two keep each other, until a collection of garbage

    def close_if_idle(self) -> None:
        """End it now if no request is under way, else after the answer.

        A request may be on its way already: one that came and was not read yet is answered, and a client that has
        connected and asked nothing so far has a moment to do so. It could not know, and would be reset.
        """
        self._sink.last = True
        if not self.is_idle:
            return
        if self._is_new or self._channel.has_unread:
            self._scope.deadline = self._lane.clock() + LAST_CHANCE_SECONDS
        else:
            self.leave()

    def keep_time(self, now: float) -> None:
        """End it if the client takes longer than it may; one whose request is under way is told. To be called often."""
        if self.deadline < now:
            self._is_slow = self._reads_body
            self.leave()

    @property
    def is_arriving(self) -> bool:
        """Whether a request has begun of which not even the head is there."""
        return not (self.is_idle or self._reads_body) and self.deadline < math.inf

    def make_way(self) -> bool:
        """End it at once, for others; but not if a request has just come. Says whether it ends."""
        if self.is_idle and self._channel.has_unread:
            return False
        self.leave()
        return True

    def cut_short(self) -> None:
        """End it with the last words of the request that is under way."""
        self._is_cut_short = True
        self.leave()

    def leave(self) -> None:
        """End it at once, whatever is under way."""
        self._scope.cancel()

    async def _read_head(self) -> bool:
        """Read the head of a request into ``_head``; None is there then if it is not ours.

        Says whether there is one at all: the connection may be over, or have been refused.
        """
        known = 0
        while (end := self._buffer.find(HEAD_END, known)) < 0:
            known = max(0, len(self._buffer) - len(HEAD_END))
            refusal = _hopeless(self._buffer)
            if refusal is not None:
                return await self._refuse(refusal)
            data = await self._channel.receive()
            if not data:
                return False
            self._buffer = _without_empty_lines(self._buffer + data)
            if self.is_idle and self._buffer:
                self.is_idle = False
                if self._sink.last:
                    self._scope.deadline = math.inf  # it took its last chance
                if HEAD_END not in data:
                    self.deadline = self._lane.clock() + HEAD_SECONDS
        if self._buffer.startswith(_HTTP_2):
            self._head = None
            return True
        end += len(HEAD_END)
        if end > LONGEST_HEAD:
            return await self._refuse(_HEAD_TOO_LARGE)
        try:
            self._head, self._length = self._lane.heads.read(self._buffer[:end])
        except FramingError as wrong:
            return await self._refuse(error(Code.MALFORMED_REQUEST, str(wrong)))
        self._at = end
        return True

    async def _serve(self, head: ExpressHead, length: int) -> bool:
        """Answer one request. Says whether another one may follow."""
        lane, sink = self._lane, self._sink
        if head.refusal is not None:
            return await self._refuse(head.refusal, head)
        caller = lane.forwarder.keys.knock(head)
        if isinstance(caller, Answer):
            return await self._refuse(caller, head)
        if length > lane.settings.max_body_bytes:
            return await self._refuse(too_large(lane.settings.max_body_bytes), head)
        self._is_new = False
        self._reads_body = True
        body = await self._read_body(length, expects=head.expects)
        self._reads_body = False
        if body is None or self._channel.hung_up:
            return False
        self.deadline = math.inf
        sink.last = sink.last or head.closes
        self._channel.on_hang_up = self.leave
        await lane.forwarder.forward(head, body, sink, caller)
        if sink.last:
            return await self._hang_up()
        self._channel.on_hang_up = None
        if self._buffer:  # pipelined: others have their turn first
            await trio.lowlevel.checkpoint()
            self._buffer = _without_empty_lines(self._buffer)
        self.is_idle = not self._buffer
        self.deadline = lane.clock() + (KEEP_ALIVE_SECONDS if self.is_idle else HEAD_SECONDS)
        return True

    async def _read_body(self, length: int, *, expects: bool) -> bytes | None:
        """The whole body, or None if the client went away."""
        start, buffer = self._at, self._buffer
        end = start + length
        there = len(buffer) - start
        if there >= length:
            self._buffer = buffer[end:]
            return buffer[start:end]
        if expects and not there:
            await self._channel.send_all(_CONTINUE)
        parts: list[bytes | memoryview] = [memoryview(buffer)[start:]]
        pace, began = self._lane.settings.min_body_bytes_per_second, self._lane.clock()
        while there < length:
            self.deadline = body_deadline(began, there, self._lane.clock(), pace)
            data = await self._channel.receive()
            if not data:
                return None
            parts.append(data)
            there += len(data)
            await trio.lowlevel.checkpoint()
        body = b"".join(parts)
        self._buffer = body[length:]
        return body[:length] if self._buffer else body

    def _too_slow(self) -> Answer:
        return too_slow(self._lane.settings.min_body_bytes_per_second)

    async def _refuse(self, answer: Answer, head: ExpressHead | None = None) -> Literal[False]:
        """Answer, and end the connection."""
        self.is_idle = False
        self._sink.last = True
        await self._lane.forwarder.refuse(answer, self._sink, head)
        return await self._hang_up()

    async def _hang_up(self) -> Literal[False]:
        """End the connection so that the client reads the answer: one that still sends would be reset.

        Much of what it still sends is not read, though. It is then left to itself for as long.
        """
        await self._channel.flush()
        self._channel.on_hang_up = None
        self._channel.socket.shutdown(socket.SHUT_WR)
        self.deadline = math.inf
        unheard = 0
        with trio.move_on_after(LINGER_SECONDS):
            while data := await self._channel.receive():
                unheard += len(data)
                if unheard > MOST_LINGERED:
                    await trio.sleep_forever()
                await trio.lowlevel.checkpoint()
        return False


def _nothing() -> None:
    """There is nothing to interrupt any more."""


_HEAD_TOO_LARGE = error(Code.HEAD_TOO_LARGE, f"the head of the request is larger than {LONGEST_HEAD} bytes")
_NOT_HTTP = error(Code.MALFORMED_REQUEST, "this is not HTTP/1.1: a head is lines that end in CR LF")


def _hopeless(start: bytes) -> Answer | None:
    """The refusal of what can't become a request any more, however much follows."""
    if len(start) > LONGEST_HEAD:
        return _HEAD_TOO_LARGE
    if len(start) > 1 and (not start[:1].isalpha() or start.count(b"\n") != start.count(b"\r\n")):
        return _NOT_HTTP
    return None


def _without_empty_lines(start: bytes) -> bytes:
    """What follows the empty lines that some clients send after a body (RFC 9112, 2.2)."""
    at = 0
    while start.startswith(b"\r\n", at):
        at += 2
    return start[at:]
