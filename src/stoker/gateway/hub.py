"""The hub: one place that watches all sockets of the data plane.

Waiting for a socket through Trio costs two system calls and a turn of its loop each time. Here every socket is
registered once, edge-triggered, in a poller of our own, which is itself what one Trio task waits for. So a turn of the
loop serves all sockets that have become ready meanwhile: it reads from all of them, lets their tasks run, and writes
what these have to say.
"""

from __future__ import annotations

import socket

import trio

from stoker.gateway.flows import Flows
from stoker.gateway.poller import Poller
from stoker.gateway.sockets import PIECE, Channel, Flow


class Hub:
    """Watches sockets. :meth:`run` is its task; nothing wakes while that does not run.

    Streams that flow are watched by :class:`~stoker.gateway.flows.Flows`, in a task beside it: they have a pace, for
    which requests never wait.
    """

    def __init__(self) -> None:
        self._poller = Poller()
        self._flows = Flows()
        self._channels: dict[int, Channel] = {}
        self._posted: list[tuple[Channel, bytes]] = []
        self.scratch = memoryview(bytearray(PIECE))
        self._writer: trio.lowlevel.Task | None = None

    async def run(self) -> None:
        """Serve, until cancelled; then the hub is of no more use."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._flows.run)
                nursery.start_soon(self._write)
                while True:
                    await trio.lowlevel.wait_readable(self._poller.fileno())
                    self._wake()
        finally:
            self._poller.close()
            self._flows.close()

    def watch(self, sock: socket.socket) -> Channel:
        """A channel over a connected socket, which it owns from now on. Raises OSError, and closes it, at a limit."""
        sock.setblocking(False)  # noqa: FBT003 - the standard library takes it so
        try:
            self._poller.add(sock.fileno())
        except OSError:
            sock.close()
            raise
        channel = self._channels[sock.fileno()] = Channel(self, sock)
        return channel

    def forget(self, channel: Channel) -> None:
        """Watch it no longer."""
        if self._channels.pop(channel.fd, None) is not None:
            self._poller.remove(channel.fd)

    def post(self, channel: Channel, data: bytes) -> None:
        """Have ``data`` written to ``channel`` when all tasks that run now have run."""
        self._posted.append((channel, data))
        if self._writer is not None:
            task, self._writer = self._writer, None
            trio.lowlevel.reschedule(task)

    def write_out(self) -> None:
        """Write all that was posted, now."""
        posted, self._posted = self._posted, []
        for channel, data in posted:
            channel.write(data)

    async def _write(self) -> None:
        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            self._writer = None
            return trio.lowlevel.Abort.SUCCEEDED

        while True:
            if not self._posted:
                self._writer = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(abort)
            self.write_out()

    def let_flow(self, flow: Flow) -> None:
        """Relay it from now on, until :meth:`end_flow`; nobody else may read from its source meanwhile."""
        self._poller.remove(flow.source.fd)
        self._flows.add(flow)

    def end_flow(self, flow: Flow) -> None:
        """Relay it no longer: it is a task again that reads from its source."""
        self._flows.remove(flow)
        self._poller.add(flow.source.fd)

    def _wake(self) -> None:
        channels = self._channels
        for fd, events in self._poller.poll():
            channel = channels.get(fd)
            if channel is not None:
                channel.readable = True
                if events & Poller.HUNG_UP:
                    channel.hung_up = True
                channel.wake()
