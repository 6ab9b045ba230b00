"""Who may connect when there are many: so many for each address, and a short answer for those who can't come in."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Protocol, TypeVar

import trio

from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error
from stoker.gateway.headers import RequestIds

PARTING_SECONDS = 0.5
_READ = 64 * 1024

FULL = error(Code.TOO_MANY_CONNECTIONS, "the gateway has as many connections as it can have; try again")
CROWDED = error(
    Code.TOO_MANY_FROM_ONE,
    "there are as many connections from your address as there may be (connections_per_address); close some, or let "
    "one carry several requests",
)


def is_loopback(address: str) -> bool:
    """Whether it is this machine, perhaps with a proxy that stands for many."""
    with suppress(ValueError):
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    return True  # no address at all: a socket of this machine's own


def address_of(stream: trio.SocketStream) -> str:
    """The address of the other side; empty where there is none."""
    try:
        name = stream.socket.getpeername()
    except OSError:  # it has left
        return ""
    return str(name[0]) if isinstance(name, tuple) else ""


class Crowd:
    """Counts the connections of each address, up to ``most``. ``exempt`` says whose are not counted."""

    def __init__(self, most: int, exempt: Callable[[str], bool] = is_loopback) -> None:
        self._most = most
        self._exempt = exempt
        self._counts: Counter[str] = Counter()

    def enter(self, address: str) -> str | None:
        """The key for :meth:`leave`, which is empty for one that is not counted; None if there are too many."""
        if self._exempt(address):
            return ""
        key = _subscriber(address)
        if self._counts[key] >= self._most:
            return None
        self._counts[key] += 1
        return key

    def leave(self, key: str) -> None:
        """One of them has gone."""
        if key:
            self._counts[key] -= 1
            if not self._counts[key]:
                del self._counts[key]


def _subscriber(address: str) -> str:
    """Whom an address belongs to: of IPv6, everybody has a whole /64."""
    with suppress(ValueError):
        ip = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(ip, ipaddress.IPv6Address):
            return str(ip.ipv4_mapped or ipaddress.ip_network((ip, 64), strict=False))
    return address


class Guest(Protocol):
    """A client's connection, in whoever's hands it is."""

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way, not even the beginning of one."""
        ...

    @property
    def is_arriving(self) -> bool:
        """Whether it is still at what comes before a request is under way: TLS, or the head."""
        ...

    @property
    def deadline(self) -> float:
        """When its client has to be done with what it is at."""
        ...

    def make_way(self) -> bool:
        """End it for others, soon; but not if a request has just come. Says whether it ends."""
        ...

    def close_if_idle(self) -> None:
        """End it if no request is under way, else after the answer."""
        ...

    def keep_time(self, now: float) -> None:
        """End it if its client takes longer than it may. To be called often."""
        ...


K = TypeVar("K")
G = TypeVar("G", bound=Guest)


def make_room(guests: dict[K, G], most: int) -> bool:
    """Have up to ``most`` make way and forget them, those first whose deadline is next. Says whether anybody did.

    Of those that are arriving somebody has to only if nobody is idle; of the others, whose request is under way, never.
    """
    idle = [key for key, guest in guests.items() if guest.is_idle]
    arriving = [key for key, guest in guests.items() if guest.is_arriving]
    for dispensable in (idle, arriving):
        dispensable.sort(key=lambda key: guests[key].deadline)
        left = 0
        for key in dispensable:
            if left < most and guests[key].make_way():
                del guests[key]
                left += 1
        if left:
            return True
    return False


async def turn_away(sock: socket.socket, answer: Answer) -> None:
    """Answer one that just came, and close; soon, but not before it had time to read the answer."""
    headers = [*answer.headers, (b"x-request-id", RequestIds().of(None)), (b"connection", b"close")]
    head = b"".join(b"%b: %b\r\n" % header for header in headers)
    start = b"HTTP/1.1 %d %b\r\n" % (answer.status, HTTPStatus(answer.status).phrase.encode())
    with trio.socket.from_stdlib_socket(sock) as leaving, suppress(OSError), trio.move_on_after(PARTING_SECONDS):
        await leaving.send(start + head + b"content-length: %d\r\n\r\n" % len(answer.body) + answer.body)
        leaving.shutdown(socket.SHUT_WR)
        while await leaving.recv(_READ):  # closed before, it would be reset, and the answer lost
            pass


class Reserve:
    """Descriptors kept for the time when there are none left: with one of them one can still accept, and say no."""

    def __init__(self, size: int = 16) -> None:
        self._size = size
        self._held: list[int] = []
        self.fill()

    def fill(self) -> None:
        """Hold as many again as there should be, as far as they are to be had."""
        with suppress(OSError):
            while len(self._held) < self._size:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def lend(self) -> None:
        """Let go of one, if there is one."""
        if self._held:
            os.close(self._held.pop())

    def close(self) -> None:
        """Let go of all."""
        while self._held:
            self.lend()
