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


def engines_context(verify: ssl.SSLContext | None) -> ssl.SSLContext:
    """What engines that speak TLS have to prove."""
    return httpx2.create_ssl_context() if verify is None else verify
