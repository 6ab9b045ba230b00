"""Sockets that the hub watches, reads and writes for their tasks."""

from __future__ import annotations

import fcntl
import math
import socket
import struct
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

PIECE = 128 * 1024  # bytes that are read at once
PUMPED = 64 * 1024  # bytes that are moved at once: they come and go through the processor's cache
SMALL = 16 * 1024  # bytes that are not worth a system call of their own
_NOTHING = memoryview(b"")


class Flow(Protocol):
    """A stream from ``source`` to ``client`` whose task is parked. All methods return at once.

    The flow sees to it that its task wakes when there is something to do for it.
    """

    @property
    def source(self) -> Channel:
        """Where it is read from."""
        ...

    @property
    def client(self) -> Channel:
        """Where it is written to."""
        ...

    def take_in(self, data: bytes, now: float) -> bytes:
        """What to write, now that ``data`` came, which is empty at the end. ``now`` is monotonic seconds."""
        ...

    def held_up(self, rest: memoryview) -> None:
        """The client did not take ``rest``: it is slow, or gone."""
        ...

    def break_off(self, error: OSError) -> None:
        """The source broke."""
        ...

    def fail(self, error: Exception) -> None:
        """One of the other methods raised ``error``, which is no failure it expects: have the task raise it."""
        ...


class Watcher(Protocol):
    """What is asked of the hub. ``scratch`` is memory for whoever needs some until its next ``await``."""

    scratch: memoryview

    def forget(self, channel: Channel) -> None:
        """Watch it no longer."""
        ...

    def post(self, channel: Channel, data: bytes) -> None:
        """Have ``data`` written, soon."""
        ...

    def write_out(self) -> None:
        """Write all that was posted, now."""
        ...

    def let_flow(self, flow: Flow) -> None:
        """Relay it from now on, until :meth:`end_flow`; nobody else may read from its source meanwhile."""
        ...

    def end_flow(self, flow: Flow) -> None:
        """Relay it no longer: it is a task again that reads from its source."""
        ...


def untaken_bytes(sock: HasDescriptor) -> int:
    """How much of what was written the peer has not taken yet: what the system keeps for it."""
    queued = fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4))
    return int.from_bytes(queued, sys.byteorder)


