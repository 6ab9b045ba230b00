"""The task of one incarnation: launch, watch, probe, and at last the verified stop."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import attrs
import httpx2
import trio

from stoker.contracts import EngineRuntime
from stoker.core import events as e
from stoker.core.liveness import Verdict
from stoker.errors import LaunchError, PermanentLaunchError, StokerError
from stoker.model import Activity, EngineLoad, EngineSpec, LaunchPlan, Origin, Placement
from stoker.supervise import logs, probe
from stoker.supervise.calls import Caller
from stoker.supervise.errands import Errands
from stoker.supervise.placing import Placer
from stoker.supervise.planning import make_plan
from stoker.supervise.process import EngineProcess, spawn

STARTING_PROBE_SECONDS = 0.25
SUSPECTED_PROBE_SECONDS = 0.5  # between probes that somebody asks for: one hiccup must not count as three
PLAN_SECONDS = 60.0  # a plan may look at a disk that is far away
CRASH_GRACE_SECONDS = 2.0  # for engines of a supervisor that is itself coming down


class Surroundings(Protocol):
    """What an incarnation needs besides its spec and its runtime."""

    @property
    def client(self) -> httpx2.AsyncClient:
        """The client for probes."""
        ...

    @property
    def placer(self) -> Placer:
        """Gives it GPUs and an interpreter."""
        ...

    @property
    def traffic(self) -> Watched:
        """What the data plane sees of it."""
        ...

    def log_of(self, engine_id: str) -> Path:
        """Its log file."""
        ...

    def mark_of(self, engine_id: str, incarnation: int) -> str:
        """The marker for its environment."""
        ...


class Watched(Protocol):
    """The part of the data plane that knows how busy an engine is."""

    def activity(self, engine_id: str) -> Activity:
        """What it is doing."""
        ...

    def report_load(self, engine_id: str, incarnation: int, load: EngineLoad | None) -> None:
        """What its own metrics say now; None where they can't be read."""
        ...


