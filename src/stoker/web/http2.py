"""HTTP/2 as Hypercorn speaks it, held to bounds, and proof against clients that do what they should not.

Hypercorn's own fails at requests without a path or with letters that are not ASCII, at bodies that go on after their
answer, and at a thousand priorities; it keeps all of an answer in memory for a client whose window is closed; and it
has no limit for frames that cost a client nothing.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import h2.events
import h2.exceptions
import h2.settings
import trio
from h2.errors import ErrorCodes
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import Body, EndBody, EndData, Request
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.h2 import BUFFER_HIGH_WATER, H2Protocol, StreamBuffer
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.utils import filter_pseudo_headers

from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error
from stoker.gateway.framing import FramingError, request_head
from stoker.gateway.headers import HeaderList
from stoker.web.frames import FrameBudget

PIECE = 16 * 1024  # bytes that are read before others have their turn
MOST_STREAMS = 100
LONGEST_HEADERS = 64 * 1024
_TARGET = re.compile(rb"[\x21-\x7e]+")


def bound(config: Config) -> None:
    """Put the limits of HTTP/2 into a configuration of Hypercorn."""
    config.h2_max_concurrent_streams = MOST_STREAMS
    config.h2_max_header_list_size = LONGEST_HEADERS


class Http2(H2Protocol):
    """One connection. ``stall_seconds`` is how long a client may leave what it asked for untaken.

    Priorities are not heeded, websockets are not known, and the rest of a body is not wanted once its answer is over.
    """

    def __init__(self, *hypercorn: Any, stall_seconds: float) -> None:
        super().__init__(*hypercorn)
        self._stall_seconds = stall_seconds
        self._budget = FrameBudget(trio.current_time())
        self._uploading: set[int] = set()
        self.connection.local_settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL] = 0
        self.connection.local_settings.acknowledge()

    async def handle(self, event: Event) -> None:
        """Take in what came, in pieces between which others have their turn."""
        if not isinstance(event, RawData):
            await super().handle(event)
            return
        for at in range(0, len(event.data), PIECE):
            if self.closed:
                return
            piece = event.data[at : at + PIECE]
            if not self._budget.allows(piece, trio.current_time()):
                self.connection.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
                await self._flush()
                await self.send(Closed())
                return
            await super().handle(RawData(piece))
            await trio.lowlevel.checkpoint()

    async def stream_send(self, event: StreamEvent) -> None:
        """Send a part of an answer. A client that does not take it in time loses its stream."""
        if not isinstance(event, Body | EndBody | EndData):
            await super().stream_send(event)
            return
        with trio.move_on_after(self._stall_seconds) as patience:
            await super().stream_send(event)
        if patience.cancelled_caught:
            await self._drop(event.stream_id, ErrorCodes.CANCEL)

    async def _handle_events(self, events: list[h2.events.Event]) -> None:
        for event in events:
            match event:
                case h2.events.RequestReceived():
                    await self._admit(event)
                case h2.events.DataReceived():
                    await self._take_body(event)
                case h2.events.StreamEnded():
                    self._uploading.discard(event.stream_id)
                    if event.stream_id in self.streams:
                        await self.streams[event.stream_id].handle(EndBody(stream_id=event.stream_id))
                case h2.events.StreamReset():
                    self._uploading.discard(event.stream_id)
                    await self._close_stream(event.stream_id)
                    await self._window_updated(event.stream_id)
                case h2.events.WindowUpdated():
                    await self._window_updated(event.stream_id)
                case h2.events.RemoteSettingsChanged():
                    await self._window_updated(None)
                case h2.events.ConnectionTerminated():
                    await self.send(Closed())
        await self._flush()

    async def _admit(self, request: h2.events.RequestReceived) -> None:
        """Begin a request, or say what is wrong with it."""
        stream_id = request.stream_id
        if self.context.terminated.is_set():
            self.connection.reset_stream(stream_id, ErrorCodes.REFUSED_STREAM)
            return
        raw = [(bytes(name), bytes(value)) for name, value in request.headers]
        pseudo = {name: value for name, value in raw if name[:1] == b":"}
        method, target = pseudo[b":method"], pseudo.get(b":path", b"")
        headers = filter_pseudo_headers(raw)
        wrong = _what_is_wrong(method, target, headers)
        if wrong is not None:
            self._refuse(stream_id, error(Code.MALFORMED_REQUEST, wrong))
            return
        if request.stream_ended is None:
            self._uploading.add(stream_id)
        await self._begin(Request(stream_id, headers, "2", method.decode(), target, self.connection_state))
        await self.send(Updated(idle=False))

    async def _begin(self, request: Request) -> None:
        stream_id = request.stream_id
        stream = self.streams[stream_id] = HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            stream_id,
        )
        self.stream_buffers[stream_id] = _Buffer(self.context.event_class)
        self.priority.insert_stream(stream_id)
        self.priority.block(stream_id)
        await stream.handle(request)

    def _refuse(self, stream_id: int, answer: Answer) -> None:
        headers = [(b":status", b"%d" % answer.status), *answer.headers]
        with suppress(h2.exceptions.ProtocolError):  # its window may be too small for the words
            self.connection.send_headers(stream_id, headers)
            self.connection.send_data(stream_id, answer.body, end_stream=True)
        self._reset(stream_id, ErrorCodes.PROTOCOL_ERROR)

    async def _take_body(self, event: h2.events.DataReceived) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None:
            await stream.handle(Body(stream_id=event.stream_id, data=bytes(event.data)))
        with suppress(KeyError, h2.exceptions.ProtocolError):  # it is over
            self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    async def _send_data(self, stream_id: int) -> None:
        """Send of an answer what the window takes, and its end after the last of it."""
        waiting = self.stream_buffers[stream_id]
        try:
            window = self.connection.local_flow_control_window(stream_id)
            data = await waiting.pop(max(0, min(window, self.connection.max_outbound_frame_size)))
            if data:
                self.connection.send_data(stream_id, data)
                self._budget.earn()
                await self._flush()
            else:
                self.priority.block(stream_id)
            if not waiting.complete:
                return
            self.connection.end_stream(stream_id)
            self._budget.earn()
            if stream_id in self._uploading:  # what is still to come of the body is of no use
                self._uploading.discard(stream_id)
                self._reset(stream_id, ErrorCodes.NO_ERROR)
            await self._flush()
        except (KeyError, h2.exceptions.ProtocolError):  # it was reset meanwhile
            await waiting.close()
        self.stream_buffers.pop(stream_id, None)
        self.priority.remove_stream(stream_id)

    async def _drop(self, stream_id: int, code: ErrorCodes) -> None:
        self._uploading.discard(stream_id)
        self._reset(stream_id, code)
        await self._flush()
        await self._close_stream(stream_id)
        await self._window_updated(stream_id)  # so that its buffer goes too

    def _reset(self, stream_id: int, code: ErrorCodes) -> None:
        with suppress(KeyError, h2.exceptions.ProtocolError):  # it is gone already
            self.connection.reset_stream(stream_id, code)

    async def _priority_updated(self, event: h2.events.PriorityUpdated) -> None:
        """Nobody is preferred (RFC 9113, 5.3.2)."""


def _what_is_wrong(method: bytes, target: bytes, headers: HeaderList) -> str | None:
    if not _TARGET.fullmatch(target):
        return "the :path of the request is no target"
    try:
        request_head(method, target, b"1.1", list(headers))
    except FramingError as wrong:
        return str(wrong)
    return None


class _Buffer(StreamBuffer):
    """What waits for a client's window. Hypercorn's takes more as soon as nothing of it could be sent."""

    async def pop(self, max_length: int) -> bytes:
        length = min(len(self.buffer), max_length)
        data = bytes(self.buffer[:length])
        del self.buffer[:length]
        if len(self.buffer) < BUFFER_HIGH_WATER:
            await self._paused.set()
        if not self.buffer:
            await self._is_empty.set()
        return data
