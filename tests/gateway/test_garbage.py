"""Connections and requests leave nothing behind that only a collection of garbage would find.

Full collections are made rare on the strength of that: see :mod:`stoker.collecting`.
"""

from __future__ import annotations

import gc
import socket
import struct
from collections.abc import Iterator

import pytest

from stoker.gateway.connection import Connection
from stoker.gateway.express import Visit
from stoker.gateway.job import Job
from stoker.gateway.routing import Lease
from stoker.gateway.sockets import Channel
from stoker.gateway.wire import WireSink

from .conftest import Lane, express_only, running
from .raw import asking, receive_until
from .scripted import Exchange, until

OURS = (Visit, Channel, WireSink, Job, Lease, Connection)


@pytest.fixture
def garbage() -> Iterator[list[object]]:
    """What collections find from now on. None happens by itself."""
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    yield gc.garbage
    gc.set_debug(0)
    gc.garbage.clear()
    gc.enable()


async def stream(exchange: Exchange) -> None:
    await exchange.events("1", "2")
    await exchange.end()


@express_only
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("start", [b"", asking(), asking()[:-1]], ids=["silent", "after a request", "in a body"])
async def test_a_connection_that_has_ended_is_gone(
    lane: Lane, garbage: list[object], start: bytes, *, reset: bool
) -> None:
    async with running(lane=lane) as world:
        await world.engine("one", stream)
        async with world.client() as client:
            await client.stream.send_all(start)
            if start == asking():
                await receive_until(client, b"0\r\n\r\n")
            await until(lambda: world.server.connections == 1)
            if reset:
                client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await until(lambda: world.server.connections == 0)
        gc.collect()
        assert not [each for each in garbage if isinstance(each, OURS)]
