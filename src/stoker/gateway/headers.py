"""Which headers pass through the gateway, and which belong to one connection or one listener only (RFC 9110, 7.6.1)."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Mapping, Sequence

from stoker.contracts import CREDENTIALS
from stoker.gateway.failures import Unsendable

HeaderList = Sequence[tuple[bytes, bytes]]
Fields = Mapping[bytes, bytes]
"""The last value of each header, by its lower-case name."""

_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
# Meant for the gateway, and no business of an engine's or a policy's.
_CREDENTIALS = frozenset(name.encode() for name in CREDENTIALS)
# Besides those, what the gateway writes itself.
_OURS = frozenset(
    {b"content-length", b"expect", b"host", b"http2-settings", b"traceparent", b"tracestate", b"x-request-id"}
)
_NOT_TO_ENGINES = _HOP_BY_HOP | _CREDENTIALS | _OURS
_NOT_TO_ENGINES_OF_A_STREAM = _NOT_TO_ENGINES | {b"accept-encoding"}
_NOT_TO_CLIENTS = _HOP_BY_HOP | {b"alt-svc", b"content-length", b"date", b"x-request-id", b"x-stoker-engine"}
_USUAL_OF_CONNECTION = frozenset({b"keep-alive", b"close"})
_LONGEST_REQUEST_ID = 128
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,%d}" % _LONGEST_REQUEST_ID)
_TARGET = re.compile(rb"/[\x21-\x7e]*")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def find(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """The value of the first header of that (lower-case) name."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def unwritable(target: bytes, headers: HeaderList) -> str | None:
    """What of a request's head can't be written as HTTP/1.1: HTTP/2 and ASGI carry it without looking."""
    if _TARGET.fullmatch(target) is None:
        return "the path of the request holds characters that no path has"
    for name, value in headers:
        if _NAME.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            return f"the header {name[:100]!r} holds characters that no header has"
    return None


def for_engine(headers: HeaderList, fields: Fields, *, streamed: bool) -> bytes:
    """The lines of a client's request that an engine is told; what depends on the engine is not among them.

    A stream is asked for uncompressed, since an error event could not be put into it otherwise.
    """
    passed = _passing(headers, fields, _NOT_TO_ENGINES_OF_A_STREAM if streamed else _NOT_TO_ENGINES)
    if streamed or b"accept-encoding" not in fields:
        passed.append((b"accept-encoding", b"identity"))
    return b"".join([b"%b: %b\r\n" % header for header in passed])


def for_policy(fields: Fields) -> dict[str, str]:
    """What a policy is told of a client's headers."""
    return {
        name.decode("latin-1"): value.decode("latin-1") for name, value in fields.items() if name not in _CREDENTIALS
    }


def for_client(headers: HeaderList, fields: Fields, *, engine_id: str, request_id: bytes) -> list[tuple[bytes, bytes]]:
    """What a client is told of an engine's answer. Its framing is the sink's to add."""
    passed = _passing(headers, fields, _NOT_TO_CLIENTS)
    passed.append((b"x-stoker-engine", engine_id.encode()))
    passed.append((b"x-request-id", request_id))
    return passed


def request_head(
    target: bytes, authority: bytes, lines: bytes, *, request_id: bytes, api_key: str | None, length: int
) -> bytes:
    """The head of a POST, for the wire. ``lines`` are from :func:`for_engine`. Raises Unsendable."""
    key = b"" if api_key is None else _bearer(api_key)
    return b"POST %b HTTP/1.1\r\nhost: %b\r\n%b%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (
        target,
        authority,
        lines,
        key,
        request_id,
        length,
    )


class RequestIds:
    """The ids of requests. Those it makes itself count up from a random number, which is cheaper than random ones."""

    def __init__(self) -> None:
        self._beginning = secrets.token_hex(8).encode()
        self._count = secrets.randbits(32)

    def of(self, given: bytes | None) -> bytes:
        """The client's ``X-Request-ID`` if it can be passed on as it is, or a new one."""
        if given is not None and _REQUEST_ID.fullmatch(given) is not None:
            return given
        self._count += 1
        return b"%b%016x" % (self._beginning, self._count)


def _bearer(api_key: str) -> bytes:
    value = b"Bearer " + api_key.encode()
    if _VALUE.fullmatch(value) is None:
        raise Unsendable("the engine's API key can't stand in a header; see what api_key_env names")
    return b"authorization: %b\r\n" % value


def _passing(headers: HeaderList, fields: Fields, barred: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """The headers, without those ``barred`` and those that a ``Connection`` header names."""
    if b"connection" in fields:
        named = {
            token.strip() for name, value in headers if name == b"connection" for token in value.lower().split(b",")
        }
        if not named <= _USUAL_OF_CONNECTION:
            barred = barred | named
    return [header for header in headers if header[0] not in barred]
