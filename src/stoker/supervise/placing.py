"""Gives engines what they need of the machine before they start: GPUs, and the interpreter of their environment."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from math import inf
from pathlib import Path

import attrs
import trio

from stoker.contracts import GpuScheduler
from stoker.errors import LaunchError, PermanentLaunchError
from stoker.model import EngineSpec, GpuReport, Placement
from stoker.supervise.choosing import Wait, choose
from stoker.supervise.holdings import Holdings
from stoker.supervise.needs import Estimate, Measurements, NoMeasurements, needs_of
from stoker.supervise.owners import owners
from stoker.supervise.shortage import is_shortage

log = logging.getLogger("stoker.supervise")

MEMORY_BACK_SECONDS = 30.0
RETRY_SECONDS = 5.0  # memory that a stranger gives back is not announced
MEASURE_SECONDS = 30.0
ESTIMATE_SECONDS = 5.0  # the others in the line wait for it
SHORTAGE_SECONDS = 0.1

Waits = Callable[[str, bool], None]
"""Told why an engine has to wait for its GPUs, and whether that is a refusal (else another one is starting there)."""


@attrs.define(eq=False)
class _Wish:
    """An engine in the line. ``answer`` comes when it has its GPUs, or when it never will."""

    engine_id: str
    spec: EngineSpec
    estimate: Estimate
    waits: Waits
    answer: Placement | LaunchError | None = None
    said: Wait | None = None

    def wait(self, wait: Wait) -> None:
        if self.said is None or self.said.refused != wait.refused:
            log.info("%s %s", self.engine_id, wait.reason, extra={"engine": self.engine_id})
        if self.said != wait:
            self.said = wait
            self.waits(wait.reason, wait.refused)


@attrs.define(eq=False)
class Placer:
    """Places engines, and remembers which GPUs it gave to whom until they are released.

    Engines that can't be placed yet stand in a line. Whenever something changes, the GPUs are read once and everybody
    in the line is tried, first come, first served: all GPUs of an engine or none, and one start at a time on each GPU,
    because two engines that start on one GPU mis-measure each other.
    """

    scheduler: GpuScheduler
    read_gpus: Callable[[], Awaitable[GpuReport]]
    find_python: Callable[[str], Path | None]
    ledger: Measurements = attrs.field(factory=NoMeasurements)
    _holdings: Holdings = attrs.field(factory=Holdings)
    _line: dict[str, _Wish] = attrs.field(factory=dict)
    _sessions: dict[int, str] = attrs.field(factory=dict)
    _marks: dict[str, str] = attrs.field(factory=dict)
    _turn: trio.Lock = attrs.field(factory=trio.Lock)
    _served_at: float = -inf
    _changed: trio.Event = attrs.field(factory=trio.Event)

    async def place(self, engine_id: str, spec: EngineSpec, estimate: Estimate, waits: Waits) -> Placement:
        """GPUs and an interpreter for ``spec``; waits until the GPUs can be had. Cancelling leaves the line.

        Raises :class:`LaunchError` where they never can, naming what is in the way. Whoever calls it calls
        :meth:`release` in the end, also after it raised or was cancelled.
        """
        python = await trio.to_thread.run_sync(self.find_python, spec.runtime)
        if spec.gpus == 0:
            return Placement(python=python)
        wish = self._line[engine_id] = _Wish(engine_id, spec, estimate, waits)
        try:
            await self._stand_in_line(wish)
        finally:
            if self._line.get(engine_id) is wish:
                del self._line[engine_id]
        if isinstance(wish.answer, Placement):
            return attrs.evolve(wish.answer, python=python)
        assert wish.answer is not None
        raise wish.answer

    async def _stand_in_line(self, wish: _Wish) -> None:
        look_newer_than = trio.current_time()
        while wish.answer is None:
            changed = self._changed
            await self._look(look_newer_than)
            if wish.answer is None:
                look_newer_than = trio.current_time()  # somebody else's look, meanwhile, will do
                with trio.move_on_after(RETRY_SECONDS):
                    await changed.wait()
                    look_newer_than = trio.current_time()

    def promised(self, engine_id: str) -> Mapping[str, int | None]:
        """What the engine was promised of each of its GPUs, by UUID (None: all of it)."""
        return self._holdings.promised(engine_id)

    def take_back(self, engine_id: str, spec: EngineSpec, promised: Mapping[str, int | None]) -> None:
        """An engine of an earlier Stoker holds these GPUs already. Call it before anybody is placed."""
        if promised:
            self._holdings.take_back(engine_id, spec, promised)

    def launched(self, engine_id: str, session: int, mark: str) -> None:
        """The engine's processes are known by this session and this marker."""
        self._sessions[session] = engine_id
        self._marks[mark] = engine_id

    async def keep_measured(self, engine_id: str) -> None:
        """The engine is READY: measure it now and again, until cancelled. Others may start on its GPUs from now on."""
        self._holdings.ready(engine_id, trio.current_time())
        if not self._holdings.gpus_of(engine_id):
            return
        await self._look(trio.current_time())
        while True:
            await trio.sleep(MEASURE_SECONDS)
            await self._look(trio.current_time() - MEASURE_SECONDS / 2)

    def release(self, engine_id: str) -> None:
        """The engine is gone; its GPUs are free."""
        self._sessions = {session: owner for session, owner in self._sessions.items() if owner != engine_id}
        self._marks = {mark: owner for mark, owner in self._marks.items() if owner != engine_id}
        if self._holdings.give_back(engine_id):
            self._announce()

    async def report(self) -> GpuReport:
        """The GPUs as they are, with the engines that hold them and those whose processes use them."""
        return self._holdings.shown_in(await self._read())

    async def memory_back(self, gpus: tuple[str, ...], pids: frozenset[int]) -> str:
        """Wait until no process of ``pids`` holds memory of ``gpus``; a note when that takes too long."""
        report, unread = GpuReport(incomplete=True), True
        with trio.move_on_after(MEMORY_BACK_SECONDS):
            while True:
                report = await self.read_gpus()
                unread = report.incomplete and not set(gpus) <= {gpu.uuid for gpu in report.gpus}
                if not unread and not _is_holding(report, gpus, pids):
                    return ""
                await trio.sleep(0.2)
        if unread:
            return f"whether its GPU memory is back can't be read: {report.reason}"
        return f"GPU memory was not back {MEMORY_BACK_SECONDS:g} s after the last process ended"

    async def _look(self, newer_than: float) -> None:
        """Read the GPUs, bring the books up to date and serve the line, unless that was begun after ``newer_than``."""
        async with self._turn:
            if self._served_at > newer_than:
                return
            began = trio.current_time()
            report = await self._read()
            needs = [(wish, await self._needs_of(wish, report)) for wish in list(self._line.values())]
            # From here on there is no await: what one engine is given, the next is not.
            for each in self._holdings.measure(report, began):
                self.ledger.measured(each.spec, each.gpu, each.used, anew=each.anew)
            report = self._holdings.shown_in(report)
            for wish, needed in needs:
                if self._line.get(wish.engine_id) is wish:
                    self._serve(wish, needed, report)
            self._served_at = began
            await self.ledger.save()

    async def _needs_of(self, wish: _Wish, report: GpuReport) -> Mapping[str, int | None] | LaunchError:
        with trio.move_on_after(ESTIMATE_SECONDS):
            try:
                return await trio.to_thread.run_sync(
                    needs_of,
                    wish.spec,
                    report.gpus,
                    wish.estimate,
                    self.ledger,
                    abandon_on_cancel=True,
                    limiter=trio.CapacityLimiter(1),  # one that hangs takes no thread that Stoker needs
                )
            except LaunchError as error:
                return error
        what = f"runtime {wish.spec.runtime!r} did not estimate its memory within {ESTIMATE_SECONDS:g} s"
        return PermanentLaunchError(what)

    def _serve(self, wish: _Wish, needs: Mapping[str, int | None] | LaunchError, report: GpuReport) -> None:
        chosen: Placement | Wait | LaunchError
        if isinstance(needs, LaunchError):
            chosen = needs
        else:
            chosen = choose(self.scheduler, wish.spec, report, self._holdings, needs)
            if isinstance(chosen, Placement) and chosen.gpus:
                gpus = [gpu for gpu in report.gpus if gpu.uuid in chosen.gpus]
                self._holdings.take(wish.engine_id, wish.spec, gpus, needs)
        if isinstance(chosen, Wait):
            wish.wait(chosen)
            return
        del self._line[wish.engine_id]
        wish.answer = chosen
        self._announce()

    async def _read(self) -> GpuReport:
        report = await self.read_gpus()
        pids = {process.pid for gpu in report.gpus for process in gpu.processes}
        whose = await self._owners(pids) if pids else {}
        gpus = tuple(
            attrs.evolve(
                gpu, processes=tuple(attrs.evolve(each, engine_id=whose.get(each.pid)) for each in gpu.processes)
            )
            for gpu in report.gpus
        )
        return attrs.evolve(report, gpus=gpus)

    async def _owners(self, pids: Collection[int]) -> Mapping[int, str]:
        """Whose processes these are. A shortage of ours is waited for: it says nothing about them."""
        while True:
            try:
                return await trio.to_thread.run_sync(owners, pids, dict(self._sessions), dict(self._marks))
            except OSError as error:
                if not is_shortage(error):
                    raise
                await trio.sleep(SHORTAGE_SECONDS)

    def _announce(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def _is_holding(report: GpuReport, gpus: tuple[str, ...], pids: frozenset[int]) -> bool:
    return any(process.pid in pids for gpu in report.gpus if gpu.uuid in gpus for process in gpu.processes)
