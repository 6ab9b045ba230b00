"""Over HTTP/1.1, an answer of the web app is the last of its connection.

So a client whose first request was not for an engine does not stay in the slower lane.
"""

from __future__ import annotations

import attrs
from hypercorn.typing import ASGIFramework, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope


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
