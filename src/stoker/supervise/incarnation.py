"""The task of one incarnation: launch, watch, probe, and at last the verified stop."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Protocol

import attrs
import httpx2
import trio

from stoker.contracts import EngineRuntime, Narrating
from stoker.core import events as e
from stoker.core.liveness import Verdict
from stoker.errors import PermanentLaunchError, StokerError
from stoker.model import Activity, EngineLoad, EngineRun, EngineSpec, LaunchPlan, Origin, Placement, StartProgress
from stoker.supervise import logs, probe
from stoker.supervise.calls import Caller
from stoker.supervise.errands import Errands
from stoker.supervise.launching import Around, Running, go_on_with, launch, make_plan_in_time
from stoker.supervise.narrating import narrate
from stoker.supervise.process import EngineProcess
from stoker.supervise.proof import Claim

STARTING_PROBE_SECONDS = 0.25
SUSPECTED_PROBE_SECONDS = 0.5  # between probes that somebody asks for: one hiccup must not count as three
MOST_DOUBTS = 2  # the process table is not read in one go: one look may miss a process that was just forked


class Surroundings(Around, Protocol):
    """What an incarnation needs besides its spec and its runtime."""

    @property
    def client(self) -> httpx2.AsyncClient:
        """The client for probes."""
        ...

    @property
    def traffic(self) -> Watched:
        """What the data plane sees of it."""
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

    ``spec`` may be replaced by one that needs no restart. ``found`` is a run of an earlier Stoker, to be gone on with.
    ``errands`` are what its engine is told, and ``doubtful`` the adapters of which nobody knows whether it has them,
    since it did not say what became of a call.
    """

    engine_id: str
    number: int
    spec: EngineSpec
    origin: Origin
    runtime: EngineRuntime
    around: Surroundings
    dispatch: Callable[[e.Event], None]
    found: EngineRun | None = None
    errands: Errands = attrs.field(factory=Errands)
    doubtful: set[str] = attrs.field(factory=set)
    _starting: bool = True
    _running: Running | None = None
    _claim: Claim | None = None
    _doubts: int = 0
    _rests: int = 0
    _preparing: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _delayed: bool = False
    _ready: trio.Event = attrs.field(factory=trio.Event)
    _grace_seconds: float | None = None
    _stop_asked: trio.Event = attrs.field(factory=trio.Event)
    _probe_asked: trio.Event = attrs.field(factory=trio.Event)

    def ask_to_stop(self, grace_seconds: float) -> None:
        """Stop it, or hurry a stop that is under way."""
        self._grace_seconds = grace_seconds
        self._stop_asked.set()
        self._preparing.cancel()
        if self._running is not None and self._running.process is not None:
            self._running.process.hurry(grace_seconds)

    def ask_to_probe(self) -> None:
        """Probe at once, or half a second after the last time."""
        self._probe_asked.set()

    @property
    def plan(self) -> LaunchPlan | None:
        """How it was started; None until it is."""
        return None if self._running is None else self._running.plan

    @property
    def caller(self) -> Caller:
        """For calls to it, once it runs."""
        assert self._running is not None
        return Caller(self.engine_id, self.around.client, self._running.plan.base_url, self._headers())

    async def rest(self, path: str, *, asleep: bool) -> None:
        """Put it to sleep, or wake it, by a call of ``path``. Raises what :meth:`Caller.post` does."""
        await self.caller.post(path)
        self._rests += 1
        self.dispatch(e.SleepChanged(self.engine_id, self.number, asleep))

    async def run(self) -> None:
        """Live this incarnation, and dispatch what happens in it.

        Cancelled, it leaves its process running, for a later Stoker to go on with, unless it was asked to stop. So
        whatever ends us costs no engine.
        """
        note = ""
        try:
            try:
                await self._begin()
            except (StokerError, OSError, httpx2.InvalidURL) as error:  # a full disk must not cost the other engines
                retryable = not isinstance(error, PermanentLaunchError)
                self.dispatch(e.LaunchFailed(self.engine_id, self.number, str(error), retryable))
                return
            if self._running is not None and not self._stop_asked.is_set():
                await self._watch(self._running)
        finally:
            if self._stop_asked.is_set():
                with trio.CancelScope(shield=True):
                    note = await self._stop()
            elif self._running is not None and self._running.process is not None:
                self._running.process.let_go()
            self.around.placer.release(self.engine_id)
        self.dispatch(e.ProcessStopped(self.engine_id, self.number, note))

    async def _begin(self) -> None:
        """Have it running, unless a stop came first."""
        if self.found is not None:
            self._running = await go_on_with(self.found, self.spec, self.around)
            return
        prepared: tuple[Placement, LaunchPlan, int] | None = None
        with self._preparing:
            placement = await self._place()
            prepared = (placement, *await make_plan_in_time(self.runtime, self.spec, placement))
        if prepared is None or self._stop_asked.is_set():
            return
        placement, plan, port = prepared
        with trio.CancelScope(shield=True):  # once it is spawned, somebody has to know of it
            running = await launch(self.engine_id, self.number, self.spec, plan, placement, port, self.around)
            self._running = running
        self.dispatch(e.Launched(self.engine_id, self.number, running.endpoint))

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

    async def _watch(self, running: Running) -> None:
        async with trio.open_nursery() as nursery:
            if running.process is not None:
                self._claim = Claim.of(running.process, running.endpoint, self.spec)
                nursery.start_soon(self._report_exit, running.process, running.log_start)
                nursery.start_soon(self._tell_progress, running.log_start)
            prober = self._prober(running.plan)
            nursery.start_soon(self._probe_for_ever, prober)
            nursery.start_soon(self._tell_load, prober)
            nursery.start_soon(self._measure)
            await self._stop_asked.wait()
            nursery.cancel_scope.cancel()

    async def _measure(self) -> None:
        await self._ready.wait()
        await self.around.placer.keep_measured(self.engine_id)

    async def _tell_progress(self, log_start: int) -> None:
        if isinstance(self.runtime, Narrating):
            log = self.around.log_of(self.engine_id)
            await narrate(self.runtime, log, log_start, self._ready, self._say_how_far)

    def _say_how_far(self, progress: StartProgress) -> None:
        self.dispatch(e.StartProgressed(self.engine_id, self.number, progress))

    async def _report_exit(self, process: EngineProcess, log_start: int) -> None:
        status = await process.wait()
        left = await process.left() if status.code == 0 else 0
        log = self.around.log_of(self.engine_id)
        try:
            text = await trio.to_thread.run_sync(lambda: logs.tail(log, since=log_start))
        except OSError as error:
            text = f"(its log can't be read: {error})"
        self.dispatch(e.ProcessExited(self.engine_id, self.number, status, logs.excerpt(text), left))

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
            if result.verdict is not Verdict.ALIVE or await self._is_proven(prober):
                self._report_probe(result)
            if result.asleep is not None and rests == self._rests:  # else it may speak of how it was before
                self.dispatch(e.SleepChanged(self.engine_id, self.number, result.asleep))
            was_ready = self.found is not None and self.found.ready
            loads = self.origin is not Origin.REGISTERED and not (was_ready and result.verdict is Verdict.FAILED)
            quick = self._starting and loads
            pause = STARTING_PROBE_SECONDS if quick else self.spec.probe_interval_seconds
            with trio.move_on_after(pause):
                await self._probe_asked.wait()
                await trio.sleep_until(began + SUSPECTED_PROBE_SECONDS)

    async def _is_proven(self, prober: probe.Prober) -> bool:
        """Whether it is the engine that answers its probe. That it isn't is told, when it was seen twice."""
        if self._claim is None:  # proven already, or a URL
            return True
        doubt = await self._claim.doubt(prober.list_models)
        if doubt == "":
            self._claim = None
        elif doubt is not None:
            self._doubts += 1
            if self._doubts == MOST_DOUBTS and not self._stop_asked.is_set():
                self.dispatch(e.PortTaken(self.engine_id, self.number, doubt))
        return self._claim is None

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
            self.dispatch(e.ProbeFailed(self.engine_id, self.number, result.error, result.silent))

    async def _stop(self) -> str:
        process = None if self._running is None else self._running.process
        if self._running is None or process is None:
            return ""
        assert self._grace_seconds is not None
        notes = [await process.stop(self._grace_seconds)]
        if process.status is not None:
            self.dispatch(e.ProcessExited(self.engine_id, self.number, process.status))
        gpus = self._running.placement.gpus
        if gpus and self._grace_seconds != 0:  # whoever hurries does not wait for memory either
            notes.append(await self.around.placer.memory_back(gpus, process.seen))
        return "; ".join(filter(None, notes))
