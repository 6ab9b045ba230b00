"""Relays an engine's answer: whole where it is small, else as it comes, and an event stream event by event."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping

from stoker.core.codes import Code
from stoker.errors import UpstreamError
from stoker.gateway.answers import Answer, error_body
from stoker.gateway.connection import Connection
from stoker.gateway.events import EventGate
from stoker.gateway.failures import CutShort
from stoker.gateway.headers import HeaderList, for_client
from stoker.gateway.measures import Measures
from stoker.gateway.routing import Lease
from stoker.gateway.streaming import Sink, Stream
from stoker.gateway.usage import OPENING_BYTES, TAIL_BYTES

HELD_ANSWER = 256 * 1024  # bytes; up to here an answer is sent only when it is whole


async def deliver(answer: Answer, sink: Sink, request_id: bytes | None = None) -> None:
    """Send a whole answer. ``request_id`` is given for one of ours, which does not have it yet."""
    headers = answer.headers if request_id is None else [*answer.headers, (b"x-request-id", request_id)]
    await sink.answer(answer.status, headers, answer.body)


class Relay:
    """Relays one answer to ``sink``.

    ``started`` says whether anything of it was sent, after which nothing can be taken back. ``trouble`` is what went
    wrong after that: an engine that died, or one that said so itself. ``status``, ``first_byte_at``, ``sent_bytes`` and
    ``ends`` (the first and the last of the body) are there for whoever measures.

    An answer that nothing but the end of its connection ends may have been cut by the engine's death: it is believed to
    be whole if it is JSON, or says ``[DONE]``; of other streams ``is_gone`` has to find out what became of the engine.
    """

    def __init__(
        self,
        lease: Lease,
        sink: Sink,
        request_id: bytes,
        measures: Measures,
        clock: Callable[[], float],
        is_gone: Callable[[Lease], Awaitable[bool]],
    ) -> None:
        self.started = False
        self.trouble: str | None = None
        self.status = 0
        self.first_byte_at: float | None = None
        self.sent_bytes = 0
        self.ends = b""
        self._lease = lease
        self._sink = sink
        self._request_id = request_id
        self._measures = measures
        self._clock = clock
        self._is_gone = is_gone
        self._gate: EventGate | None = None
        self._stream: Stream | None = None

    async def run(self, connection: Connection) -> Answer | None:
        """Relay the answer on ``connection``, or return it if it was small enough to be held back until it was whole.

        Raises UpstreamError only while nothing was sent.
        """
        self._lease.progress(self._clock())
        answer = connection.reader
        fields = answer.fields
        backend = self._lease.backend
        headers = for_client(answer.headers, fields, engine_id=backend.engine_id, request_id=self._request_id)
        given = fields.get(b"content-length")
        length = None if given is None else int(given)
        content_type = fields.get(b"content-type", b"")
        if content_type[:17].lower() == b"text/event-stream" and _is_plain(fields):
            await self._relay(connection, headers, None, b"", EventGate())
        elif length is None and answer.status < 400 and content_type[:16].lower() != b"application/json":
            await self._relay(connection, headers, None, b"", None)
        else:
            return await self._hold(connection, headers, length)
        return None

    async def _hold(self, connection: Connection, headers: HeaderList, length: int | None) -> Answer | None:
        answer, held = connection.reader, b""
        if length is None or length <= HELD_ANSWER:
            held = answer.take()
            while not answer.complete and len(held) <= HELD_ANSWER:
                held += await connection.read()
            if answer.complete and len(held) <= HELD_ANSWER:
                if _ends_with_connection(answer.fields) and not _is_json(held):
                    raise CutShort(f"engine {self._lease.backend.engine_id} closed the connection in its answer")
                self.ends = held if len(held) <= TAIL_BYTES else held[:OPENING_BYTES] + held[-TAIL_BYTES:]
                return Answer(answer.status, headers, held)
        await self._relay(connection, headers, length, held, None)
        return None

    async def _relay(
        self, connection: Connection, headers: HeaderList, length: int | None, held: bytes, gate: EventGate | None
    ) -> None:
        backend = self._lease.backend
        gaps = self._measures.gaps(backend.model, backend.engine_id)
        answer = connection.reader
        stream = self._stream = Stream(connection, self._sink, self._lease, self._clock, gate, gaps)
        self._gate = gate
        try:
            first = stream.pass_on(held, self._clock()) if held else await stream.first()
            self.status = answer.status
            self.first_byte_at = self._clock()
            self.started = True
            await self._sink.start(self.status, headers, length)
            if length is None:
                await stream.run(first, self._check_end if gate and _ends_with_connection(answer.fields) else None)
            else:
                await stream.run_plain(first, length)
        except UpstreamError as broken:
            if not self.started:
                raise
            self.trouble = str(broken)
            message = f"the engine {backend.engine_id} failed in the middle of its answer: {broken}"
            await self.break_off(error_body(Code.ENGINE_FAILED, message))
        finally:
            self.sent_bytes, self.ends = stream.sent_bytes, stream.ends
            self.trouble = self.trouble or stream.trouble

    async def _check_end(self, ends: bytes) -> None:
        """Raise CutShort where a stream that ends so was cut."""
        if not ends.rstrip().endswith(b"[DONE]") and await self._is_gone(self._lease):
            raise CutShort(f"engine {self._lease.backend.engine_id} closed the connection in its answer")

    async def break_off(self, why: bytes) -> None:
        """End what was started before its proper end: a stream of events with ``why``, the JSON of an error."""
        gate, stream = self._gate, self._stream
        if gate is not None and stream is not None and not stream.ending:
            # Set apart from what came before it, if that was torn.
            await self._sink.send((b"\n\n" if gate.torn else b"") + b"data: " + why + b"\n\n")
        await self._sink.abort()


def _ends_with_connection(fields: Mapping[bytes, bytes]) -> bool:
    """Whether nothing else tells the end of an answer, as HTTP/1.0 had it."""
    return b"content-length" not in fields and b"transfer-encoding" not in fields


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _is_plain(fields: dict[bytes, bytes]) -> bool:
    return fields.get(b"content-encoding", b"identity") == b"identity"
