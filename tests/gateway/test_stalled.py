"""Clients that take nothing of what they asked for: they hold an engine's place for so long, and no longer."""

from __future__ import annotations

import socket

import h2.connection
import h2.events
import h2.settings
import pytest
import trio

from stoker.settings import GatewaySettings

from .conftest import CHAT, Lane, running
from .raw import BODY, request
from .scripted import Exchange, connect, until

ASK = {"model": "m", "messages": []}
SOON = GatewaySettings(send_stall_seconds=0.2)


class Talker:
    """Talks as much as is taken, and counts it."""

    def __init__(self) -> None:
        self.said = 0

    async def __call__(self, exchange: Exchange) -> None:
        await exchange.events()
        while True:
            await exchange.data(b"data: " + b"x" * 50_000 + b"\n\n")
            self.said += 50_000


@pytest.fixture
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.web.server.TICK_SECONDS", 0.02)


@pytest.mark.usefixtures("_look_often")
async def test_a_client_that_reads_nothing_loses_its_stream(lane: Lane) -> None:
    """It kept its lease for ever."""
    async with running(SOON, lane=lane) as world:
        await world.engine("one", Talker())
        async with world.client() as client:
            await client.send(CHAT, ASK)
            await client.head()
            await until(lambda: world.table.in_flight() == 0)
            await until(lambda: world.server.connections == 0)


@pytest.mark.usefixtures("_look_often")
async def test_one_that_reads_slowly_keeps_it(lane: Lane) -> None:
    async with running(SOON, lane=lane) as world:
        await world.engine("one", Talker())
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", world.port))
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            await stream.send_all(request(b"Content-Length: %d" % len(BODY)) + BODY)
            end = trio.current_time() + 5 * SOON.send_stall_seconds
            while trio.current_time() < end:
                assert await stream.receive_some(4096)
                await trio.sleep(SOON.send_stall_seconds / 20)
            assert world.table.in_flight() == 1


async def ask_over_http_2(port: int, http: h2.connection.H2Connection, stream: trio.SocketStream) -> None:
    http.initiate_connection()
    http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    http.send_headers(1, [(":method", "POST"), (":path", CHAT), (":scheme", "http"), (":authority", "localhost")])
    http.send_data(1, BODY, end_stream=True)
    await stream.send_all(http.data_to_send())


async def test_a_window_that_stays_closed_does_not_fill_the_memory() -> None:
    """What did not fit into it was kept, all of it."""
    talker = Talker()
    async with running() as world, connect(world.port) as client:
        await world.engine("one", talker)
        await ask_over_http_2(world.port, h2.connection.H2Connection(), client.stream)
        await until(lambda: talker.said)
        seen = -1
        while seen != talker.said:  # until nothing moves
            seen = talker.said
            await trio.testing.wait_all_tasks_blocked(0.1)
        assert talker.said < 20_000_000  # what the system keeps of it, and little more


@pytest.mark.usefixtures("_look_often")
async def test_a_window_that_stays_closed_costs_its_stream_and_not_the_connection() -> None:
    http = h2.connection.H2Connection()
    events: list[h2.events.Event] = []
    async with running(SOON) as world, connect(world.port) as client:
        await world.engine("one", Talker())
        await ask_over_http_2(world.port, http, client.stream)
        await until(lambda: world.table.in_flight() == 1)
        while not any(isinstance(event, h2.events.StreamReset) for event in events):
            events += http.receive_data(bytes(await client.stream.receive_some()))
        await until(lambda: world.table.in_flight() == 0)
        assert world.server.connections == 1
