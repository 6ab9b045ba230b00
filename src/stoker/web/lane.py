"""The other lane: an ASGI application that sends proxied requests to the gateway, and all else to the web app.

What comes here did not suit the express lane: HTTP/2, HTTP/1.0, bodies in chunks, everything that is not proxied.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import attrs
import trio
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error, too_large
from stoker.gateway.callers import Caller
from stoker.gateway.forward import Forwarder
from stoker.gateway.headers import HeaderList, unwritable
from stoker.gateway.heading import Guard, Heading
from stoker.gateway.pace import body_deadline, too_slow
from stoker.gateway.paths import is_proxied
from stoker.gateway.sockets import Channel
from stoker.settings import GatewaySettings

_PATH = "/:@!$&'()*+,;=-._~"  # RFC 3986, 3.3


@attrs.frozen
class ProxyLane:
    """An ASGI application around ``fallback``, which gets all that is not proxied: other paths, lifespan, websockets.

    ``guard`` sees the headers of every HTTP request first and may refuse it.
    """

    forwarder: Forwarder
    settings: GatewaySettings
    fallback: ASGIFramework
    guard: Guard | None = None

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one connection scope, as ASGI 3 has it."""
        if scope["type"] != "http":
            await self.fallback(scope, receive, send)
            return
        headers = list(scope["headers"])
        refusal = self.guard(headers) if self.guard is not None else None
        if refusal is None and not is_proxied(scope["path"]):
            await self.fallback(scope, receive, send)
            return
        fields = dict(headers)
        # Not the target as it came: an escape in it could reach another path of the engine than the one looked at here.
        target = quote(scope["path"], safe=_PATH).encode()
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        heading = Heading(scope["path"], target, headers, fields)
        sink = _AsgiSink(send)
        caller = refusal or _refusal(scope, target, headers) or self.forwarder.keys.knock(heading)
        if isinstance(caller, Answer):
            await self.forwarder.refuse(caller, sink, heading)
            return
        body = await self._body(fields.get(b"content-length"), receive)
        if isinstance(body, Answer):
            await self.forwarder.refuse(body, sink, heading)
        elif body is not None:
            await self._forward(heading, body, receive, sink, caller)

    async def _body(self, length: bytes | None, receive: ASGIReceiveCallable) -> bytes | Answer | None:
        """The whole body, an error if it is too large or does not go on, or None if the client went away."""
        limit = self.settings.max_body_bytes
        if length is not None and int(length) > limit:
            return too_large(limit)
        parts: list[bytes] = []
        size = 0
        pace, began = self.settings.min_body_bytes_per_second, trio.current_time()
        while True:
            deadline = body_deadline(began, size, trio.current_time(), pace)
            with trio.CancelScope(deadline=deadline) as patience:
                event = await receive()
            if patience.cancelled_caught:
                return too_slow(pace)
            if event["type"] != "http.request":
                return None
            parts.append(event["body"])
            size += len(event["body"])
            if size > limit:
                return too_large(limit)
            if not event["more_body"]:
                return b"".join(parts)

    async def _forward(
        self, heading: Heading, body: bytes, receive: ASGIReceiveCallable, sink: _AsgiSink, caller: Caller
    ) -> None:
        """Forward, unless and until the client goes away."""
        async with trio.open_nursery() as nursery:
            sink.interrupt = nursery.cancel_scope.cancel
            nursery.start_soon(_cancel_when_gone, receive, sink, nursery.cancel_scope)
            await self.forwarder.forward(heading, body, sink, caller)
            nursery.cancel_scope.cancel()


def _refusal(scope: HTTPScope, target: bytes, headers: HeaderList) -> Answer | None:
    if scope["method"] != "POST":
        message = f"{scope['path']} does not take {scope['method']}; it takes: POST"
        return error(Code.METHOD_NOT_ALLOWED, message, headers=[(b"allow", b"POST")])
    wrong = unwritable(target, headers)
    return None if wrong is None else error(Code.INVALID_HEADER, wrong)


async def _cancel_when_gone(receive: ASGIReceiveCallable, sink: _AsgiSink, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if not sink.finished:  # ASGI has a disconnect also after the end of an answer
        scope.cancel()


def _nothing() -> None:
    """There is nothing to interrupt yet."""


@attrs.define
class _AsgiSink:
    """Sends an answer as ASGI messages. A server closes the connection of an answer that has no last one."""

    _send: ASGISendCallable
    channel: Channel | None = None
    finished: bool = False
    interrupt: Callable[[], None] = _nothing

    def frame(self, data: bytes) -> bytes:
        return data

    async def answer(self, status: int, headers: HeaderList, body: bytes) -> None:
        await self.start(status, headers, len(body))
        await self.finish(body)

    async def start(self, status: int, headers: HeaderList, length: int | None) -> None:
        framing = [] if length is None or status in (204, 304) else [(b"content-length", b"%d" % length)]
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *framing]})

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def abort(self) -> None:
        """Leave it without its last message."""
