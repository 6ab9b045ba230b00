"""What the command line and the Python client share about reaching a gateway."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from stoker.home import Home

DEFAULT_URL = "http://127.0.0.1:8000"


def is_loopback(host: str) -> bool:
    """Whether ``host`` (a name or an address, without brackets) can only be this machine. Asks no DNS."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def base_of(url: str) -> str | None:
    """A gateway's address without ``/v1`` and without a slash at its end; None for what is no URL of one."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    return url.rstrip("/").removesuffix("/v1").rstrip("/") if usable else None


def admin_token_of(home: Home) -> str | None:
    """The admin token, or None where there is none that can be read. Blocks."""
    try:
        return home.admin_token.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None
