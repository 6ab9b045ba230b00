"""Sockets that the hub watches: tried first, waited for only if they must be."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from stoker.gateway.hub import Hub

PIECE = 64 * 1024  # bytes that are read at once


class Channel:
    """A connected socket that the hub watches. One task at a time reads from it, or one flow.

    Its methods try the socket first and wait only if they must; ``OSError`` says that the connection broke.
    ``readable`` is false while there is certainly nothing to read. ``hung_up`` becomes true when the peer has closed
    its side; if nobody is reading then, ``on_hang_up`` is called (once, unless it is set again).
    """

    __slots__ = ("_waiter", "fd", "hub", "hung_up", "on_hang_up", "readable", "socket")

    def __init__(self, hub: Hub, sock: socket.socket) -> None:
        self.hub = hub
        self._waiter: trio.lowlevel.Task | None = None
        self.socket = sock
        self.fd = sock.fileno()
        self.readable = True
        self.hung_up = False
        self.on_hang_up: Callable[[], None] | None = None

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
        if self._waiter is not None:
            task, self._waiter = self._waiter, None
            trio.lowlevel.reschedule(task)
        elif self.hung_up and self.on_hang_up is not None:
            notice, self.on_hang_up = self.on_hang_up, None
            notice()

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
        self.hub.forget(self)
        return self.socket

    def close(self) -> None:
        """Close at once, whatever is under way. May be called again."""
        if self.socket.fileno() >= 0:
            self.hub.forget(self)
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()

    async def _park(self) -> None:
        self._waiter = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._unpark)

    def _unpark(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED
