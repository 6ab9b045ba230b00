"""Which sockets listen at a port of this machine, and whose they are. All of it blocks: call it in a thread."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from stoker.supervise.proctable import PROC

Address = IPv4Address | IPv6Address
_LISTENING = "0A"
_SOCKET = "socket:["


def listeners(host: str, port: int) -> frozenset[int]:
    """The inodes of the listening sockets that a connection to ``host`` and ``port`` may reach.

    Those bound to the very address come before those bound to any. Raises OSError.
    """
    there = list(_listening_at(port))
    wanted = _parsed(host)
    if wanted is None:  # a name: whatever it stands for
        return frozenset(inode for _, inode in there)
    for bound_to in (wanted, IPv4Address(0), IPv6Address(0)):
        if isinstance(wanted, IPv6Address) and isinstance(bound_to, IPv4Address):
            continue
        if found := frozenset(inode for address, inode in there if address == bound_to):
            return found
    return frozenset()


def sockets_of(pid: int) -> frozenset[int] | None:
    """The inodes of a process's sockets; None where we may not look, and none where it is gone.

    Raises OSError for a shortage of our own.
    """
    try:
        with os.scandir(f"{PROC}/{pid}/fd") as entries:
            return frozenset(_inodes(entry.path for entry in entries))
    except PermissionError:
        return None
    except (FileNotFoundError, ProcessLookupError):
        return frozenset()


def _inodes(links: Iterable[str]) -> Iterator[int]:
    for link in links:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # closed meanwhile
            target = os.readlink(link)  # noqa: PTH115 - Path's way costs several times as much
            if target.startswith(_SOCKET):
                yield int(target[len(_SOCKET) : -1])


def _listening_at(port: int) -> Iterator[tuple[Address, int]]:
    for line in _lines_with(f":{port:04X} ".encode()):
        words = line.decode().split()
        address, _, local_port = words[1].partition(":")
        if words[3] == _LISTENING and int(local_port, 16) == port:
            yield _unmapped(_read_address(address)), int(words[9])


def _lines_with(text: bytes) -> Iterator[bytes]:
    """Line by line: with connections that end by the thousand a table is megabytes, which the thread's memory keeps."""
    for table in ("tcp", "tcp6"):
        try:
            file = open(f"{PROC}/self/net/{table}", "rb")  # noqa: PTH123, SIM115 - as all of /proc; closed below
        except FileNotFoundError:  # a kernel without IPv6
            continue
        with file:
            yield from (line for line in file if text in line)


def _read_address(text: str) -> Address:
    """The kernel writes an address as numbers of 32 bits, as its machine counts them."""
    words = (int(text[start : start + 8], 16) for start in range(0, len(text), 8))
    return ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))


def _unmapped(address: Address) -> Address:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _parsed(host: str) -> Address | None:
    try:
        return _unmapped(ip_address(host))
    except ValueError:
        return None
