"""The supervisor: what the rest of Stoker says to the fleet, and the tasks that keep it alive."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import attrs
import trio

from stoker.contracts import EngineRuntime
from stoker.core import claims
from stoker.core import events as e
from stoker.core.describe import backend_of, describe
from stoker.core.engine import Engine, Fleet, Phase
from stoker.core.naming import expand, free_id
from stoker.errors import ConfigError, ConflictError, Mistake, NotFoundError
from stoker.model import Backend, EngineInfo, EngineRun, EngineSpec, EngineState, Origin, Stray
from stoker.suggesting import suggestion
from stoker.supervise import crew, logs
from stoker.supervise.changes import Bulletin, Change, is_visible, log_change
from stoker.supervise.dispatcher import Dispatcher
from stoker.supervise.keeping import Keeper
from stoker.supervise.launching import endpoint_of
from stoker.supervise.leftovers import Leftovers, end_leftovers, find_strays
from stoker.supervise.tending import Tending
from stoker.vetting import check_runtime_on

log = logging.getLogger("stoker.supervise")

ROTATE_EVERY_SECONDS = 30.0
Observe = Callable[[EngineInfo | None, EngineInfo | None], None]
"""Told of every change that is published: the engine as it was and as it is. Returns at once."""


class Traffic(crew.Traffic, Protocol):
    """The data plane, which is told what the engines are."""

    def update(self, backends: Sequence[Backend]) -> None:
        """These are the engines now."""
        ...


@attrs.define(eq=False)
class Supervisor:
    """Keeps engines running. All methods are for its event loop only.

    Methods that start or stop something return at once; the ``wait_…`` methods wait for the outcome.
    """

    crew: crew.Crew
    traffic: Traffic
    log_max_bytes: int
    keeper: Keeper
    observe: Observe | None = None
    leaving: bool = attrs.field(default=False, init=False)
    tending: Tending = attrs.field(init=False)
    _dispatcher: Dispatcher = attrs.field(init=False)
    _paths: dict[str, frozenset[str]] = attrs.field(factory=dict)
    _bulletin: Bulletin = attrs.field(factory=Bulletin)
    _changed: trio.Event = attrs.field(factory=trio.Event)
    _stepped: trio.Event = attrs.field(factory=trio.Event)
    _epoch: float = attrs.field(factory=lambda: time.time() - trio.current_time())

    def __attrs_post_init__(self) -> None:
        fleet = Fleet(seed=self.crew.run_id.encode())
        self._dispatcher = Dispatcher(
            fleet, lambda command: self.crew.execute(command, self._dispatch), [self._observe]
        )
        self.tending = Tending(
            self._engine,
            self.crew,
            self._dispatch,
            lambda engine, name: claims.check_adapter(self._fleet, engine, name),
        )

    # What is there

    def infos(self) -> tuple[EngineInfo, ...]:
        """Every engine, in the order they came."""
        return tuple(self._describe(engine) for engine in self._fleet.engines.values())

    def info(self, engine_id: str) -> EngineInfo:
        """One engine. Raises :class:`NotFoundError`."""
        return self._describe(self._engine(engine_id))

    def specs(self) -> Mapping[str, EngineSpec]:
        """The spec of every engine that stays, by id; of one that is being restarted, the one it will have."""
        return {
            engine_id: engine.next_spec or engine.spec
            for engine_id, engine in self._fleet.engines.items()
            if not engine.leaving
        }

    def is_leaving(self, engine_id: str) -> bool:
        """Whether an engine is forgotten as soon as it is stopped."""
        engine = self._fleet.get(engine_id)
        return engine is not None and engine.leaving

    # What shall be there

    def start(self, spec: EngineSpec, engine_id: str | None = None) -> tuple[str, ...]:
        """Start ``spec.replicas`` engines; returns their ids. Several that are given an id have it with a number.

        Raises :class:`NotFoundError` (no such runtime), :class:`ConfigError` (the runtime can't work with the spec) and
        :class:`ConflictError` (``engine_id`` is taken by an engine that runs).
        """
        self._check_staying()
        self.check_names(spec, besides=(engine_id or "",))
        paths = self.check(spec)
        if engine_id is not None:
            claims.check_id(self._fleet, engine_id, spec)
        if engine_id is not None and spec.replicas == 1:
            wanted: Mapping[str, EngineSpec] = {engine_id: spec}
        else:
            wanted = expand([attrs.evolve(spec, label=engine_id or spec.label)], taken=self._fleet.engines)
        origin = Origin.MANAGED if spec.url is None else Origin.REGISTERED
        for each_id, each in wanted.items():
            self._paths[each_id] = paths
            self._dispatch(e.StartRequested(each_id, each, origin))
        return tuple(wanted)

    def start_again(self, engine_id: str) -> None:
        """Start an engine that is STOPPED or in ERROR.

        Raises :class:`ConflictError` when it runs, or its names were given away meanwhile.
        """
        self._check_staying()
        engine = self._engine(engine_id)
        if engine.runs:
            raise ConflictError(f"engine {engine_id!r} is {engine.state} already")
        self.check_names(engine.spec, besides=(engine_id,))
        self._dispatch(e.StartRequested(engine_id, engine.spec, engine.origin))

    def register(self, spec: EngineSpec, engine_id: str | None = None) -> str:
        """Route to a URL that somebody else keeps running. Raises :class:`ConflictError` for one that is known."""
        self._check_staying()
        self.check_names(spec, besides=(engine_id or "",))
        paths = self.check(spec)
        claims.check_url(self._fleet, spec)
        engine_id = engine_id or free_id(spec, self._fleet.engines)
        claims.check_id(self._fleet, engine_id, spec)
        self._paths[engine_id] = paths
        self._dispatch(e.StartRequested(engine_id, spec, Origin.REGISTERED))
        return engine_id

    def adopt(self, spec: EngineSpec, run: EngineRun) -> None:
        """Go on with the process that an earlier Stoker started. Raises what :meth:`start` does."""
        self.check_names(spec)
        self._paths[run.engine_id] = self.check(spec)
        self.keeper.found(run)
        self._dispatch(e.EngineAdopted(run.engine_id, spec, run, endpoint_of(run)))

    def keep_stopped(self, engine_id: str, spec: EngineSpec, origin: Origin) -> None:
        """List an engine that was stopped when an earlier Stoker ended. Raises what :meth:`start` does."""
        self._paths[engine_id] = self.check(spec)
        self._dispatch(e.EngineKept(engine_id, spec, origin))

    def stop(self, engine_id: str, *, drain_timeout_seconds: float | None = None, forget: bool = False) -> None:
        """Drain (for the spec's own time, unless told), then stop. ``forget`` removes it from the list in the end.

        An engine that is stopping already can only be hurried by it.
        """
        spec = self._engine(engine_id).spec
        drain = spec.drain_timeout_seconds if drain_timeout_seconds is None else drain_timeout_seconds
        after = e.AfterStop.FORGET if forget else e.AfterStop.STAY
        self._dispatch(e.StopRequested(engine_id, drain, spec.stop_grace_seconds, after))

    def restart(
        self, engine_id: str, *, drain_timeout_seconds: float | None = None, spec: EngineSpec | None = None
    ) -> None:
        """Drain, stop and start again, as ``spec`` if one is given, keeping id and place."""
        self._check_staying()
        engine = self._engine(engine_id)
        if spec is not None:
            self._paths[engine_id] = self.check(spec)
        drain = engine.spec.drain_timeout_seconds if drain_timeout_seconds is None else drain_timeout_seconds
        grace = engine.spec.stop_grace_seconds
        self._dispatch(e.StopRequested(engine_id, drain, grace, e.AfterStop.START, spec))

    def update(self, engine_id: str, spec: EngineSpec) -> None:
        """Change what needs no restart (see :mod:`stoker.core.reload`)."""
        engine = self._engine(engine_id)
        self._paths[engine_id] = self.check(spec)
        self._dispatch(e.SpecUpdated(engine_id, spec))
        self.crew.update(engine_id, engine.incarnation, spec)

    def leave(self, *, hurry: bool = False) -> None:
        """Stop every engine, drained or (``hurry``) killed at once, and start none any more."""
        self.keeper.freeze_wishes(and_start_what_is_configured=True)
        self.leaving = True
        for engine in list(self._fleet.engines.values()):
            drain, grace = (0.0, 0.0) if hurry else (engine.spec.drain_timeout_seconds, engine.spec.stop_grace_seconds)
            self._dispatch(e.StopRequested(engine.engine_id, drain, grace))

    def leave_running(self) -> None:
        """Start nothing any more. What runs is left to a later Stoker when the tasks are cancelled."""
        self.keeper.freeze_wishes()
        self.leaving = True

    async def strays(self) -> tuple[Stray, ...]:
        """Processes with the marker of this home that belong to no engine here."""
        return await trio.to_thread.run_sync(find_strays, self.crew.home.digest, self.keeper.marks())

    async def end_strays(self) -> Leftovers:
        """End them, verified."""
        return await end_leftovers(self.crew.home.digest, self.keeper.marks())

    def forget_ended(self) -> tuple[str, ...]:
        """Take what is STOPPED, or in ERROR for good, off the list, but for what the configuration names."""
        ended = [
            engine.engine_id
            for engine in self._fleet.engines.values()
            if engine.engine_id not in self.keeper.configured and engine.has_ended
        ]
        for engine_id in ended:
            self.stop(engine_id, drain_timeout_seconds=0.0, forget=True)
        return tuple(ended)

    def suspect(self, engine_id: str, incarnation: int, error: str) -> None:
        """The data plane saw it fail; look at once. May be called from anywhere on the loop, also inside a step."""
        self.crew.post(e.EngineSuspected(engine_id, incarnation, error), self._dispatch)

    def check(self, spec: EngineSpec) -> frozenset[str]:
        """The paths an engine of ``spec`` will serve.

        Raises :class:`NotFoundError` for an unknown runtime, :class:`ConfigError` with all the runtime has against the
        spec, and :class:`PluginError` for a runtime that breaks on it.
        """
        runtime = self._runtime(spec)
        mistakes, paths = check_runtime_on(runtime, spec)
        if mistakes:
            raise ConfigError(f"engine {spec.model!r}", [Mistake("", mistake) for mistake in mistakes])
        return paths

    def check_names(self, spec: EngineSpec, *, besides: Collection[str] = ()) -> None:
        """As :func:`stoker.core.claims.check_names`, beside the engines that are there."""
        claims.check_names(self._fleet, spec, besides)

    # What becomes of it

    async def wait_until_settled(self, engine_id: str) -> EngineInfo:
        """Wait until it is READY, in ERROR (also one that a restart will follow), STOPPED, or refused GPUs for now.

        Raises :class:`NotFoundError` when it is forgotten meanwhile.
        """
        while not (engine := self._engine(engine_id)).settled:
            await self._changed.wait()
        return self._describe(engine)

    async def wait_until_probed(self, engine_id: str, incarnation: int) -> None:
        """Wait until this incarnation answers a probe, or takes no requests any more."""
        engine = self._fleet.get(engine_id)
        heartbeat = None if engine is None else engine.last_heartbeat
        while engine is not None and engine.incarnation == incarnation and engine.accepting:
            if engine.last_heartbeat != heartbeat:
                return
            await self._stepped.wait()
            engine = self._fleet.get(engine_id)

    async def wait_until_stopped(self, engine_id: str) -> EngineInfo | None:
        """Wait until it is STOPPED, or forgotten (None)."""
        while (engine := self._fleet.get(engine_id)) is not None:
            if engine.state is EngineState.STOPPED:
                return self._describe(engine)
            await self._changed.wait()
        return None

    async def wait_until_all_stopped(self) -> None:
        """Wait until no engine has a task or a process left."""
        while any(engine.phase is not Phase.NONE for engine in self._fleet.engines.values()):
            await self._changed.wait()

    def subscribe(self) -> AbstractContextManager[trio.MemoryReceiveChannel[Change]]:
        """Every change from now on. A reader that falls behind by 256 changes finds its channel closed."""
        return self._bulletin.subscribe()

    async def log_text(self, engine_id: str, tail: int | None) -> str:
        """The last ``tail`` lines of its log (None: the last 256 KiB). Raises :class:`NotFoundError`."""
        self._engine(engine_id)
        return await trio.to_thread.run_sync(logs.tail, self.crew.log_of(engine_id), tail)

    def follow_log(self, engine_id: str, tail: int) -> AsyncIterator[bytes]:
        """Its log from ``tail`` lines back, and on, until cancelled. Raises :class:`NotFoundError`."""
        self._engine(engine_id)
        return logs.follow(self.crew.log_of(engine_id), tail)

    # The tasks that go with it, and the rest that is ours alone

    async def run_timer(self) -> None:
        """The task that makes deadlines happen."""
        await self._dispatcher.run_timer()

    async def rotate_logs(self) -> None:
        """The task that keeps logs from growing for ever."""
        while True:
            await trio.sleep(ROTATE_EVERY_SECONDS)
            for engine_id in self._fleet.engines:
                try:
                    await trio.to_thread.run_sync(logs.rotate, self.crew.log_of(engine_id), self.log_max_bytes)
                except OSError as error:  # a full disk must not cost an engine
                    log.warning("the log of %s could not be rotated: %s", engine_id, error)

    def _dispatch(self, event: e.Event) -> None:
        self._dispatcher.dispatch(event)

    def _runtime(self, spec: EngineSpec) -> EngineRuntime:
        runtime = self.crew.runtimes.get(spec.runtime)
        if runtime is None:
            hint = suggestion(spec.runtime, sorted(self.crew.runtimes))
            raise NotFoundError(f"there is no runtime {spec.runtime!r} (for {spec.model!r}); {hint}")
        return runtime

    @property
    def _fleet(self) -> Fleet:
        return self._dispatcher.fleet

    def _engine(self, engine_id: str) -> Engine:
        engine = self._fleet.get(engine_id)
        if engine is None:
            raise NotFoundError(f"there is no engine {engine_id!r}; {suggestion(engine_id, self._fleet.engines)}")
        return engine

    def _check_staying(self) -> None:
        if self.leaving:
            raise ConflictError("Stoker is shutting down; nothing is started any more")

    def _describe(self, engine: Engine) -> EngineInfo:
        return describe(engine, self.traffic.activity(engine.engine_id), self._epoch)

    def _observe(self, before: Engine | None, after: Engine | None) -> None:
        self._stepped.set()
        self._stepped = trio.Event()
        if not is_visible(before, after):
            return
        self.traffic.update([self._backend(engine) for engine in self._fleet.engines.values()])
        self._changed.set()
        self._changed = trio.Event()
        self.keeper.fleet_changed(self._fleet)
        log_change(before, after)
        then, now = (None if engine is None else self._describe(engine) for engine in (before, after))
        self._bulletin.publish(Change(then, now, time.time()))
        if self.observe is not None:
            self.observe(then, now)

    def _backend(self, engine: Engine) -> Backend:
        variable = engine.spec.api_key_env
        key = os.environ.get(variable) if variable else None
        return backend_of(engine, self._paths[engine.engine_id], key)
