"""Carries out the core's commands: one task for each incarnation, with all that such a task needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

import attrs
import httpx2
import trio

from stoker.contracts import EngineRuntime
from stoker.core import commands as c
from stoker.core import events as e
from stoker.home import Home
from stoker.model import Activity, EngineLoad, EngineRun, EngineSpec
from stoker.supervise.incarnation import Incarnation
from stoker.supervise.placing import Placer

Dispatch = Callable[[e.Event], None]


class Traffic(Protocol):
    """What is asked of the data plane about an engine."""

    def activity(self, engine_id: str) -> Activity:
        """What it is doing."""
        ...

    def report_load(self, engine_id: str, incarnation: int, load: EngineLoad | None) -> None:
        """What its own metrics say now; None where they can't be read."""
        ...

    def fail_requests(self, engine_id: str, incarnation: int, error: str) -> None:
        """End what that incarnation is at for clients, as if its connections had broken."""
        ...

    def when_idle(self, engine_id: str, callback: Callable[[], None]) -> None:
        """Call back once it has no open lease; at once if it has none."""
        ...


@attrs.define(eq=False)
class Crew:
    """The tasks of all incarnations, as children of one nursery.

    ``run_id`` tells this run of the supervisor from others, in the marker that every engine carries. ``keep`` keeps
    what runs beyond our own end.
    """

    home: Home
    run_id: str
    runtimes: Mapping[str, EngineRuntime]
    placer: Placer
    traffic: Traffic
    client: httpx2.AsyncClient
    nursery: trio.Nursery
    keep: Callable[[EngineRun], Awaitable[None]]
    _incarnations: dict[tuple[str, int], Incarnation] = attrs.field(factory=dict)

    def execute(self, command: c.Command, dispatch: Dispatch) -> None:
        """Start what ``command`` wants done; what comes of it is dispatched later, from a task."""
        key = (command.engine_id, command.incarnation)
        if isinstance(command, c.Launch | c.Adopt):
            runtime = self.runtimes[command.spec.runtime]
            found = command.run if isinstance(command, c.Adopt) else None
            incarnation = Incarnation(*key, command.spec, command.origin, runtime, self, dispatch, found)
            self._incarnations[key] = incarnation
            self.nursery.start_soon(self._live, key, incarnation)
        elif isinstance(command, c.StopProcess):
            self._incarnations[key].ask_to_stop(command.grace_seconds)
        elif isinstance(command, c.ProbeNow):
            self._incarnations[key].ask_to_probe()
        elif isinstance(command, c.FailRequests):
            self.traffic.fail_requests(*key, command.error)
        else:
            self.traffic.when_idle(command.engine_id, lambda: self.post(e.EngineIdle(*key), dispatch))

    def post(self, event: e.Event, dispatch: Dispatch) -> None:
        """Dispatch from a task of its own: for whoever may be inside a step."""

        async def say() -> None:
            dispatch(event)

        self.nursery.start_soon(say)

    def update(self, engine_id: str, incarnation: int, spec: EngineSpec) -> None:
        """The spec changed in a way that needs no restart."""
        running = self._incarnations.get((engine_id, incarnation))
        if running is not None:
            running.spec = spec

    def running(self, engine_id: str, incarnation: int) -> Incarnation | None:
        """The task of that incarnation, as long as there is one."""
        return self._incarnations.get((engine_id, incarnation))

    def log_of(self, engine_id: str) -> Path:
        """An engine's log file."""
        return self.home.engine_log(engine_id)

    def mark_of(self, engine_id: str, incarnation: int) -> str:
        """The marker in an engine's environment: this home, this run, the engine, the incarnation."""
        return f"{self.home.digest}:{self.run_id}:{engine_id}:{incarnation}"

    async def _live(self, key: tuple[str, int], incarnation: Incarnation) -> None:
        try:
            await incarnation.run()
        finally:
            del self._incarnations[key]
