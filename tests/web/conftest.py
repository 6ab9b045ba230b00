"""The app on a real socket, over a real supervisor and routing table. Only the engines are played: by the test."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any, cast

import attrs
import httptools
import httpx2
import msgspec
import pytest
import trio

from stoker.config import spec_from_json
from stoker.core import commands as c
from stoker.core import events as e
from stoker.core.reload import Difference
from stoker.errors import ConflictError, PermanentLaunchError
from stoker.gateway.keyring import KeyRing
from stoker.gateway.measures import Measures
from stoker.gateway.plane import DataPlane
from stoker.gateway.policies import Policies
from stoker.gateway.routing import RoutingTable
from stoker.home import Home
from stoker.model import (
    Candidate,
    EngineLoad,
    EngineSpec,
    EngineState,
    EnvironmentSpec,
    ExitStatus,
    Gpu,
    GpuReport,
    LaunchPlan,
    Placement,
    RouteRequest,
)
from stoker.settings import PRIVATE_NETWORKS, GatewaySettings, SessionSettings
from stoker.store.database import open_database
from stoker.store.schema import MIGRATIONS
from stoker.supervise.crew import Crew, Dispatch
from stoker.supervise.keeping import Keeper
from stoker.supervise.supervisor import Supervisor
from stoker.web.app import WebApp, create_app
from stoker.web.keys import KeyDesk
from stoker.web.server import serve
from stoker.web.token import AdminToken

TOKEN = AdminToken("the-token-of-the-tests")
BEARER = {"Authorization": f"Bearer {TOKEN.secret}"}


@attrs.frozen
class PlayedRuntime:
    """A runtime whose engines exist only as commands that the test sees."""

    name: str
    environment: EnvironmentSpec | None = None

    def check(self, spec: EngineSpec) -> Sequence[str]:
        return [f"{argument} is not for {self.name}" for argument in spec.args if argument.startswith("--bad")]

    def plan(self, spec: EngineSpec, placement: Placement, port: int) -> LaunchPlan:
        raise PermanentLaunchError("played engines are not launched")

    def paths(self, spec: EngineSpec) -> frozenset[str]:
        return frozenset({"/v1/chat/completions"})

    def estimate_memory(self, spec: EngineSpec, gpu: Gpu) -> int | None:
        return None

    def scrape(self, text: str) -> EngineLoad:
        return EngineLoad()


@attrs.frozen
class FirstPolicy:
    """The first will do."""

    name: str = "first"
    needs: frozenset[str] = frozenset()

    def choose(self, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Candidate:
        return candidates[0]

    def opened(self, request: RouteRequest, candidate: Candidate) -> None:
        pass

    def closed(self, request: RouteRequest, candidate: Candidate) -> None:
        pass


@attrs.define(eq=False)
class PlayedCrew(Crew):
    """Notes the commands, and carries none of them out."""

    commands: list[c.Command] = attrs.field(factory=list)

    def execute(self, command: c.Command, dispatch: Dispatch) -> None:
        self.commands.append(command)


@attrs.define(eq=False)
class PlayedSupervisor(Supervisor):
    """The supervisor, except that what an engine does is said by the test."""

    @property
    def commands(self) -> list[c.Command]:
        assert isinstance(self.crew, PlayedCrew)
        return self.crew.commands

    def state_of(self, engine_id: str) -> EngineState | None:
        engine = self._fleet.get(engine_id)
        return None if engine is None else engine.state

    def _incarnation(self, engine_id: str) -> int:
        return self._fleet.engines[engine_id].incarnation

    def becomes_ready(self, engine_id: str, port: int = 9000) -> None:
        url = f"http://127.0.0.1:{port}"
        endpoint = e.Endpoint(base_url=url, host="127.0.0.1", port=port, pid=4242)
        self._dispatch(e.Launched(engine_id, self._incarnation(engine_id), endpoint))
        self._dispatch(e.ProbeSucceeded(engine_id, self._incarnation(engine_id)))

    def can_not_start(self, engine_id: str, problem: str) -> None:
        self._dispatch(e.LaunchFailed(engine_id, self._incarnation(engine_id), problem, retryable=False))

    def crashes(self, engine_id: str) -> None:
        self._dispatch(e.ProcessExited(engine_id, self._incarnation(engine_id), ExitStatus(code=0), "the last words"))

    def is_stopped(self, engine_id: str) -> None:
        """Its last request is answered, and its processes are gone."""
        self._dispatch(e.EngineIdle(engine_id, self._incarnation(engine_id)))
        self._dispatch(e.ProcessStopped(engine_id, self._incarnation(engine_id)))


@attrs.define
class PlayedOperations:
    """Answers what the test puts into it."""

    difference: Difference | Exception = attrs.field(factory=Difference)
    report: GpuReport = attrs.field(factory=GpuReport)
    leaving: bool = False
    told: list[object] = attrs.field(factory=list)

    def stop_gateway(self, *, keep_engines: bool, now: bool) -> None:
        if self.leaving:
            raise ConflictError("Stoker is shutting down already")
        self.told.append(("stop", keep_engines, now))

    async def restart_gateway(self, *, now: bool) -> None:
        await trio.lowlevel.checkpoint()
        self.told.append(("restart", now))

    async def reload(self) -> Difference:
        await trio.lowlevel.checkpoint()
        if isinstance(self.difference, Exception):
            raise self.difference
        return self.difference

    async def gpus(self) -> GpuReport:
        await trio.lowlevel.checkpoint()
        return self.report

    def gpu_ledger(self) -> tuple[object, ...]:
        return ()

    def status(self) -> Mapping[str, Any]:
        return {"lanes": ["hypercorn"], "plugins": ["builtin"]}

    def shutting_down(self) -> bool:
        return self.leaving


@attrs.frozen
class World:
    """Everything a test may touch. ``api`` manages (it has the token), ``anyone`` has none. Keys come from ``desk``."""

    app: WebApp
    supervisor: PlayedSupervisor
    operations: PlayedOperations
    table: RoutingTable
    measures: Measures
    desk: KeyDesk
    api: httpx2.AsyncClient
    anyone: httpx2.AsyncClient
    port: int

    async def start(self, engine_id: str = "m", **spec: Any) -> None:
        """Have an engine started, and let it become READY."""
        spec = {"model": engine_id, **spec}
        answer = await self.api.post("/engines/start", json={**spec, "engine_id": engine_id})
        assert answer.status_code == 202, answer.text
        self.supervisor.becomes_ready(engine_id)

    async def key(self, *scopes: str, **order: Any) -> dict[str, str]:
        """The header of a new key."""
        wanted = {"name": "a test", "scopes": list(scopes) or ["inference"], **order}
        answer = await self.api.post("/keys", json=wanted)
        assert answer.status_code == 201, answer.text
        return {"Authorization": f"Bearer {answer.json()['key']}"}

    async def send_raw(self, request: bytes) -> tuple[int, bytes]:
        """Send these very bytes; the status and the body of the answer."""
        async with await trio.open_tcp_stream("127.0.0.1", self.port) as stream:
            await stream.send_all(request)
            received = b""
            async for chunk in stream:
                received += chunk
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), body


def idle_plane(
    table: RoutingTable, settings: GatewaySettings, keys: KeyRing | None = None
) -> AbstractAsyncContextManager[DataPlane]:
    """A data plane for tests in which no request goes to an engine."""

    async def probed(engine_id: str, incarnation: int) -> None:
        raise AssertionError(engine_id)

    return DataPlane.open(
        table, settings, report=lambda *_: None, probed=probed, httptools=httptools, msgspec=msgspec, keys=keys
    )


@asynccontextmanager
async def serving(app: WebApp, plane: DataPlane) -> AsyncIterator[int]:
    """Serve ``app`` on a free port of 127.0.0.1."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    port = listener.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, app, [listener], plane, app.guard, drain_seconds=0))
        yield port
        nursery.cancel_scope.cancel()


