"""Begins the run of an engine: plans it, spawns it, or goes on with the process of an earlier Stoker."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Protocol

import attrs
import httpx2
import trio

from stoker.contracts import EngineRuntime
from stoker.core import events as e
from stoker.errors import LaunchError, PermanentLaunchError
from stoker.model import EngineRun, EngineSpec, LaunchPlan, Placement
from stoker.supervise import logs
from stoker.supervise.placing import Placer
from stoker.supervise.planning import make_plan
from stoker.supervise.process import EngineProcess, adopt, spawn
from stoker.supervise.proctable import boot_id

log = logging.getLogger("stoker.supervise")

PLAN_SECONDS = 60.0  # a plan may look at a disk that is far away


@attrs.define(eq=False)
class Running:
    """A run that has begun. ``process`` is None for an engine that is only a URL."""

    plan: LaunchPlan
    endpoint: e.Endpoint
    placement: Placement
    process: EngineProcess | None = None
    log_start: int = 0


class Around(Protocol):
    """What a launch needs besides its spec and its runtime."""

    @property
    def placer(self) -> Placer:
        """Gives it GPUs and an interpreter."""
        ...

    def log_of(self, engine_id: str) -> Path:
        """Its log file."""
        ...

    def mark_of(self, engine_id: str, incarnation: int) -> str:
        """The marker for its environment."""
        ...

    def keep(self, run: EngineRun) -> Awaitable[None]:
        """Keep, beyond our own end, that it runs, or is about to. It is kept when this returns, if it can be."""
        ...


async def make_plan_in_time(runtime: EngineRuntime, spec: EngineSpec, placement: Placement) -> tuple[LaunchPlan, int]:
    """How ``spec`` is started, and the port that it is given. Cancelling gives up waiting for the runtime.

    Raises :class:`LaunchError`, also where the runtime takes more than a minute.
    """
    port = free_port(placement.host, spec.port or 0)
    with trio.move_on_after(PLAN_SECONDS):
        plan = await trio.to_thread.run_sync(
            make_plan,
            runtime,
            spec,
            placement,
            port,
            abandon_on_cancel=True,
            limiter=trio.CapacityLimiter(1),  # one that hangs takes no thread that Stoker needs
        )
        return plan, port
    raise PermanentLaunchError(f"runtime {spec.runtime!r} did not plan it within {PLAN_SECONDS:g} s")


async def launch(
    engine_id: str,
    incarnation: int,
    spec: EngineSpec,
    plan: LaunchPlan,
    placement: Placement,
    port: int,
    around: Around,
) -> Running:
    """Start what ``plan`` says. Not to be cancelled, as the process may be there: shield it.

    Raises :class:`LaunchError`, and OSError for a log that can't be written.
    """
    if not plan.argv:
        url = httpx2.URL(plan.base_url)
        return Running(
            plan, e.Endpoint(base_url=plan.base_url, host=url.host, port=url.port, names=plan.names), placement
        )
    log_file, mark = around.log_of(engine_id), around.mark_of(engine_id, incarnation)
    run = EngineRun(
        engine_id=engine_id,
        incarnation=incarnation,
        mark=mark,
        boot_id=await trio.to_thread.run_sync(boot_id),
        pid=None,
        started=None,
        host=placement.host,
        port=port,
        plan=attrs.evolve(plan, argv=(), env={}),
        gpus=placement.gpus,
        promised=around.placer.promised(engine_id),
    )
    await around.keep(run)  # first, so that a Stoker that dies in the next moment has a successor who finds it
    log_start = await _begin_log(log_file, f"--- stoker: {engine_id}, incarnation {incarnation}: {' '.join(plan.argv)}")
    env = {"PYTHONUNBUFFERED": "1", **_inherited_environment(), **plan.env, **spec.env}
    try:
        process = await trio.to_thread.run_sync(spawn, plan.argv, env, spec.cwd or plan.cwd, log_file, mark)
    except LaunchError as error:
        who = f"the command that runtime {spec.runtime!r} has for engine {engine_id!r}"
        raise type(error)(f"{who} can't be run: {error}") from error
    around.placer.launched(engine_id, process.pid, mark)
    await around.keep(attrs.evolve(run, pid=process.pid, started=process.started))
    return Running(plan, _endpoint(plan, placement, port, process), placement, process, log_start)


async def _begin_log(path: Path, heading: str) -> int:
    """Where in its log this run begins. A disk that is full costs the heading, and not the engine."""
    try:
        return await trio.to_thread.run_sync(logs.append_line, path, heading)
    except OSError as error:
        log.warning("the log %s can't be written: %s", path, error.strerror)
        return 0


async def go_on_with(run: EngineRun, spec: EngineSpec, around: Around) -> Running:
    """The run of an earlier Stoker, whose process lives."""
    assert run.pid is not None
    assert run.started is not None
    placement = Placement(gpus=run.gpus, host=run.host)
    process = adopt(run.pid, run.started, run.mark)
    around.placer.take_back(run.engine_id, spec, run.promised)
    around.placer.launched(run.engine_id, run.pid, run.mark)
    return Running(run.plan, endpoint_of(run), placement, process)


def endpoint_of(run: EngineRun) -> e.Endpoint:
    """Where a run of an earlier Stoker answers."""
    return e.Endpoint(
        base_url=run.plan.base_url,
        host=run.host,
        port=run.port,
        pid=run.pid,
        gpus=run.gpus,
        names=run.plan.names,
        adapters=run.adapters,
    )


def _endpoint(plan: LaunchPlan, placement: Placement, port: int, process: EngineProcess) -> e.Endpoint:
    return e.Endpoint(
        base_url=plan.base_url,
        host=placement.host,
        port=port,
        pid=process.pid,
        gpus=placement.gpus,
        names=plan.names,
    )


def free_port(host: str, wanted: int = 0) -> int:
    """A TCP port that nobody listens on at this moment: the ``wanted`` one, or any (0).

    Raises :class:`LaunchError` where somebody listens there: the readiness probe would take him for the engine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe_socket:
        if wanted:  # what its last bearer left in TIME_WAIT is no obstacle
            probe_socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe_socket.bind((host, wanted))
        except OSError as error:
            if not wanted or error.errno != errno.EADDRINUSE:
                raise
            raise LaunchError(f"port {wanted} is in use; stop what listens there, or choose another port") from error
        port: int = probe_socket.getsockname()[1]
        return port


def _inherited_environment() -> Mapping[str, str]:
    """Our own environment, less what is ours alone."""
    return {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
