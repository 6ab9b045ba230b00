"""Puts engines to sleep and wakes them, and changes the adapters of those that can do so while they run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

import attrs
import trio

from stoker.core import events as e
from stoker.core.engine import Engine
from stoker.errors import ConflictError, NotFoundError
from stoker.model import AdapterPaths, EngineState, SleepPaths
from stoker.suggesting import suggestion
from stoker.supervise.crew import Crew
from stoker.supervise.incarnation import Incarnation


@attrs.frozen
class Tending:
    """What can be done to READY engines while they stay READY.

    ``find`` gives an engine or raises :class:`NotFoundError`; ``check_name`` raises :class:`ConflictError` for a name
    that clients use for something else.

    All methods raise :class:`ConflictError` for an engine that is not READY, that was not started so that it could do
    this, or that refuses, and :class:`UpstreamError` for one that fails at it. Cancelling the first two leaves open
    whether the engine did it, and whether it sleeps is seen at its next probe. Adapters are changed all the same.
    """

    find: Callable[[str], Engine]
    crew: Crew
    dispatch: Callable[[e.Event], None]
    check_name: Callable[[Engine, str], None]

    async def sleep(self, engine_id: str) -> None:
        """Let it finish what it answers, for as long as its drain time-out, and put it to sleep.

        Raises :class:`ConflictError` when that is not enough; it then stays awake.
        """
        engine, incarnation, paths = self._sleeper(engine_id)
        if engine.endpoint.withheld:
            raise ConflictError(f"engine {engine_id!r} is about to sleep already")
        if engine.endpoint.asleep:
            return
        self.dispatch(e.SleepWanted(engine_id, engine.incarnation, wanted=True))
        try:
            await self._wait_until_idle(engine)
            await incarnation.rest(paths.sleep, asleep=True)
        finally:
            self.dispatch(e.SleepWanted(engine_id, engine.incarnation, wanted=False))

    async def wake(self, engine_id: str) -> None:
        """Wake it; it gets requests again."""
        _, incarnation, paths = self._sleeper(engine_id)
        await incarnation.rest(paths.wake, asleep=False)

    async def load_adapter(self, engine_id: str, name: str, path: str) -> None:
        """Load an adapter from ``path``; until the engine ends, clients can ask for it as ``name``.

        Raises :class:`ConflictError` for a name that is taken as well.
        """
        _, incarnation, _ = self._adapter_holder(engine_id)
        await incarnation.errands.run(self.crew.nursery, partial(self._load, incarnation, name, path))

    async def unload_adapter(self, engine_id: str, name: str) -> None:
        """Take the adapter's name from clients, and unload it. Raises :class:`NotFoundError` for one there isn't."""
        _, incarnation, _ = self._adapter_holder(engine_id)
        await incarnation.errands.run(self.crew.nursery, partial(self._unload, incarnation, name))

    async def _load(self, incarnation: Incarnation, name: str, path: str) -> None:
        engine, paths = self._still_holding(incarnation)
        adapters = engine.endpoint.adapters
        if name in adapters:
            raise ConflictError(f"engine {engine.engine_id!r} has an adapter {name!r} already; unload that one first")
        self.check_name(engine, name)
        with self._changing(engine, adapters, name) as then:
            await _make_certain(incarnation, paths, name)
            await _call(incarnation, paths.load, {"lora_name": name, "lora_path": path})
            then.append(name)

    async def _unload(self, incarnation: Incarnation, name: str) -> None:
        engine, paths = self._still_holding(incarnation)
        adapters = engine.endpoint.adapters
        if name not in adapters and name not in incarnation.doubtful:
            hint = suggestion(name, adapters)
            raise NotFoundError(f"engine {engine.engine_id!r} has loaded no adapter {name!r}; {hint}")
        left = tuple(each for each in adapters if each != name)
        with self._changing(engine, left, name) as then:
            if name not in adapters:
                await _make_certain(incarnation, paths, name)
                return
            try:
                await _call(incarnation, paths.unload, {"lora_name": name})
            except ConflictError:
                then[:] = adapters
                raise

    @contextmanager
    def _changing(self, engine: Engine, adapters: tuple[str, ...], name: str) -> Iterator[list[str]]:
        """Meanwhile it has ``adapters`` and ``name`` is nobody else's; afterwards it has what is in the list."""
        then = list(adapters)
        self.dispatch(e.AdaptersChanged(engine.engine_id, engine.incarnation, adapters, held=(name,)))
        try:
            yield then
        finally:
            self.dispatch(e.AdaptersChanged(engine.engine_id, engine.incarnation, tuple(then)))

    def _still_holding(self, incarnation: Incarnation) -> tuple[Engine, AdapterPaths]:
        engine, now, paths = self._adapter_holder(incarnation.engine_id)
        if now is not incarnation:
            raise ConflictError(f"engine {engine.engine_id!r} was started again meanwhile; try again")
        return engine, paths

    def _sleeper(self, engine_id: str) -> tuple[Engine, Incarnation, SleepPaths]:
        engine, incarnation = self._ready(engine_id)
        if incarnation.plan is None or incarnation.plan.sleeping is None:
            raise ConflictError(
                f"engine {engine_id!r} can't sleep as it was started; see in the documentation of its runtime "
                f"({engine.spec.runtime}) whether it can and how (vllm: --enable-sleep-mode)"
            )
        return engine, incarnation, incarnation.plan.sleeping

    def _adapter_holder(self, engine_id: str) -> tuple[Engine, Incarnation, AdapterPaths]:
        engine, incarnation = self._ready(engine_id)
        if incarnation.plan is None or incarnation.plan.adapters is None:
            raise ConflictError(
                f"engine {engine_id!r} can't change its adapters as it was started; see in the documentation of its "
                f"runtime ({engine.spec.runtime}) whether it can and how (vllm: --enable-lora, and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1 in its env)"
            )
        if engine.endpoint.asleep:
            raise ConflictError(f"engine {engine_id!r} is asleep; wake it first")
        return engine, incarnation, incarnation.plan.adapters

    def _ready(self, engine_id: str) -> tuple[Engine, Incarnation]:
        engine = self.find(engine_id)
        incarnation = self.crew.running(engine_id, engine.incarnation)
        if engine.state is not EngineState.READY or incarnation is None:
            raise ConflictError(f"engine {engine_id!r} is {engine.state}; this can only be done to a READY engine")
        return engine, incarnation

    async def _wait_until_idle(self, engine: Engine) -> None:
        idle = trio.Event()
        self.crew.traffic.when_idle(engine.engine_id, idle.set)
        patience = engine.spec.drain_timeout_seconds
        with trio.move_on_after(patience):
            await idle.wait()
        if not idle.is_set():
            count = self.crew.traffic.activity(engine.engine_id).active_requests
            raise ConflictError(
                f"engine {engine.engine_id!r} still answers {count} requests after {patience:g} s and stays awake; "
                "try again when it has less to do, or raise its drain_timeout_seconds"
            )


async def _make_certain(incarnation: Incarnation, paths: AdapterPaths, name: str) -> None:
    """Where nobody knows whether the engine has that adapter: see to it that it hasn't."""
    if name in incarnation.doubtful:
        with suppress(ConflictError):  # it has none of that name
            await _call(incarnation, paths.unload, {"lora_name": name})


async def _call(incarnation: Incarnation, path: str, order: Mapping[str, str]) -> None:
    """Have an adapter loaded or unloaded. It is doubtful until the engine says yes or no."""
    name = order["lora_name"]
    incarnation.doubtful.add(name)
    try:
        await incarnation.caller.post(path, order)
    except ConflictError:
        incarnation.doubtful.discard(name)
        raise
    incarnation.doubtful.discard(name)