class HasDescriptor(Protocol):
    """A socket of any kind."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


class Channel:
    """A connected socket that the hub watches. One task at a time reads from it, or one flow.

    While a task waits for something to read, the hub reads for it. What a task sends is written by the hub when all
    tasks of this turn have run: in between, nothing but Python runs. ``OSError`` says that the connection broke; a
    task that sends learns of it when it reads, or sends again.

    ``readable`` is false while there is certainly nothing to read. ``hung_up`` becomes true when the peer has closed
    its side; if nobody is reading then, ``on_hang_up`` is called (once, unless it is set again). A peer that takes
    nothing for ``patience_seconds`` of what is sent to it has broken the connection.
    """

    __slots__ = (
        "_came",
        "_failure",
        "_interrupt",
        "_posted",
        "_rest",
        "_waiter",
        "broken",
        "fd",
        "hub",
        "hung_up",
        "on_hang_up",
        "patience_seconds",
        "readable",
        "socket",
    )

    def __init__(self, hub: Watcher, sock: socket.socket) -> None:
        self.hub = hub
        self._waiter: trio.lowlevel.Task | None = None
        self._came: bytes | None = None
        self._failure: OSError | None = None
        self._interrupt: Callable[[], None] | None = None
        self._posted = False
        self._rest = _NOTHING
        self.socket = sock
        self.fd = sock.fileno()
        self.readable = True
        self.hung_up = False
        self.broken = False
        self.on_hang_up: Callable[[], None] | None = None
        self.patience_seconds = math.inf

    async def receive(self) -> bytes:
        """The next bytes, all that are there up to ``PIECE``; empty at the end. Does not always yield."""
        while True:
            data = self._receive_now()
            if data is not None:
                return data
            if self._rest:
                await self._write_rest(until_readable=True)
                continue
            if self.broken:
                raise BrokenPipeError("the connection is broken")
            self._waiter = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._unpark)
            if self._failure is not None:
                try:
                    raise self._failure
                finally:
                    self._failure = None  # its traceback leads here: that would be a circle
            if self._came is not None:
                data, self._came = self._came, None
                return data

    async def send_all(self, data: bytes) -> None:
        """Send; waits while the peer is slow. Does not always yield. Cancelled, nobody knows how much was sent."""
        if self.broken:
            raise BrokenPipeError("the connection is broken")
        if self._rest:
            await self.flush()
        if len(data) <= SMALL:
            self._posted = True
            self.hub.post(self, data)
        else:
            if self._posted:
                self.hub.write_out()
            self.write(data)
            await self.flush()

    async def send_both(self, head: bytes, body: bytes) -> None:
        """The same as ``send_all(head + body)``, but without a copy of a large body, and without waiting.

        What does not fit is written while somebody receives: so an answer that comes before all was sent is heard.
        """
        if len(body) <= SMALL or self._posted or self._rest or self.broken:
            await self.send_all(head + body)
            return
        try:
            sent = self.socket.sendmsg((head, body))
        except BlockingIOError:
            sent = 0
        except OSError:
            self.broken = True
            raise
        if sent < len(head):
            self._rest = memoryview(head[sent:] + body)
        elif sent < len(head) + len(body):
            self._rest = memoryview(body)[sent - len(head) :]

    def pump(self, client: Channel, most: int) -> memoryview:
        """Move what there is to read, up to ``most`` bytes, to ``client``, and show it, until the next ``await``.

        What ``client`` does not take is left for its :meth:`flush`. Nothing is shown also at the end, and when the
        connection broke: :meth:`receive` tells which.
        """
        scratch = self.hub.scratch[: min(most, PUMPED)]
        size = 0
        if self.readable:
            try:
                size = self.socket.recv_into(scratch)
            except BlockingIOError:
                self.readable = False
            except OSError:
                self.broken = True  # which the one who receives next is told
        moved = scratch[:size]
        if size:
            client.write(moved)
            client._rest = memoryview(bytes(client._rest))  # the scratch is somebody else's soon
        return moved

    async def flush(self) -> None:
        """Return when all that was sent has been written; waits while the peer is slow."""
        if self._posted:
            self.hub.write_out()
        if self._rest:
            await self._write_rest(until_readable=False)
        if self.broken:
            raise BrokenPipeError("the connection is broken")

    def hold(self, rest: memoryview) -> None:
        """Keep what somebody else could not write, for :meth:`flush`."""
        self._rest = rest

    def write(self, data: bytes | memoryview) -> None:
        """Write now, and keep what does not fit for a task that flushes, sends or receives."""
        self._posted = False
        if self._rest:
            self._rest = memoryview(bytes(self._rest) + data)
        if self._rest or self.broken:
            return
        try:
            sent = self.socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.broken = True
            self.readable = True  # it is by reading that its task finds out why
            self.wake()
            return
        if sent < len(data):
            self._rest = memoryview(data)[sent:]
            self.wake()

    def wake(self) -> None:
        """There may be something to read, or something else to do."""
        task = self._waiter
        if self._interrupt is not None:
            self._interrupt()
        elif task is not None:
            if self.readable and not self._rest:
                try:
                    self._came = self._receive_now()
                except OSError as error:
                    self._failure = error
                else:
                    if self._came is None and not self.broken:
                        return
            self._waiter = None
            trio.lowlevel.reschedule(task)
        elif self.hung_up and self.on_hang_up is not None:
            notice, self.on_hang_up = self.on_hang_up, None
            notice()

    @property
    def is_settled(self) -> bool:
        """Whether all that was sent has been written."""
        return not (self._posted or self._rest or self.broken)

    @property
    def has_unread(self) -> bool:
        """Whether something came that its task has not seen yet. Looks for itself: the hub may not have noticed."""
        if self._came:
            return True
        try:
            return bool(self.socket.recv(1, socket.MSG_PEEK))
        except OSError:  # nothing is there, or the connection broke
            return False

    @property
    def is_stale(self) -> bool:
        """Whether a connection that should be silent isn't: its peer closed it, or sends what nobody asked for."""
        if self.hung_up or self.broken:
            return True
        if not self.readable:
            return False
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            self.readable = False
            return False
        except OSError:
            pass
        return True

    def release(self) -> socket.socket:
        """Give the socket back, watched no longer."""
        if self._posted:
            self.hub.write_out()
        self.hub.forget(self)
        return self.socket

    def shut_down(self) -> None:
        """Nothing more is sent or received: whoever waits for it is at the end, behind what came already."""
        with suppress(OSError):  # it is so already
            self.socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close at once, whatever is under way; what was sent is written if the peer takes it. May be called again."""
        if self.socket.fileno() >= 0:
            if self._posted:
                self.hub.write_out()
            self.on_hang_up = None  # which may lead to whoever holds this
            self.hub.forget(self)
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    async def _write_rest(self, *, until_readable: bool) -> None:
        """Write what is left; or less, if the peer has something to say: that it does not want the rest, for one."""
        while self._rest and not (until_readable and self.readable):
            untaken = untaken_bytes(self.socket)
            with trio.CancelScope(deadline=trio.current_time() + self.patience_seconds) as scope:
                self._interrupt = scope.cancel if until_readable else None
                try:
                    await trio.lowlevel.wait_writable(self.socket)
                finally:
                    self._interrupt = None
            if not scope.cancelled_caught:
                rest, self._rest = self._rest, _NOTHING
                self.write(rest)
            elif not (until_readable and self.readable) and untaken_bytes(self.socket) >= untaken:
                self._give_up()

    def _give_up(self) -> None:
        """Have the connection reset: what is on its way would else stay in the system's memory."""
        self.broken = True
        self._rest = _NOTHING
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise TimeoutError(f"the peer took nothing for {self.patience_seconds:g} seconds")

    def _receive_now(self) -> bytes | None:
        if not self.readable:
            return None
        try:
            size = self.socket.recv_into(self.hub.scratch)
        except BlockingIOError:
            self.readable = False
            return None
        if size < PIECE and not self.hung_up:
            self.readable = False  # epoll(7): a short read has emptied a stream
        return bytes(self.hub.scratch[:size])  # cheaper than to have as much memory made and cut for each

    def _unpark(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED
