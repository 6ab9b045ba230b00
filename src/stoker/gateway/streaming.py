"""One answer on its way from an engine to a client, piece by piece, by its task or by the hub."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Protocol

import trio

from stoker.gateway.connection import Connection
from stoker.gateway.events import EventGate, speaks_of_error
from stoker.gateway.framing import FramingError
from stoker.gateway.headers import HeaderList
from stoker.gateway.measures import Histogram
from stoker.gateway.routing import Lease
from stoker.gateway.sockets import Channel
from stoker.gateway.usage import OPENING_BYTES, TAIL_BYTES

IN_ONE_GO = 1024 * 1024  # bytes of one answer that are moved before others have their turn
RECENT_PIECES = 16  # that are kept to look for what the engine says at the end: the usage stands in the last but one


class Sink(Protocol):
    """Where an answer goes. All methods wait while the client is slow, and can be cancelled.

    ``channel`` is the client's connection where the hub may write to it: what :meth:`frame` gives, after :meth:`start`
    and a :meth:`send`. It is None where a server stands between. Methods raise OSError if the client is gone.
    """

    @property
    def channel(self) -> Channel | None:
        """The client's connection, or None."""
        ...

    @property
    def interrupt(self) -> Callable[[], None]:
        """Cancels whoever writes into it."""
        ...

    def frame(self, data: bytes) -> bytes:
        """A part of the body as it stands on the wire."""
        ...

    async def answer(self, status: int, headers: HeaderList, body: bytes) -> None:
        """A whole answer. ``headers`` say nothing of the framing."""
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

    ``gate`` lets only whole events through; without one, the bytes are relayed as they come. ``gaps`` is told the time
    between pieces of an event stream. ``ending`` says whether its proper end is on its way.
    """

    __slots__ = (
        "_at",
        "_clock",
        "_connection",
        "_gaps",
        "_gate",
        "_lease",
        "_opening",
        "_recent",
        "_sink",
        "ending",
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
        self._at = 0.0
        self._opening = b""
        self._recent: deque[bytes] = deque(maxlen=RECENT_PIECES)
        self.ending = False
        self.sent_bytes = 0
        self.trouble: str | None = None

    @property
    def ends(self) -> bytes:
        """The first and the last of what was relayed."""
        return self._opening + b"".join(self._recent)[-TAIL_BYTES:]

    async def first(self) -> bytes:
        """The first piece that can be relayed; empty if there is none. Raises UpstreamError."""
        while True:
            piece = self.pass_on(await self._connection.read(), self._clock())
            if piece or self._connection.reader.complete:
                return piece

    async def run(self, piece: bytes, check_end: Callable[[bytes], Awaitable[None]] | None = None) -> None:
        """Relay ``piece`` and all that follows, to the end. Raises UpstreamError if the engine breaks off.

        ``check_end`` is shown the last of it, and raises UpstreamError if that was no proper end.
        """
        connection, sink = self._connection, self._sink
        source, client = connection.channel, sink.channel
        self._opening = piece[:OPENING_BYTES]
        flow = None if source is None or client is None else _Flow(self, connection, source, client, sink.frame)
        while not connection.reader.complete:
            if piece:
                await sink.send(piece)
            if flow is not None and not flow.source.readable:
                await flow.run()
            else:
                await trio.lowlevel.checkpoint()
            piece = self.pass_on(await connection.read(), self._clock())
        rest = b"" if self._gate is None else self._gate.rest()
        if check_end is not None:
            if piece:
                await sink.send(piece)
                piece = b""
            await check_end(self.ends + rest)
        self.ending = True
        await sink.finish(piece + rest)

    async def run_plain(self, piece: bytes, length: int) -> None:
        """The same for a body of ``length`` bytes that is relayed as it comes, past the parser and without a copy."""
        connection, sink = self._connection, self._sink
        source, client = connection.channel, sink.channel
        if source is None or client is None or connection.reader.complete:
            await self.run(piece)
            return
        await sink.send(piece)
        self._opening = piece[:OPENING_BYTES]
        left = length - len(piece)
        moved_in_one_go = 0
        while left:
            if not client.is_settled:
                await client.flush()
            moved: bytes | memoryview = source.pump(client, left)
            if not moved:
                moved = await connection.read_past(left)
                moved_in_one_go = 0
                await client.send_all(moved)
            left -= len(moved)
            self.sent_bytes += len(moved)
            self._recent.append(bytes(moved[-TAIL_BYTES:]))
            self._lease.progress(self._clock())
            moved_in_one_go += len(moved)
            if moved_in_one_go > IN_ONE_GO:
                moved_in_one_go = 0
                await trio.lowlevel.checkpoint()
        connection.reader.rest_was_read()
        self.ending = True
        await sink.finish()

    def pass_on(self, body: bytes, now: float) -> bytes:
        """What of the body can be relayed now; and note what is of interest."""
        self._lease.progress(now)
        if self._gate is not None and body:
            body = self._gate.feed(body)
            if self._at:
                self._gaps.observe(now - self._at)
            self._at = now
            if self.trouble is None and speaks_of_error(body):
                self.trouble = "it sent an error in the stream"
        if body:
            self._recent.append(body[-TAIL_BYTES:])
            self.sent_bytes += len(body)
        return body


class _Flow:
    """The part of a stream that the hub relays. See :class:`stoker.gateway.sockets.Flow`.

    The task comes back for what may take time: a client that is slow, the answer's end, a failure.
    """

    __slots__ = ("_connection", "_defect", "_frame", "_reader", "_stream", "_task", "client", "source")

    def __init__(
        self, stream: Stream, connection: Connection, source: Channel, client: Channel, frame: Callable[[bytes], bytes]
    ) -> None:
        self.source = source
        self.client = client
        self._connection = connection
        self._frame = frame
        self._reader = connection.reader
        self._stream = stream
        self._defect: Exception | None = None
        self._task: trio.lowlevel.Task | None = None

    async def run(self) -> None:
        """Leave it to the hub; return when there is something for the task to do."""
        await self.client.flush()
        self.source.hub.let_flow(self)
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)
        if self._defect is not None:
            raise self._defect
        await self.client.flush()

    def take_in(self, data: bytes, now: float) -> bytes:
        """What to write, now that ``data`` came. The last of an answer, or of one that broke, is left to the task."""
        reader = self._reader
        try:
            if data:
                reader.feed(data)
            else:
                self._connection.end()
        except FramingError as error:
            self._connection.fail(error if data else None)
            self._unpark()
            return b""
        if reader.complete:
            self._unpark()
            return b""
        piece = self._stream.pass_on(reader.take(), now)
        return self._frame(piece) if piece else b""

    def held_up(self, rest: memoryview) -> None:
        """Have the task send ``rest``."""
        self.client.hold(rest)
        self._unpark()

    def break_off(self, error: OSError) -> None:
        """Have the task find ``error`` behind what came before it."""
        self._connection.fail(error)
        self._unpark()

    def fail(self, error: Exception) -> None:
        """Have the task raise ``error``."""
        self._defect = error
        self._unpark()

    def _abort(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self.source.hub.end_flow(self)
        return trio.lowlevel.Abort.SUCCEEDED

    def _unpark(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            self.source.hub.end_flow(self)
            trio.lowlevel.reschedule(task)
