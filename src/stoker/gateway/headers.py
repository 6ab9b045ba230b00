"""Which headers pass through the gateway, and which belong to one connection or one listener only (RFC 9110, 7.6.1)."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

HeaderList = Sequence[tuple[bytes, bytes]]

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
# What the gateway writes itself, and credentials that were meant for the gateway and are no business of an engine's.
_NOT_TO_ENGINES = _HOP_BY_HOP | {
    b"api-key",
    b"authorization",
    b"content-length",
    b"cookie",
    b"expect",
    b"host",
    b"http2-settings",
    b"x-api-key",
    b"x-request-id",
}
_NOT_TO_CLIENTS = _HOP_BY_HOP | {b"alt-svc", b"content-length", b"date", b"x-request-id", b"x-stoker-engine"}
_LONGEST_REQUEST_ID = 128


def find(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    """The value of the first header of that (lower-case) name."""
    for name, value in headers:
        if name == wanted:
            return value
    return None


def passing(headers: HeaderList, barred: frozenset[bytes]) -> list[tuple[bytes, bytes]]:
    """The headers, without those ``barred`` and those that a ``Connection`` header names."""
    passed = [header for header in headers if header[0] not in barred]
    for name, value in headers:
        if name == b"connection":
            named = {token.strip() for token in value.lower().split(b",")}
            passed = [header for header in passed if header[0] not in named]
    return passed


def for_engine(
    headers: HeaderList, *, request_id: bytes, api_key: str | None, streamed: bool
) -> list[tuple[bytes, bytes]]:
    """What an engine is told of a client's request; its ``Host`` and framing are the upstream connection's to add.

    A stream is asked for uncompressed, since an error event could not be put into it otherwise.
    """
    passed = passing(headers, _NOT_TO_ENGINES)
    if streamed or find(passed, b"accept-encoding") is None:
        passed = [header for header in passed if header[0] != b"accept-encoding"]
        passed.append((b"accept-encoding", b"identity"))
    if api_key is not None:
        passed.append((b"authorization", b"Bearer " + api_key.encode()))
    passed.append((b"x-request-id", request_id))
    return passed


def for_client(headers: HeaderList, *, engine_id: str) -> list[tuple[bytes, bytes]]:
    """What a client is told of an engine's answer. Its framing is the sink's to add."""
    passed = passing(headers, _NOT_TO_CLIENTS)
    passed.append((b"x-stoker-engine", engine_id.encode()))
    return passed


def request_id_of(headers: HeaderList) -> bytes:
    """The client's ``X-Request-ID`` if it can be passed on as it is, or a new one."""
    given = find(headers, b"x-request-id")
    if given and len(given) <= _LONGEST_REQUEST_ID and all(0x21 <= byte <= 0x7E for byte in given):
        return given
    return secrets.token_hex(16).encode()
