"""Over HTTP/1.1, an answer of the web app is the last of its connection.

So a client whose first request was not for an engine does not stay in the slower lane. What it sends after that request
is not looked at.
"""

from __future__ import annotations

from typing import Any

import attrs
import h11
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope

_UPGRADE = (b"upgrade", b"http2-settings")


@attrs.frozen
class LastAnswers:
    """An ASGI application that is ``app``, but for this."""

    app: ASGIFramework

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Serve one connection scope, as ASGI 3 has it."""
        if scope["type"] == "http" and scope["http_version"].startswith("1"):
            send = _Last(send)
        await self.app(scope, receive, send)


@attrs.frozen
class _Last:
    _send: ASGISendCallable

    async def __call__(self, message: ASGISendEvent) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await self._send(message)


class OneRequest(h11.Connection):
    """The server's side of a connection of one request.

    Hypercorn would wait with reading until what follows the request can be read, and so not see that the client hangs
    up; and h11 takes what follows the last request for an error, at which Hypercorn closes, answered or not.
    """

    def receive_data(self, data: bytes) -> None:
        """Take in what came."""
        if not self._is_over():
            super().receive_data(data)

    def next_event(self) -> Any:
        """The next part of the request, if there is one. It asks for no other protocol: that is not heeded here."""
        if self._is_over():
            return h11.NEED_DATA
        event = super().next_event()
        if isinstance(event, h11.Request):
            headers = [header for header in event.headers if header[0] not in _UPGRADE]
            return h11.Request(
                method=event.method, target=event.target, headers=headers, http_version=event.http_version
            )
        return event

    def _is_over(self) -> bool:
        return self.their_state not in (h11.IDLE, h11.SEND_BODY, h11.ERROR)
