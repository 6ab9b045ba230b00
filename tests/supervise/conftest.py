"""A supervisor with real engines: fake ones, in real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from stoker.builtin.policies import LeastLoad
from stoker.gateway.policies import Policies
from stoker.gateway.routing import RoutingTable
from stoker.home import Home
from stoker.model import EngineInfo, EngineSpec, GpuReport, KeptEngine
from stoker.plugins import build_registry, builtin
from stoker.supervise import probe, proctable
from stoker.supervise.crew import Crew
from stoker.supervise.keeping import Keeper
from stoker.supervise.placing import Placer
from stoker.supervise.supervisor import Supervisor

HANG_GUARD_SECONDS = 60
OpenSupervisor = Callable[[], AbstractAsyncContextManager[Supervisor]]


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A home of the test's own. Whatever process still carries its marker afterwards is killed."""
    home = Home(tmp_path / "home")
    yield home
    proctable.send(marked(home), signal.SIGKILL)


async def no_gpus() -> GpuReport:
    """A machine without GPUs, and without a driver."""
    return GpuReport(reason="no NVIDIA driver is installed")


async def save_nothing(engines: Sequence[KeptEngine]) -> None:
    """Nobody asks for it."""


def marked(home: Home) -> list[proctable.ProcessEntry]:
    """Every living process of this home's engines."""
    return proctable.members(None, lambda mark: mark.startswith(f"{home.digest}:"))


@pytest.fixture
def open_supervisor(home: Home) -> OpenSupervisor:
    """Opens a supervisor with all built-in runtimes and a real routing table; leaving it stops its engines."""
    return partial(_open, home)


@asynccontextmanager
async def _open(home: Home) -> AsyncIterator[Supervisor]:
    registry = build_registry(builtin())
    table = RoutingTable(Policies(LeastLoad(), LeastLoad()), clock=trio.current_time)
    keeper = Keeper(save_nothing)
    with trio.fail_after(HANG_GUARD_SECONDS):
        async with probe.make_client() as client, trio.open_nursery() as nursery:
            crew = Crew(
                home=home,
                run_id=os.urandom(4).hex(),
                runtimes=registry.runtimes,
                placer=Placer(registry.scheduler("none"), no_gpus, lambda _: None),
                traffic=table,
                client=client,
                nursery=nursery,
                keep=keeper.keep,
            )
            supervisor = Supervisor(crew, table, log_max_bytes=2**20, keeper=keeper)
            nursery.start_soon(supervisor.run_timer)
            yield supervisor
            supervisor.leave(hurry=True)
            await supervisor.wait_until_all_stopped()
            nursery.cancel_scope.cancel()


async def until(supervisor: Supervisor, engine_id: str, condition: Callable[[EngineInfo], bool]) -> None:
    """Wait until what the supervisor says of an engine fulfils ``condition``."""
    with supervisor.subscribe() as changes:
        while not condition(supervisor.info(engine_id)):
            await changes.receive()


def quick(spec: EngineSpec) -> EngineSpec:
    """The same spec with times for tests."""
    return attrs.evolve(
        spec,
        probe_interval_seconds=0.1,
        probe_timeout_seconds=0.5,
        restart_base_seconds=0.1,
        stop_grace_seconds=2.0,
        drain_timeout_seconds=5.0,
    )
