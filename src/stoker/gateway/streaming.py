"""One answer on its way from an engine to a client, piece by piece, by its task or by the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from stoker.gateway.connection import Connection
from stoker.gateway.events import EventGate, speaks_of_error
from stoker.gateway.framing import FramingError
from stoker.gateway.headers import HeaderList
from stoker.gateway.hub import Channel
from stoker.gateway.measures import Histogram
from stoker.gateway.routing import Lease
from stoker.gateway.usage import TAIL_BYTES


class Sink(Protocol):
    """Where an answer goes. All methods wait while the client is slow, and can be cancelled.

    ``channel`` is the client's connection where the hub may write to it: what :meth:`frame` gives, after :meth:`start`
    and a :meth:`send`. It is None where a server stands between. Methods raise OSError if the client is gone.
    """

    @property
    def channel(self) -> Channel | None:
        """The client's connection, or None."""
        ...

    def frame(self, data: bytes) -> bytes:
        """A part of the body as it stands on the wire."""
        ...

    async def start(self, status: int, headers: HeaderList, length: int | None) -> None:
        """The head. ``headers`` say nothing of the framing: that is chosen by ``length``, if it is known."""
        ...

    async def send(self, data: bytes) -> None:
        """Some of the body."""
        ...

    async def finish(self, data: bytes = b"") -> None:
        """The last of the body, and its proper end."""
        ...

    async def abort(self) -> None:
        """End without a proper end: the connection must close so that the client sees that something is missing."""
        ...


class Stream:
    """The body of one answer. While it flows, its task is parked and the hub relays it.

    The task comes back for what may take time: a client that is slow, the answer's end, a failure. ``gate`` lets only
    whole events through; without one, the bytes are relayed as they come. ``gaps`` is told the time between pieces.
    """

    __slots__ = (
        "_at",
        "_channel",
        "_client",
        "_clock",
        "_connection",
        "_defect",
        "_gaps",
        "_gate",
        "_lease",
        "_newer",
        "_older",
        "_rest",
        "_sink",
        "_task",
        "sent_bytes",
        "trouble",
    )

    def __init__(
        self,
        connection: Connection,
        sink: Sink,
        lease: Lease,
        clock: Callable[[], float],
        gate: EventGate | None,
        gaps: Histogram,
    ) -> None:
        self._connection = connection
        self._sink = sink
        self._lease = lease
        self._clock = clock
        self._gate = gate
        self._gaps = gaps
        self._client = sink.channel
        self._channel = connection.channel if self._client is not None else None
        self._at = 0.0
        self._older = self._newer = b""
        self._defect: BaseException | None = None
        self._rest: memoryview | None = None
        self._task: trio.lowlevel.Task | None = None
        self.sent_bytes = 0
        self.trouble: str | None = None

    @property
    def tail(self) -> bytes:
        """The last of what was relayed."""
        return (self._older + self._newer)[-TAIL_BYTES:]

    async def first(self) -> bytes:
        """The first piece that can be relayed; empty if there is none. Raises UpstreamError."""
        while True:
            piece = self._pass(await self._connection.read())
            if piece or self._connection.reader.complete:
                return piece

    async def run(self, piece: bytes) -> None:
        """Relay ``piece`` and all that follows, to the end. Raises UpstreamError if the engine breaks off."""
        connection, sink, channel = self._connection, self._sink, self._channel
        while not connection.reader.complete:
            if piece:
                await sink.send(piece)
            if channel is not None and not channel.readable:
                await self._flow(channel)
            else:
                await trio.lowlevel.checkpoint()
            piece = self._pass(await connection.read())
        if self._gate is not None:
            piece += self._gate.rest()
        await sink.finish(piece)

    def step(self) -> None:
        """Relay what has come, for the hub. See :class:`stoker.gateway.hub.Flow`."""
        channel, client, reader = self._channel, self._client, self._connection.reader
        assert channel is not None
        assert client is not None
        try:
            data = channel.receive_nowait()
            if data is None:
                return
            if data:
                reader.feed(data)
            else:
                reader.end()
        except (OSError, FramingError) as error:
            self._connection.fail(error)
            self._unpark()
            return
        if reader.complete:
            self._unpark()
            return
        piece = self._pass(reader.take())
        if piece:
            framed = self._sink.frame(piece)
            try:
                sent = client.send_nowait(framed)
            except OSError:  # the task will find out by itself
                sent = 0
            if sent < len(framed):
                self._rest = memoryview(framed)[sent:]
                self._unpark()
                return
        if channel.readable:
            channel.revisit()

    def fail(self, error: BaseException) -> None:
        """Have the task raise ``error``."""
        self._defect = error
        self._unpark()

    async def _flow(self, channel: Channel) -> None:
        """Leave it to the hub; return when there is something to do for the task."""
        channel.flow = self
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._defect is not None:
            raise self._defect
        if self._rest is not None:
            rest, self._rest = self._rest, None
            assert self._client is not None
            await self._client.send_rest(rest)

    def _abort(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        assert self._channel is not None
        self._channel.flow = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _unpark(self) -> None:
        assert self._channel is not None
        assert self._task is not None
        self._channel.flow = None
        trio.lowlevel.reschedule(self._task)

    def _pass(self, body: bytes) -> bytes:
        """What of it can be relayed now; and note what is of interest."""
        now = self._clock()
        self._lease.progress(now)
        if self._gate is not None:
            body = self._gate.feed(body)
            if self._at:
                self._gaps.observe(now - self._at)
            self._at = now
            if b'{"error"' in body and self.trouble is None and speaks_of_error(body):
                self.trouble = "it sent an error in the stream"
        if body:
            self._older, self._newer = self._newer, body
            self.sent_bytes += len(body)
        return body
