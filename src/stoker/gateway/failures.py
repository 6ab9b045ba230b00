"""How an exchange with an engine can fail.

::

    UpstreamError           (stoker.errors) all of them; the message names the engine's address
    ├── NotConnected        refused, unreachable, no such host, a certificate that is not to be trusted
    ├── NoAnswer            the connection broke before the first byte of an answer
    ├── CutShort            the answer broke off
    ├── NotHttp             what came is no HTTP answer, or its head is too long
    ├── GivenUp             nothing more is expected of the engine, by whoever watches it
    ├── Exhausted           we have no descriptor, memory or port left to connect with: not the engine's fault
    └── Unsendable          what is configured for the engine can't be written as HTTP: not the engine's fault either
"""

from __future__ import annotations

from stoker.errors import UpstreamError


class NotConnected(UpstreamError):  # noqa: N818 - states, not "…Error"
    """There is no connection to the engine, so it saw nothing of the request."""


class NoAnswer(UpstreamError):  # noqa: N818
    """The connection broke before the first byte of an answer."""


class CutShort(UpstreamError):  # noqa: N818
    """The answer broke off."""


class NotHttp(UpstreamError):  # noqa: N818
    """What came is no HTTP answer, or its head is too long."""


class GivenUp(UpstreamError):  # noqa: N818
    """Nothing more is expected of the engine, by whoever watches it."""


class Exhausted(UpstreamError):  # noqa: N818
    """This process has no descriptor, memory or port left to connect with."""


class Unsendable(UpstreamError):  # noqa: N818
    """What is configured for the engine can't be written as HTTP."""
