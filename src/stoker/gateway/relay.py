"""Relays an engine's answer: whole where it is small, else as it comes, and an event stream event by event."""

from __future__ import annotations

from typing import Protocol

from stoker.errors import UpstreamError
from stoker.gateway.answers import Answer, error_body
from stoker.gateway.connection import Response
from stoker.gateway.events import EventGate, speaks_of_error
from stoker.gateway.headers import HeaderList, find, for_client
from stoker.gateway.routing import Lease

HELD_ANSWER = 256 * 1024  # bytes; up to here an answer is sent only when it is whole


class Sink(Protocol):
    """Where an answer goes. All methods wait while the client is slow, and can be cancelled."""

    async def start(self, status: int, headers: HeaderList) -> None:
        """The head. Without a ``content-length`` among ``headers`` the sink chooses the framing."""
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


async def deliver(answer: Answer, sink: Sink, request_id: bytes) -> None:
    """Send a whole answer."""
    headers = [*answer.headers, (b"x-request-id", request_id)]
    if answer.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await sink.start(answer.status, headers)
    await sink.finish(answer.body)


class Relay:
    """Relays one answer to ``sink``.

    ``started`` says whether anything of it was sent, after which nothing can be taken back. ``trouble`` is what went
    wrong after that: an engine that died, or one that said so itself.
    """

    def __init__(self, lease: Lease, sink: Sink, request_id: bytes) -> None:
        self.started = False
        self.trouble: str | None = None
        self._lease = lease
        self._sink = sink
        self._request_id = request_id

    async def run(self, response: Response) -> Answer | None:
        """Relay ``response``, or return it if it is small enough to be held back until it was whole.

        Raises UpstreamError only while nothing was sent.
        """
        self._lease.progress()
        headers = for_client(response.headers, engine_id=self._lease.backend.engine_id)
        length = find(response.headers, b"content-length")
        content_type = (find(response.headers, b"content-type") or b"").lower()
        encoded = find(response.headers, b"content-encoding") not in (None, b"identity")
        if content_type.startswith(b"text/event-stream") and not encoded:
            await self._relay_events(response, headers)
        elif response.status < 400 and length is None and not content_type.startswith(b"application/json"):
            await self._relay_bytes(response, headers, [])
        else:
            return await self._hold(response, headers, length)
        return None

    async def _hold(self, response: Response, headers: HeaderList, length: bytes | None) -> Answer | None:
        held: list[bytes] = []
        size = 0
        if length is None or int(length) <= HELD_ANSWER:
            async for chunk in response:
                self._lease.progress()
                held.append(chunk)
                size += len(chunk)
                if size > HELD_ANSWER:
                    break
            else:
                return Answer(response.status, headers, b"".join(held))
        framing = [] if length is None else [(b"content-length", length)]
        await self._relay_bytes(response, [*headers, *framing], held)
        return None

    async def _relay_bytes(self, response: Response, headers: HeaderList, held: list[bytes]) -> None:
        try:
            for chunk in held:
                await self._send(response, headers, chunk)
            async for chunk in response:
                self._lease.progress()
                await self._send(response, headers, chunk)
        except UpstreamError as broken:
            if not self.started:
                raise
            self.trouble = str(broken)
            await self._sink.abort()
        else:
            await self._finish(response, headers, b"")

    async def _relay_events(self, response: Response, headers: HeaderList) -> None:
        gate = EventGate()
        try:
            async for chunk in response:
                self._lease.progress()
                events = gate.feed(chunk)
                if events:
                    if self.trouble is None and speaks_of_error(events):
                        self.trouble = "it sent an error in the stream"
                    await self._send(response, headers, events)
        except UpstreamError as broken:
            if not self.started:
                raise
            self.trouble = str(broken)
            await self._sink.send(_last_words(self._lease.backend.engine_id, broken, torn=gate.torn))
            await self._sink.abort()
        else:
            await self._finish(response, headers, gate.rest())

    async def _send(self, response: Response, headers: HeaderList, data: bytes) -> None:
        await self._start(response, headers)
        await self._sink.send(data)

    async def _finish(self, response: Response, headers: HeaderList, data: bytes) -> None:
        await self._start(response, headers)
        await self._sink.finish(data)

    async def _start(self, response: Response, headers: HeaderList) -> None:
        if not self.started:
            self.started = True
            await self._sink.start(response.status, [*headers, (b"x-request-id", self._request_id)])


def _last_words(engine_id: str, broken: UpstreamError, *, torn: bool) -> bytes:
    """The event that ends a stream whose engine died; set apart from what came before it, if that was torn."""
    message = f"the engine {engine_id} failed in the middle of its answer: {broken}"
    body = error_body(502, message, code="engine_failed")
    return (b"\n\n" if torn else b"") + b"data: " + body + b"\n\n"
