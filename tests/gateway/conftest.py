"""The gateway as it runs: both lanes on the real server on a real socket, in front of scripted engines."""

from __future__ import annotations

import enum
import json
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import httptools
import msgspec
import pytest
import trio
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from stoker.builtin.policies import LeastLoad
from stoker.contracts import RoutingPolicy
from stoker.gateway.conversing import Archive
from stoker.gateway.forward import Finished
from stoker.gateway.heading import ExpressHead, Guard, HeadReader
from stoker.gateway.keyring import KeyRing
from stoker.gateway.plane import DataPlane
from stoker.gateway.policies import Policies
from stoker.gateway.routing import RoutingTable
from stoker.model import Backend
from stoker.settings import GatewaySettings, SessionSettings
from stoker.web.lane import ProxyLane
from stoker.web.server import Server, serve

from .scripted import HANG_GUARD_SECONDS, Answer, Client, Engine, Exchange, Headers, Script, connect, until

CHAT = "/v1/chat/completions"
PATHS = frozenset({CHAT, "/v1/completions", "/v1/audio/transcriptions"})


class Lane(enum.Enum):
    """The way that requests for engines take, and what parses them."""

    EXPRESS = "express, with httptools and msgspec"
    PORTABLE = "express, with h11 and json"
    HYPERCORN = "hypercorn, with httptools and msgspec"

    @property
    def is_express(self) -> bool:
        return self is not Lane.HYPERCORN


@pytest.fixture(params=Lane, ids=lambda lane: lane.name.lower())
def lane(request: pytest.FixtureRequest) -> Lane:
    """Every test that asks for it, or for the ``world``, runs on each."""
    lane: Lane = request.param
    return lane


express_only = pytest.mark.parametrize("lane", [Lane.EXPRESS, Lane.PORTABLE], ids=lambda lane: lane.name.lower())
"""For what the express lane promises alone."""
in_one_lane = pytest.mark.parametrize("lane", [Lane.EXPRESS], ids=["once"])
"""For what has nothing to do with lanes or parsers."""


class HandingOver(HeadReader):
    """Finds that nothing suits the express lane."""

    def read(self, data: bytes) -> tuple[ExpressHead | None, int]:
        self._framing.read_head(data)
        return None, 0


async def say_hello(exchange: Exchange) -> None:
    await exchange.reply(200, {"hello": "there"})