@pytest.fixture
def settings() -> GatewaySettings:
    return GatewaySettings(
        allowed_hosts=("stoker.example",),
        register_hosts=(*PRIVATE_NETWORKS, "example.com", "m.localhost", "o.localhost"),
        allow_commands_over_http=True,
    )


@pytest.fixture
async def world(tmp_path: Path, settings: GatewaySettings, nursery: trio.Nursery) -> AsyncIterator[World]:
    table = RoutingTable(Policies(FirstPolicy(), FirstPolicy()), trio.current_time)
    nothing = cast("Any", None)
    crew = PlayedCrew(
        home=Home(tmp_path),
        run_id="test",
        runtimes={name: PlayedRuntime(name) for name in ("vllm", "remote")},
        placer=nothing,
        traffic=table,
        client=nothing,
        nursery=nursery,
        keep=nothing,
    )

    async def save_nothing(engines: object) -> None:
        """Nobody asks for it."""

    supervisor = PlayedSupervisor(crew, table, log_max_bytes=1, keeper=Keeper(save_nothing))
    operations = PlayedOperations()
    async with AsyncExitStack() as stack:
        database = stack.enter_context(closing(open_database(tmp_path / "state.sqlite3", MIGRATIONS)))
        ring = KeyRing(TOKEN.accepts, trio.current_time, require=settings.require_keys)
        desk = KeyDesk(database, ring)
        plane = await stack.enter_async_context(idle_plane(table, settings, ring))
        app = create_app(
            supervisor,
            operations,
            desk=desk,
            started_at=time.time(),
            table=table,
            measures=plane.measures,
            settings=settings,
            read_spec=spec_from_json,
            sessions=SessionSettings(),
            keep_alive_seconds=0.01,
        )
        port = await stack.enter_async_context(serving(app, plane))
        root = f"http://127.0.0.1:{port}"
        # Without TLS nothing is verified, and loading the certificates for it would take most of the time.
        anyone = await stack.enter_async_context(httpx2.AsyncClient(base_url=root, verify=False))
        api = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=f"{root}/v1/management", headers=BEARER, verify=False)
        )
        yield World(app, supervisor, operations, table, plane.measures, desk, api, anyone, port)


def error_of(answer: httpx2.Response) -> dict[str, Any]:
    """The error in an answer, which has exactly OpenAI's shape."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    assert error["message"]
    return error


def events_of(text: str) -> list[tuple[str, Any]]:
    """The server-sent events in ``text``: their names and data."""
    events = []
    for block in text.split("\n\n"):
        if block.startswith("event: "):
            name, data = block.removeprefix("event: ").split("\ndata: ")
            events.append((name, json.loads(data)))
    return events
