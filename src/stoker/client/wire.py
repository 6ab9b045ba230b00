"""What both shells need of HTTP: clients set up alike, and failures as values."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.request import getproxies

import attrs
import httpx2

from stoker.client.finding import Address
from stoker.client.steps import EVENT_STREAM, Break, Broken, Request
from stoker.client.tls import engines_context, verification
from stoker.pinning import tls_failure

Http = TypeVar("Http", httpx2.Client, httpx2.AsyncClient)
Through = Callable[[ssl.SSLContext | bool], Any]
"""Makes the transport of a client, which verifies like this."""

CONNECT_SECONDS = 5.0
_IDLE_SECONDS = 4.0  # engines on uvicorn and llama.cpp close after 5
LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=_IDLE_SECONDS)
_HEADERS = {"user-agent": "stoker-client"}


@attrs.define(eq=False)
class Doors:
    """How to connect: to the gateway, and to engines. ``verify`` says what has to be proved where TLS is spoken."""

    address: Address
    verify: ssl.SSLContext | None = None

    def to_gateway(self, kind: type[Http], through: Through | None = None) -> Http:
        """A client for requests to the gateway."""
        return self._client(kind, verification(self.address, self.verify), through)

    def to_engines(self, kind: type[Http], through: Through | None = None, *, tls: bool) -> Http:
        """A client for requests to engines; none of the gateway's cookies are in it."""
        return self._client(kind, engines_context(self.verify) if tls else False, through)

    def _client(self, kind: type[Http], verify: ssl.SSLContext | bool, through: Through | None) -> Http:
        # A proxy that the environment names is for the network, not for this machine.
        trust_env = not self.address.local
        # httpx2 uses such a proxy only by a transport of its own.
        own = None if through is None or (trust_env and getproxies()) else through(verify)
        return kind(headers=_HEADERS, limits=LIMITS, trust_env=trust_env, verify=verify, transport=own)


def parts_of(request: Request, timeout_seconds: float | None) -> Mapping[str, Any]:
    """The arguments with which httpx2 builds the request."""
    connect = CONNECT_SECONDS if timeout_seconds is None else min(CONNECT_SECONDS, timeout_seconds)
    return {
        "method": request.method,
        "url": request.url,
        "headers": request.headers,
        "content": request.content,
        "timeout": httpx2.Timeout(timeout_seconds, connect=connect, pool=None),
    }


def is_stream(response: httpx2.Response) -> bool:
    """Whether it is a stream of events that goes well."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    return response.status_code == httpx2.codes.OK and kind == EVENT_STREAM


def headers_of(response: httpx2.Response) -> Mapping[str, str]:
    """Its headers, by their lower-case names."""
    return dict(response.headers.items())


def broken_by(error: httpx2.HTTPError | httpx2.InvalidURL) -> Broken:
    """What became of the request that ended with ``error``."""
    text = str(error) or type(error).__name__
    match error:
        case httpx2.ConnectError() | httpx2.ConnectTimeout():
            wrong = tls_failure(error)
            return Broken(Break.NOT_REACHED, text if wrong is None else f"it can't prove who it is: {wrong}")
        case httpx2.ProxyError():
            return Broken(Break.NOT_REACHED, text)
        case httpx2.TimeoutException():
            return Broken(Break.TIMED_OUT, text)
        case httpx2.InvalidURL() | httpx2.UnsupportedProtocol() | httpx2.LocalProtocolError():
            return Broken(Break.UNSENDABLE, f"the request can't be sent: {text}")
    return Broken(Break.BROKEN_OFF, text)
