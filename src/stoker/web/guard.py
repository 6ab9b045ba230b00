"""Keeps web pages from driving a local gateway: a request must name this gateway as its ``Host``, and not come from
another ``Origin``.

A page anywhere on the web can make its visitor's browser send requests to 127.0.0.1, and by pointing a name of its own
there (DNS rebinding) even read the answers. Both give themselves away in headers that a page can't forge.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from urllib.parse import urlsplit

import attrs

from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error, shown
from stoker.gateway.headers import HeaderList

_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\[\]:/?#@\s]+))(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@attrs.frozen
class Authority:
    """``host:port`` of a header. ``host`` is in its shortest spelling, without brackets; ``port`` may be missing."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Authority | None:
        """Read it, or None for what isn't one."""
        match = _AUTHORITY.fullmatch(text)
        if match is None:
            return None
        host = (match["v6"] or match["name"]).lower().removesuffix(".")
        address = _address(host)
        return cls(str(address) if address else host, int(match["port"]) if match["port"] else None)

    @property
    def is_loopback(self) -> bool:
        """Whether it can only mean this machine."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        address = _address(self.host)
        return address is not None and address.is_loopback


@attrs.frozen
class Guard:
    """Decides by the headers alone whether a request may come in.

    ``hosts`` are the names and addresses, besides loopback, that are this gateway. With ``any_address`` every literal
    address is, since whoever listens on all of them can't list them; no page can make a *name* of its own one.
    ``usual`` are the headers of nearly every request, which need no closer look.
    """

    hosts: frozenset[str]
    any_address: bool
    usual: frozenset[bytes]

    @classmethod
    def of(cls, listen: str, allowed_hosts: Iterable[str]) -> Guard:
        """The guard of a gateway that listens on ``listen`` (``host:port``) and is known as ``allowed_hosts`` too."""
        named = [Authority.parse(text) for text in (listen, *allowed_hosts)]
        hosts = frozenset(authority.host for authority in named if authority is not None)
        own = named[0]
        if own is None:
            raise ValueError(f"{listen!r} is not host:port")
        address = _address(own.host)
        port = f":{own.port}".encode()
        usual = frozenset(name + end for name in (b"127.0.0.1", b"localhost", b"[::1]") for end in (b"", port))
        return cls(hosts, address is not None and address.is_unspecified, usual)

    def __call__(self, headers: HeaderList) -> Answer | None:
        """The refusal of the request with these headers, or None for one that may come in."""
        hosts = [value for name, value in headers if name == b"host"]
        origins = [value for name, value in headers if name == b"origin"]
        if not origins and len(hosts) == 1 and hosts[0] in self.usual:
            return None
        asked = [value.decode("latin-1") for value in hosts]
        return self._check_host(asked) or _check_origin([value.decode("latin-1") for value in origins], asked)

    def _check_host(self, hosts: Sequence[str]) -> Answer | None:
        if not hosts or hosts == [""]:
            return None  # HTTP/1.0 without one; a browser always sends it
        authority = Authority.parse(hosts[0]) if len(hosts) == 1 else None
        if authority is None:
            return error(Code.BAD_HOST, "a request needs one Host header, and that has to name a host", param="Host")
        if authority.is_loopback or authority.host in self.hosts:
            return None
        if self.any_address and _address(authority.host) is not None:
            return None
        message = (
            f"the Host {shown(hosts[0])} is not known to be this gateway; if it is, put {shown(authority.host)} into "
            "allowed_hosts of [gateway] in stoker.toml"
        )
        return error(Code.HOST_NOT_ALLOWED, message, param="Host")


def _check_origin(origins: Sequence[str], hosts: Sequence[str]) -> Answer | None:
    if not origins:
        return None
    if len(origins) == 1 and hosts and _same_host(origins[0], hosts[0]):
        return None
    message = (
        f"a web page of another origin ({shown(origins[0])}) may not use this gateway; let the page's own server call "
        "it, or serve the page from the gateway's address"
    )
    return error(Code.ORIGIN_NOT_ALLOWED, message, param="Origin")


def _same_host(origin: str, host: str) -> bool:
    try:
        scheme, authority = urlsplit(origin)[:2]
    except ValueError:
        return False
    asking, asked = Authority.parse(authority), Authority.parse(host)
    port = _DEFAULT_PORTS.get(scheme)
    if port is None or asking is None or asked is None:
        return False  # "null", an extension, a file
    return (asking.host, asking.port or port) == (asked.host, asked.port or port)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