class EchoApp:
    """The web app behind the lane: says what it got."""

    def __init__(self) -> None:
        self.lifespan: list[str] = []
        self.requests: list[str] = []

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                self.lifespan.append(event["type"])
                if event["type"] == "lifespan.startup":
                    await send({"type": "lifespan.startup.complete"})
                else:
                    await send({"type": "lifespan.shutdown.complete"})
                    return
        if scope["type"] == "websocket":
            assert (await receive())["type"] == "websocket.connect"
            await send({"type": "websocket.close", "code": 1000, "reason": None})
            return
        self.requests.append(f"{scope['method']} {scope['path']}")
        if scope["path"] == "/fail":
            raise ZeroDivisionError("the app has a defect")
        body = json.dumps([scope["method"], scope["path"]]).encode()
        length = str(len(body)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
        await send({"type": "http.response.body", "body": body, "more_body": False})


@attrs.define(eq=False)
class World:
    """A running gateway, its engines, and its clients."""

    nursery: trio.Nursery
    table: RoutingTable
    plane: DataPlane
    server: Server
    port: int
    lane: Lane
    app: EchoApp
    scope: trio.CancelScope
    reports: list[tuple[str, int, str]]
    answered: set[str]
    """The engines that answer a probe."""
    backends: dict[str, Backend] = attrs.field(factory=dict)
    contained: int = 0

    async def engine(self, engine_id: str, script: Script = say_hello, **changes: object) -> Engine:
        """Start an engine and put it into the table, READY."""
        engine = Engine(script)
        await self.nursery.start(engine.serve)
        self.add(engine_id, port=engine.port, **changes)
        return engine

    def add(self, engine_id: str, *, port: int = 1, **changes: object) -> None:
        """Put an engine into the table; one nobody listens for if no port is given."""
        backend = Backend(
            engine_id=engine_id,
            incarnation=1,
            base_url=f"http://127.0.0.1:{port}",
            model="m",
            names=("m",),
            kind="llm",
            runtime="fake",
            paths=PATHS,
            accepting=True,
        )
        self.backends[engine_id] = attrs.evolve(backend, **changes)  # type: ignore[arg-type]
        self.update()

    def change(self, engine_id: str, **changes: object) -> None:
        self.backends[engine_id] = attrs.evolve(self.backends[engine_id], **changes)  # type: ignore[arg-type]
        self.update()

    def forget(self, engine_id: str) -> None:
        del self.backends[engine_id]
        self.update()

    def update(self) -> None:
        self.table.update(tuple(self.backends.values()))

    def client(self) -> AbstractAsyncContextManager[Client]:
        """A client, which connects anew before each request in the lane in which every answer ends a connection."""
        return connect(self.port, reconnects=not self.lane.is_express)

    async def ask(self, body: bytes | object, headers: Headers = (), *, path: str = CHAT) -> Answer:
        """One request on a connection of its own."""
        async with self.client() as client:
            return await client.ask(path, body, headers)


@asynccontextmanager
async def running(
    settings: GatewaySettings | None = None,
    *,
    policy: RoutingPolicy | None = None,
    policies: Mapping[str, RoutingPolicy] | None = None,
    finished: Finished | None = None,
    keys: KeyRing | None = None,
    archive: Archive | None = None,
    sessions: SessionSettings | None = None,
    guard: Guard | None = None,
    drain_seconds: float = 5.0,
    ssl_context: ssl.SSLContext | None = None,
    tls: ssl.SSLContext | None = None,
    lane: Lane = Lane.EXPRESS,
) -> AsyncIterator[World]:
    """A gateway with these settings. In the end every lease must be closed, and nothing unexpected have happened.

    ``lane`` is the one that requests take that suit the express lane; others take theirs.
    """
    settings = settings or GatewaySettings()
    table = RoutingTable(Policies(policy or LeastLoad(), LeastLoad(), policies or {}), trio.current_time)
    reports: list[tuple[str, int, str]] = []
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    answered: set[str] = set()

    async def probed(engine_id: str, incarnation: int) -> None:
        def is_known() -> bool:
            there = {one.engine_id: one for one in table.models() if one.incarnation == incarnation}
            return engine_id in answered or engine_id not in there or not there[engine_id].accepting

        await until(is_known)

    native = lane is not Lane.PORTABLE
    async with (
        trio.open_nursery() as engines,
        DataPlane.open(
            table,
            settings,
            report=lambda *report: reports.append(report),
            probed=probed,
            httptools=httptools if native else None,
            msgspec=msgspec if native else None,
            finished=finished,
            keys=keys,
            archive=archive,
            sessions=sessions,
            ssl_context=lambda: ssl_context or ssl.create_default_context(),
        ) as plane,
        trio.open_nursery() as nursery,
    ):
        app = EchoApp()
        scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[Server]) -> None:
            with scope:
                proxy = ProxyLane(plane.forwarder, settings, app, guard)
                await serve(proxy, [sock], plane, guard, drain_seconds=drain_seconds, tls=tls, task_status=task_status)

        server: Server = await nursery.start(run)
        if not lane.is_express:
            server._express = attrs.evolve(server._express, heads=HandingOver(plane.framing, guard))
        world = World(engines, table, plane, server, port, lane, app, scope, reports, answered)
        yield world
        await until(lambda: table.in_flight() == 0)
        await until(lambda: table.waiting() == 0)
        assert all(table.activity(engine_id).active_requests == 0 for engine_id in world.backends)
        scope.cancel()
        with trio.fail_after(HANG_GUARD_SECONDS):
            while nursery.child_tasks:
                await trio.sleep(0.002)
        assert server.connections == 0
        assert server.contained == world.contained
        engines.cancel_scope.cancel()


@pytest.fixture
async def world(lane: Lane) -> AsyncIterator[World]:
    """A gateway with the default settings."""
    async with running(lane=lane) as world:
        yield world
