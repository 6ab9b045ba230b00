"""Streams that flow: relayed many at a time, without waking their tasks.

Two things make this cheap. Waking up costs more than relaying a piece, so while many streams flow they are looked at no
more than once in ``PACE_SECONDS``; one that comes alone is relayed at once. And what runs between two system calls runs
with cold caches, so all that are ready are first read, then looked through, then written.
"""

from __future__ import annotations

import trio

from stoker.gateway.poller import Poller
from stoker.gateway.sockets import Flow

PACE_SECONDS = 0.002
PIECE = 16 * 1024  # bytes of a stream that are read at once: many times an event


class Flows:
    """All streams that flow. :meth:`run` is their task."""

    def __init__(self) -> None:
        self._poller = Poller()
        self._flows: dict[int, Flow] = {}
        self._unread: list[Flow] = []

    async def run(self) -> None:
        """Relay, until cancelled."""
        looked_at = 0.0
        while True:
            if self._unread:
                await trio.lowlevel.checkpoint()
            else:
                await trio.lowlevel.wait_readable(self._poller.fileno())
                if trio.current_time() < looked_at + PACE_SECONDS:
                    await trio.sleep_until(looked_at + PACE_SECONDS)
            looked_at = trio.current_time()
            self._write(self._look_through(self._read(self._ready()), looked_at))

    def add(self, flow: Flow) -> None:
        """Relay it from now on."""
        self._flows[flow.source.fd] = flow
        self._poller.add(flow.source.fd)

    def remove(self, flow: Flow) -> None:
        """Relay it no longer."""
        del self._flows[flow.source.fd]
        self._poller.remove(flow.source.fd)

    def close(self) -> None:
        """Relay nothing any more."""
        self._poller.close()

    def _ready(self) -> list[Flow]:
        """The flows that have something to read, each once."""
        flows = self._flows
        ready = {flow: None for flow in self._unread if flows.get(flow.source.fd) is flow}
        self._unread = []
        for fd, events in self._poller.poll():
            flow = flows.get(fd)
            if flow is not None:
                if events & Poller.HUNG_UP:
                    flow.source.hung_up = True
                ready[flow] = None
        return list(ready)

    def _read(self, ready: list[Flow]) -> list[tuple[Flow, bytes]]:
        came = []
        for flow in ready:
            source = flow.source
            try:
                data = source.socket.recv(PIECE)
            except BlockingIOError:
                source.readable = False
            except OSError as error:
                flow.break_off(error)
            else:
                source.readable = len(data) == PIECE or source.hung_up
                came.append((flow, data))
        return came

    def _look_through(self, came: list[tuple[Flow, bytes]], now: float) -> list[tuple[Flow, bytes]]:
        going = []
        for flow, data in came:
            try:
                out = flow.take_in(data, now)
            except Exception as error:  # noqa: BLE001 - the connection boundary: the flow's own task raises it
                flow.fail(error)
                continue
            if out:
                going.append((flow, out))
            if flow.source.readable:
                self._unread.append(flow)
        return going

    def _write(self, going: list[tuple[Flow, bytes]]) -> None:
        for flow, out in going:
            try:
                sent = flow.client.socket.send(out)
            except OSError:  # it would block, or the client is gone: that the task finds out by itself
                sent = 0
            if sent != len(out):
                flow.held_up(memoryview(out)[sent:])