@attrs.define(eq=False)
class Incarnation:
    """One run of an engine. :meth:`run` is its task; the other methods may be called at any time, in any order.

    ``spec`` may be replaced by one that needs no restart. ``errands`` are what its engine is told, and ``doubtful`` the
    adapters of which nobody knows whether it has them, since it did not say what became of a call.
    """

    engine_id: str
    number: int
    spec: EngineSpec
    origin: Origin
    runtime: EngineRuntime
    around: Surroundings
    dispatch: Callable[[e.Event], None]
    errands: Errands = attrs.field(factory=Errands)
    doubtful: set[str] = attrs.field(factory=set)
    _starting: bool = True
    _process: EngineProcess | None = None
    _plan_made: LaunchPlan | None = None
    _rests: int = 0
    _preparing: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _delayed: bool = False
    _ready: trio.Event = attrs.field(factory=trio.Event)
    _log_start: int = 0
    _grace_seconds: float | None = None
    _stop_asked: trio.Event = attrs.field(factory=trio.Event)
    _probe_asked: trio.Event = attrs.field(factory=trio.Event)

    def ask_to_stop(self, grace_seconds: float) -> None:
        """Stop it, or hurry a stop that is under way."""
        self._grace_seconds = grace_seconds
        self._stop_asked.set()
        self._preparing.cancel()
        if self._process is not None:
            self._process.hurry(grace_seconds)

    def ask_to_probe(self) -> None:
        """Probe at once, or half a second after the last time."""
        self._probe_asked.set()

    @property
    def plan(self) -> LaunchPlan | None:
        """How it was started; None until it is."""
        return self._plan_made

    @property
    def caller(self) -> Caller:
        """For calls to it, once it is planned."""
        assert self._plan_made is not None
        return Caller(self.engine_id, self.around.client, self._plan_made.base_url, self._headers())

    async def rest(self, path: str, *, asleep: bool) -> None:
        """Put it to sleep, or wake it, by a call of ``path``. Raises what :meth:`Caller.post` does."""
        await self.caller.post(path)
        self._rests += 1
        self.dispatch(e.SleepChanged(self.engine_id, self.number, asleep))

    async def run(self) -> None:
        """Live this incarnation, and dispatch what happens in it. Cancelled, it still leaves no process behind."""
        placement = Placement()
        note = ""
        try:
            plan: LaunchPlan | None = None
            try:
                with self._preparing:
                    placement = await self._place()
                    plan, port = await self._plan(placement)
                if plan is not None and not self._stop_asked.is_set():
                    await self._launch(plan, placement, port)
            except (StokerError, OSError, httpx2.InvalidURL) as error:  # a full disk must not cost the other engines
                retryable = not isinstance(error, PermanentLaunchError)
                self.dispatch(e.LaunchFailed(self.engine_id, self.number, str(error), retryable))
                return
            if plan is not None and not self._stop_asked.is_set():
                await self._watch(plan)
        finally:
            with trio.CancelScope(shield=True):
                note = await self._stop(placement)
            self.around.placer.release(self.engine_id)
        self.dispatch(e.ProcessStopped(self.engine_id, self.number, note))

    async def _place(self) -> Placement:
        placement = await self.around.placer.place(
            self.engine_id, self.spec, self.runtime.estimate_memory, self._say_why_delayed
        )
        if self._delayed:
            self.dispatch(e.LaunchResumed(self.engine_id, self.number))
        return placement

    def _say_why_delayed(self, reason: str, refused: bool) -> None:
        self._delayed = True
        self.dispatch(e.LaunchDelayed(self.engine_id, self.number, reason, refused))

    async def _plan(self, placement: Placement) -> tuple[LaunchPlan, int]:
        """How to start it. A runtime that takes long holds up nobody else, and no stop."""
        port = free_port(placement.host, self.spec.port or 0)
        plan = None
        with trio.move_on_after(PLAN_SECONDS):
            plan = await trio.to_thread.run_sync(
                make_plan,
                self.runtime,
                self.spec,
                placement,
                port,
                abandon_on_cancel=True,
                limiter=trio.CapacityLimiter(1),  # one that hangs takes no thread that Stoker needs
            )
        if plan is None:
            raise PermanentLaunchError(f"runtime {self.spec.runtime!r} did not plan it within {PLAN_SECONDS:g} s")
        return plan, port

    async def _launch(self, plan: LaunchPlan, placement: Placement, port: int) -> None:
        if plan.argv:
            log = self.around.log_of(self.engine_id)
            heading = f"--- stoker: {self.engine_id}, incarnation {self.number}: {' '.join(plan.argv)}"
            self._log_start = await trio.to_thread.run_sync(logs.append_line, log, heading)
            mark = self.around.mark_of(self.engine_id, self.number)
            env = {"PYTHONUNBUFFERED": "1", **_inherited_environment(), **plan.env, **self.spec.env}
            cwd = self.spec.cwd or plan.cwd
            self._process = await trio.to_thread.run_sync(self._spawn, plan.argv, env, cwd, log, mark)
            self.around.placer.launched(self.engine_id, self._process.pid, mark)
        self._plan_made = plan
        self.dispatch(e.Launched(self.engine_id, self.number, self._endpoint(plan, port, placement)))

    def _spawn(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str | None, log: Path, mark: str
    ) -> EngineProcess:
        try:
            return spawn(argv, env, cwd, log, mark)
        except LaunchError as error:
            who = f"the command that runtime {self.spec.runtime!r} has for engine {self.engine_id!r}"
            raise type(error)(f"{who} can't be run: {error}") from error

    def _endpoint(self, plan: LaunchPlan, port: int, placement: Placement) -> e.Endpoint:
        if self._process is None:
            url = httpx2.URL(plan.base_url)
            return e.Endpoint(base_url=plan.base_url, host=url.host, port=url.port, names=plan.names)
        return e.Endpoint(
            base_url=plan.base_url,
            host=placement.host,
            port=port,
            pid=self._process.pid,
            gpus=placement.gpus,
            names=plan.names,
        )

    async def _watch(self, plan: LaunchPlan) -> None:
        async with trio.open_nursery() as nursery:
            if self._process is not None:
                nursery.start_soon(self._report_exit, self._process)
            prober = self._prober(plan)
            nursery.start_soon(self._probe_for_ever, prober)
            nursery.start_soon(self._tell_load, prober)
            nursery.start_soon(self._measure)
            await self._stop_asked.wait()
            nursery.cancel_scope.cancel()

    async def _measure(self) -> None:
        await self._ready.wait()
        await self.around.placer.keep_measured(self.engine_id)

    async def _report_exit(self, process: EngineProcess) -> None:
        status = await process.wait()
        log = self.around.log_of(self.engine_id)
        try:
            text = await trio.to_thread.run_sync(lambda: logs.tail(log, since=self._log_start))
        except OSError as error:
            text = f"(its log can't be read: {error})"
        self.dispatch(e.ProcessExited(self.engine_id, self.number, status, logs.excerpt(text)))

    def _prober(self, plan: LaunchPlan) -> probe.Prober:
        return probe.Prober(
            client=self.around.client,
            plan=plan,
            spec=lambda: self.spec,
            activity=lambda: self.around.traffic.activity(self.engine_id),
            scrape=self.runtime.scrape,
            headers=self._headers(),
        )

    async def _tell_load(self, prober: probe.Prober) -> None:
        """What the engine's metrics say goes to the data plane; a page that hangs holds up no probe."""
        if prober.plan.metrics_path is None:
            return
        await self._ready.wait()
        try:
            while True:
                self.around.traffic.report_load(self.engine_id, self.number, await prober.load())
                await trio.sleep(self.spec.probe_interval_seconds)
        finally:
            self.around.traffic.report_load(self.engine_id, self.number, None)

    async def _probe_for_ever(self, prober: probe.Prober) -> None:
        while True:
            self._probe_asked = trio.Event()
            began = trio.current_time()
            rests = self._rests
            result = await prober.probe()
            self._report_probe(result)
            if result.asleep is not None and rests == self._rests:  # else it may speak of how it was before
                self.dispatch(e.SleepChanged(self.engine_id, self.number, result.asleep))
            quick = self._starting and self.origin is Origin.MANAGED
            pause = STARTING_PROBE_SECONDS if quick else self.spec.probe_interval_seconds
            with trio.move_on_after(pause):
                await self._probe_asked.wait()
                await trio.sleep_until(began + SUSPECTED_PROBE_SECONDS)

    def _headers(self) -> Mapping[str, str]:
        key = os.environ.get(self.spec.api_key_env) if self.spec.api_key_env else None
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _report_probe(self, result: probe.ProbeResult) -> None:
        if self._stop_asked.is_set():  # what it says while it ends must not hide why it ended
            return
        if result.verdict is Verdict.ALIVE:
            self._starting = False
            self._ready.set()
            self.dispatch(e.ProbeSucceeded(self.engine_id, self.number))
        elif result.stalled:
            self.dispatch(e.EngineStalled(self.engine_id, self.number, result.error))
        elif result.verdict is Verdict.FAILED:
            self.dispatch(e.ProbeFailed(self.engine_id, self.number, result.error))

    async def _stop(self, placement: Placement) -> str:
        if self._process is None:
            return ""
        grace = CRASH_GRACE_SECONDS if self._grace_seconds is None else self._grace_seconds
        notes = [await self._process.stop(grace)]
        if self._stop_asked.is_set() and self._process.status is not None:
            self.dispatch(e.ProcessExited(self.engine_id, self.number, self._process.status))
        if placement.gpus and self._grace_seconds != 0:  # whoever hurries does not wait for memory either
            notes.append(await self.around.placer.memory_back(placement.gpus, self._process.seen))
        return "; ".join(filter(None, notes))


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
