"""Where engines may be: which addresses are never theirs, and which a URL that came over HTTP may lead to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

import attrs

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# What answers there is the network's or the cloud's own: behind some of these stand the credentials of the machine.
NEVER: tuple[Network, ...] = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "169.254.0.0/16",  # link-local, and the metadata of nearly every cloud
            "224.0.0.0/4",
            "240.0.0.0/4",
            "100.100.100.200/32",  # metadata: Alibaba
            "168.63.129.16/32",  # Azure
            "192.0.0.192/32",  # Oracle
            "::/128",
            "fe80::/10",
            "fec0::/10",
            "ff00::/8",
            "fd00:ec2::/32",  # Amazon
            "fd20:ce::254/128",  # Google
        ),
    )
)
_SETTING = "register_hosts of [gateway] in stoker.toml"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@attrs.frozen
class HostRules:
    """Which hosts engines may have: ``names`` in lower case, and ``networks``.

    What is in :data:`NEVER` is only allowed by a network that lies within the one that forbids it: by its own name,
    that is, and not along with half the world.
    """

    names: frozenset[str]
    networks: tuple[Network, ...]

    @classmethod
    def of(cls, entries: Iterable[str]) -> HostRules:
        """The rules that a list of host names, addresses and networks in CIDR notation makes."""
        names, networks = set(), []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                names.add(_plain(entry))
        return cls(frozenset(names), tuple(networks))

    def bars(self, address: str) -> bool:
        """Whether nothing may be sent to ``address``, whoever named it."""
        return any(map(self._is_never, _meanings(address)))

    def complaint(self, host: str, addresses: Sequence[str]) -> str | None:
        """Why an engine that somebody registers may not be at ``host``, which has ``addresses``, and what to do.

        None if it may.
        """
        trusted = _plain(host) in self.names
        for address in addresses:
            where = host if host == address else f"{host}, which is {address}"
            if self.bars(address):
                return (
                    f"no engine can be at {where}: such addresses (link-local, multicast, metadata of a cloud) are the "
                    f"network's own, and behind some are the credentials of this machine; if an engine is there, add "
                    f"{address} itself to {_SETTING}"
                )
            if not trusted and not all(_is_in(each, self.networks) for each in _meanings(address)):
                return (
                    f"no engine may be registered at {where}: register_hosts does not allow it; add it to {_SETTING}, "
                    "or give the engine an [[engine]] there"
                )
        if addresses or trusted:
            return None
        return f"no engine can be registered at {host}: that name has no address; correct it, or add it to {_SETTING}"

    def _is_never(self, address: Address) -> bool:
        named = [network for network in self.networks if _is_in(address, [network])]
        return any(
            _is_in(address, [never]) and not any(network.subnet_of(never) for network in named)  # type: ignore[arg-type]
            for never in NEVER
        )


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def _meanings(text: str) -> Iterator[Address]:
    """The address, or the one of IPv4 that is wrapped in it: a packet goes there."""
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            yield address.ipv4_mapped
            return
        if address.sixtofour is not None:
            yield address.sixtofour
        if address in _NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    yield address


def _plain(host: str) -> str:
    return host.lower().removesuffix(".")


NEVER_ALLOWED = HostRules.of(()).bars
"""Whether nothing may be sent to an address, where nobody has named it."""
