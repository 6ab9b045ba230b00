"""What a server has to prove before anything is said to it."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx2

from stoker.client.errors import BadRequest
from stoker.client.finding import Address
from stoker.errors import StokerError
from stoker.pinning import pinned

Verify = bool | ssl.SSLContext


def verification(address: Address, verify: ssl.SSLContext | None) -> Verify:
    """Of the gateway: what the caller says, else its own certificate where it is this home's, else the usual."""
    if not address.url.startswith("https:"):
        return False  # nothing to verify; reading all certificates there are takes a while
    if verify is not None:
        return verify
    if address.certfile is None:
        return True
    try:
        return pinned(Path(address.certfile))
    except StokerError as error:
        raise BadRequest(str(error)) from error


def trusting(given: object) -> ssl.SSLContext | None:
    """What a caller gave as ``verify``: nothing, a context, or a file of those authorities that alone are trusted.

    Raises ValueError for anything else. Blocks.
    """
    if given is None or isinstance(given, ssl.SSLContext):
        return given
    if not isinstance(given, str | Path):
        message = f"verify must be a file of certificates or an ssl.SSLContext, not {given!r}"
        raise ValueError(f"{message}; to trust whoever answers, make a context that does")  # noqa: TRY004 - as the rest
    try:
        return ssl.create_default_context(cafile=given)
    except OSError as error:  # an SSLError is one
        raise ValueError(f"verify: the certificates in {str(given)!r} can't be used: {error}") from error


def engines_context(verify: ssl.SSLContext | None) -> ssl.SSLContext:
    """What engines that speak TLS have to prove."""
    return httpx2.create_ssl_context() if verify is None else verify
