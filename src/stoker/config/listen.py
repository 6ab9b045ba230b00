"""The ``host:port`` a gateway listens on: its syntax, and which hosts are allowed."""

from __future__ import annotations

import ipaddress
import re

import attrs

from stoker.reaching import is_loopback

_LISTEN = re.compile(r"(?:\[(?P<bracketed>[^\[\]]+)\]|(?P<plain>[^\[\]:]+)):(?P<port>[0-9]{1,5})", re.ASCII)
_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})*", re.ASCII)

REMEDY = (
    "there is no API key, so only this machine may connect: make one first (stoker key create), or let nobody in "
    "without one (require_keys = true in [gateway]), or keep 127.0.0.1 and reach it through an SSH tunnel "
    "(ssh -L 8000:127.0.0.1:8000 …) or a reverse proxy that checks who asks"
)


@attrs.frozen
class Listen:
    """Where to listen. ``host`` has no brackets; port 0 means any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(text: str) -> Listen:
    """Read ``host:port`` or ``[IPv6]:port``. Raises ValueError that says what is wrong with it.

    Any host is read; whether it is allowed is :func:`require_a_door`'s question.
    """
    match = _LISTEN.fullmatch(text)
    if match is None:
        if text.count(":") > 1 and not text.startswith("["):
            raise ValueError(f"an IPv6 address needs brackets, such as [::1]:8000; this is {text!r}")
        raise ValueError(f'must be "host:port", such as "127.0.0.1:8000" or "[::1]:8000", not {text!r}')
    port = int(match["port"])
    if port > 65535:
        raise ValueError(f"the port must be from 0 (any free one) to 65535, not {port}")
    return Listen(_host(match["bracketed"], match["plain"]), port)


def _host(bracketed: str | None, plain: str | None) -> str:
    if bracketed is not None:
        try:
            return str(ipaddress.IPv6Address(bracketed))
        except ValueError:
            raise ValueError(f"[{bracketed}] is not an IPv6 address") from None
    assert plain is not None
    if re.fullmatch(r"[0-9.]+", plain):
        try:
            return str(ipaddress.IPv4Address(plain))
        except ValueError:
            raise ValueError(f"{plain!r} is not an IPv4 address") from None
    if not _HOST_NAME.fullmatch(plain):
        raise ValueError(f"{plain!r} is neither an address nor a host name")
    return plain.lower()


def require_a_door(listen: Listen, *, keys: bool) -> None:
    """Raises ValueError, with the remedy, for an address that others could reach, unless ``keys`` keep them out."""
    if not (listen.is_loopback or keys):
        raise ValueError(f"{listen} can be reached from other machines; {REMEDY}")
