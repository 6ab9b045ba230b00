"""The client that probes and errands use: it connects to no address that engines can't have."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import httpcore2
import httpx2


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections, and gives up those that lead where they may not, before anything is sent.

    That a name was looked at before does not help: it may mean another address the next time.
    """

    def __init__(self, barred: Callable[[str], bool]) -> None:
        self._inner = httpcore2.TrioBackend()
        self._barred = barred

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect. Raises ConnectError, also where it leads to a barred address."""
        stream = await self._inner.connect_tcp(host, port, timeout, local_address, socket_options)
        try:
            address = stream.get_extra_info("server_addr")[0]
        except OSError as error:  # it was reset as soon as it was there: who is killed does that
            await stream.aclose()
            raise httpcore2.ConnectError(str(error)) from error
        if self._barred(address):
            await stream.aclose()
            raise httpcore2.ConnectError(f"{host} is {address}, where no engine can be")
        return stream

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the interface
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Engines have none."""
        raise httpcore2.ConnectError(path)

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)


def guarded_transport(barred: Callable[[str], bool], limits: httpx2.Limits) -> httpx2.AsyncHTTPTransport:
    """What a client connects by. Blocks (reads certificates)."""
    transport = httpx2.AsyncHTTPTransport(trust_env=False, limits=limits)
    pool = transport._pool  # noqa: SLF001 - there is no other way to choose how it connects
    pool._network_backend = GuardedBackend(barred)  # noqa: SLF001
    return transport
