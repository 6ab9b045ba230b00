"""The hub: one task that watches all sockets of the data plane, and relays streams itself.

Waiting for a socket through Trio costs two system calls and a turn of its loop each time. Here every socket is
registered once, edge-triggered, in a poller of our own, which is itself what one Trio task waits for. So a turn of the
loop serves all sockets that have become ready meanwhile, and a stream that flows is relayed without waking its task.
"""

from __future__ import annotations

import socket
from typing import Protocol

import trio

from stoker.gateway.poller import Poller

PIECE = 64 * 1024  # bytes that are read at once


class Flow(Protocol):
    """A stream that the hub relays while its task is parked."""

    def step(self) -> None:
        """Relay what has come; must return at once. The flow itself sees to it that its task wakes in the end."""
        ...

    def fail(self, error: BaseException) -> None:
        """A step raised ``error``, which is no failure it expects: have the task raise it."""
        ...


class Hub:
    """Watches sockets. :meth:`run` is its task; nothing wakes while that does not run."""

    def __init__(self) -> None:
        self._poller = Poller()
        self._channels: dict[int, Channel] = {}
        self._again: list[Channel] = []

    async def run(self) -> None:
        """Serve, until cancelled; then the poller is closed, and the hub of no more use."""
        try:
            while True:
                if self._again:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._poller.fileno())
                self._turn()
        finally:
            self._poller.close()

    def watch(self, sock: socket.socket) -> Channel:
        """A channel over a connected socket, which it owns from now on."""
        sock.setblocking(False)  # noqa: FBT003 - the standard library takes it so
        channel = self._channels[sock.fileno()] = Channel(self, sock)
        self._poller.add(channel.fd)
        return channel

    def forget(self, channel: Channel) -> None:
        """Watch it no longer."""
        if self._channels.pop(channel.fd, None) is not None and not self._poller.closed:
            self._poller.remove(channel.fd)

    def revisit(self, channel: Channel) -> None:
        """Let the others have their turn, then this one again: there is more to read, which no edge will tell."""
        self._again.append(channel)

    def _turn(self) -> None:
        again, self._again = self._again, []
        for channel in again:
            channel.wake()
        channels = self._channels
        for fd, hung_up in self._poller.poll():
            channel = channels.get(fd)  # type: ignore[assignment]
            if channel is not None:
                channel.readable = True
                if hung_up:
                    channel.hung_up = True
                channel.wake()


class Channel:
    """A connected socket that the hub watches. One task at a time reads from it, or one flow.

    Its methods try the socket first and wait only if they must; ``OSError`` says that the connection broke.
    ``readable`` is false while there is certainly nothing to read. ``hung_up`` becomes true when the peer has closed
    its side; if nobody is reading then, ``on_hang_up`` is called (once, unless it is set again).
    """

    __slots__ = ("_hub", "_waiter", "fd", "flow", "hung_up", "on_hang_up", "readable", "socket")

    def __init__(self, hub: Hub, sock: socket.socket) -> None:
        self._hub = hub
        self._waiter: trio.lowlevel.Task | None = None
        self.socket = sock
        self.fd = sock.fileno()
        self.readable = True
        self.hung_up = False
        self.flow: Flow | None = None
        self.on_hang_up: HangUp | None = None

    async def receive(self) -> bytes:
        """The next bytes, all that are there up to ``PIECE``; empty at the end. Does not always yield."""
        while True:
            data = self.receive_nowait()
            if data is not None:
                return data
            await self._park()

    def receive_nowait(self) -> bytes | None:
        """What there is to read now, empty at the end, or None."""
        if not self.readable:
            return None
        try:
            data = self.socket.recv(PIECE)
        except BlockingIOError:
            self.readable = False
            return None
        if len(data) < PIECE and not self.hung_up:
            self.readable = False  # epoll(7): a short read has emptied a stream
        return data

    async def send_all(self, data: bytes | memoryview) -> None:
        """Send; waits while the peer is slow. After a cancellation nobody knows how much was sent."""
        sent = self.send_nowait(data)
        if sent < len(data):
            await self.send_rest(memoryview(data)[sent:])

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what fits now and return how much that was."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    async def send_rest(self, rest: memoryview) -> None:
        """Send what did not fit."""
        while rest:
            await trio.lowlevel.wait_writable(self.socket)
            rest = rest[self.send_nowait(rest) :]

    def wake(self) -> None:
        """Called by the hub: the socket may have something."""
        if self.flow is not None:
            try:
                self.flow.step()
            except Exception as error:  # noqa: BLE001 - the connection boundary: the flow's own task raises it
                self.flow.fail(error)
        elif self._waiter is not None:
            task, self._waiter = self._waiter, None
            trio.lowlevel.reschedule(task)
        elif self.hung_up and self.on_hang_up is not None:
            notice, self.on_hang_up = self.on_hang_up, None
            notice()

    def revisit(self) -> None:
        """See :meth:`Hub.revisit`."""
        self._hub.revisit(self)

    @property
    def is_stale(self) -> bool:
        """Whether a connection that should be silent isn't: its peer closed it, or sends what nobody asked for."""
        if self.hung_up:
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
        self._hub.forget(self)
        return self.socket

    def close(self) -> None:
        """Close at once, whatever is under way. May be called again."""
        if self.socket.fileno() >= 0:
            self._hub.forget(self)
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    async def _park(self) -> None:
        self._waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._unpark)

    def _unpark(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED


class HangUp(Protocol):
    """Called when a peer hung up while nobody was reading."""

    def __call__(self) -> None:
        """Must return at once."""
        ...
