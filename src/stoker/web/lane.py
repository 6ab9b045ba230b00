"""The first lane: proxied requests go straight from ASGI to the gateway, everything else to the web app behind it."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import trio
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope

from stoker.gateway.answers import Answer, error
from stoker.gateway.forward import Forwarder, ProxyRequest
from stoker.gateway.headers import HeaderList, find, request_id_of
from stoker.gateway.paths import is_proxied
from stoker.gateway.relay import deliver
from stoker.settings import GatewaySettings

Guard = Callable[[HTTPScope], Answer | None]


@attrs.frozen
class ProxyLane:
    """An ASGI application around ``fallback``, which gets all that is not proxied: other paths, lifespan, websockets.

    ``guard`` sees every HTTP request first and may refuse it.
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
        refusal = self._refusal(scope)
        if refusal is None and not is_proxied(scope["path"]):
            await self.fallback(scope, receive, send)
            return
        sink = _AsgiSink(send)
        body = refusal or await self._body(headers, receive)
        if isinstance(body, Answer):
            await deliver(_before_the_body(body, scope), sink, request_id_of(headers))
        elif body is not None:
            await self._forward(ProxyRequest(scope["path"], scope["query_string"], headers, body), receive, sink)

    def _refusal(self, scope: HTTPScope) -> Answer | None:
        refusal = self.guard(scope) if self.guard is not None else None
        if refusal is None and is_proxied(scope["path"]) and scope["method"] != "POST":
            message = f"{scope['path']} does not take {scope['method']}; it takes: POST"
            return error(405, message, code="method_not_allowed", headers=[(b"allow", b"POST")])
        return refusal

    async def _body(self, headers: HeaderList, receive: ASGIReceiveCallable) -> bytes | Answer | None:
        """The whole body, an error if it is too large, or None if the client went away."""
        limit = self.settings.max_body_bytes
        if int(find(headers, b"content-length") or 0) > limit:
            return _too_large(limit)
        parts: list[bytes] = []
        size = 0
        while True:
            event = await receive()
            if event["type"] != "http.request":
                return None
            parts.append(event["body"])
            size += len(event["body"])
            if size > limit:
                return _too_large(limit)
            if not event["more_body"]:
                return b"".join(parts)

    async def _forward(self, request: ProxyRequest, receive: ASGIReceiveCallable, sink: _AsgiSink) -> None:
        """Forward, unless and until the client goes away."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            await self.forwarder.forward(request, sink)
            nursery.cancel_scope.cancel()


async def _cancel_when_gone(receive: ASGIReceiveCallable, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


def _too_large(limit: int) -> Answer:
    message = f"the body is larger than {limit} bytes; raise max_body_bytes of [gateway] in stoker.toml to take it"
    return error(413, message, code="request_too_large")


def _before_the_body(answer: Answer, scope: HTTPScope) -> Answer:
    """Such an answer ends the connection, and says so: a client that reused it would find it closed."""
    announced = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
    if not announced or not scope["http_version"].startswith("1"):
        return answer
    return attrs.evolve(answer, headers=[*answer.headers, (b"connection", b"close")])


@attrs.frozen
class _AsgiSink:
    """Sends an answer as ASGI messages. A server closes the connection of an answer that has no last one."""

    _send: ASGISendCallable

    async def start(self, status: int, headers: HeaderList) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def finish(self, data: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": False})

    async def abort(self) -> None:
        """Leave it without its last message."""
