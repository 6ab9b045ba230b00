"""The books of the GPUs: which engine holds what of which, and what of it is used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import attrs

from stoker.model import EngineSpec, Gpu, GpuReport, Reservation, Reservations


@attrs.frozen
class Measured:
    """An engine uses ``used`` bytes of ``gpu``, the fullest of its kind; ``anew`` for the first one of a run."""

    spec: EngineSpec
    gpu: Gpu
    used: int
    anew: bool


@attrs.define(eq=False)
class _Hold:
    """One engine's GPUs: what it was promised of each (None: all), and how full each was before it came.

    It is ``starting`` until the first reading after it was READY, ``measured`` once such a reading had all its GPUs.
    """

    spec: EngineSpec
    promised: Mapping[str, int | None]
    full_before: dict[str, int]
    used: dict[str, int] = attrs.field(factory=dict)
    ready_at: float | None = None
    starting: bool = True
    measured: bool = False


@attrs.define(eq=False)
class Holdings:
    """Who holds what. Times are monotonic seconds."""

    _holds: dict[str, _Hold] = attrs.field(factory=dict)

    def gpus_of(self, engine_id: str) -> tuple[str, ...]:
        """The UUIDs of the GPUs that an engine holds."""
        hold = self._holds.get(engine_id)
        return () if hold is None else tuple(hold.promised)

    def take(self, engine_id: str, spec: EngineSpec, gpus: Sequence[Gpu], needs: Mapping[str, int | None]) -> None:
        """The engine is about to start on ``gpus``."""
        promised = {gpu.uuid: needs.get(gpu.uuid) for gpu in gpus}
        self._holds[engine_id] = _Hold(spec, promised, {gpu.uuid: gpu.memory_used for gpu in gpus})

    def take_back(self, engine_id: str, spec: EngineSpec, promised: Mapping[str, int | None]) -> None:
        """The engine runs on its GPUs already. How full these were before it came is not known any more."""
        self._holds[engine_id] = _Hold(spec, promised, dict.fromkeys(promised, 0), measured=True, starting=False)

    def promised(self, engine_id: str) -> Mapping[str, int | None]:
        """What the engine was promised of each of its GPUs."""
        hold = self._holds.get(engine_id)
        return {} if hold is None else dict(hold.promised)

    def give_back(self, engine_id: str) -> bool:
        """The engine is gone. Whether it held anything."""
        gone = self._holds.pop(engine_id, None)
        if gone is None:
            return False
        for hold in self._holds.values():  # what goes now is not to be taken for what comes
            if not hold.measured:
                for uuid in hold.full_before.keys() & gone.used.keys():
                    hold.full_before[uuid] = max(0, hold.full_before[uuid] - gone.used[uuid])
        return True

    def ready(self, engine_id: str, now: float) -> None:
        """The engine is READY: the next reading that begins after ``now`` measures it."""
        hold = self._holds.get(engine_id)
        if hold is not None and hold.ready_at is None:
            hold.ready_at = now

    def starting_on(self, gpus: Sequence[str]) -> Mapping[str, str]:
        """The engines that are starting on any of ``gpus``, by the UUID of the first that they share."""
        found: dict[str, str] = {}
        for engine_id, hold in self._holds.items():
            shared = next((uuid for uuid in gpus if uuid in hold.promised), None)
            if hold.starting and shared is not None:
                found[engine_id] = shared
        return found

    def measure(self, report: GpuReport, began: float) -> list[Measured]:
        """Take up a reading whose processes name their engines; what it says of each engine that is READY."""
        measured: list[Measured] = []
        by_uuid = {gpu.uuid: gpu for gpu in report.gpus}
        for engine_id, hold in self._holds.items():
            gpus = [by_uuid[uuid] for uuid in hold.promised if uuid in by_uuid]
            for gpu in gpus:
                hold.used[gpu.uuid] = _used(engine_id, hold, gpu)
            if hold.ready_at is None or hold.ready_at > began:
                continue
            hold.starting = False  # also where a GPU of its own is lost: the others must not wait for that
            if len(gpus) == len(hold.promised):
                measured.extend(_fullest(hold, gpus))
                hold.measured = True
        return measured

    def reservations(self, needs: Mapping[str, int | None]) -> Reservations:
        """What a scheduler is shown for an engine of such needs."""
        held: dict[str, list[Reservation]] = {}
        for uuid, reservation in self._all():
            held.setdefault(uuid, []).append(reservation)
        return Reservations(held={uuid: tuple(each) for uuid, each in held.items()}, needed=needs)

    def shown_in(self, report: GpuReport) -> GpuReport:
        """The report with its holders."""
        held = self.reservations({}).held
        return attrs.evolve(report, gpus=tuple(_with_holders(gpu, held.get(gpu.uuid, ())) for gpu in report.gpus))

    def _all(self) -> Iterator[tuple[str, Reservation]]:
        for engine_id, hold in self._holds.items():
            for uuid, memory in hold.promised.items():
                used = hold.used.get(uuid, 0)
                yield uuid, Reservation(engine_id=engine_id, memory=memory, used=used, starting=hold.starting)


def _used(engine_id: str, hold: _Hold, gpu: Gpu) -> int:
    """What its processes use, where the driver says it of all of them.

    Else the growth since before its start: nobody else starts on the GPU meanwhile. It holds once the engine is READY.
    """
    known = [process.memory_used for process in gpu.processes if process.engine_id == engine_id]
    amounts = [amount for amount in known if amount is not None]
    if known and len(amounts) == len(known):
        return sum(amounts)
    if not hold.measured:
        return max(0, gpu.memory_used - hold.full_before[gpu.uuid])
    return hold.used.get(gpu.uuid, 0)


def _fullest(hold: _Hold, gpus: Sequence[Gpu]) -> Iterator[Measured]:
    """Of GPUs of one kind the one that it uses most of, since a next engine like it may need so much of any."""
    kinds: dict[tuple[str, int], Gpu] = {}
    for gpu in sorted(gpus, key=lambda gpu: hold.used[gpu.uuid]):
        kinds[gpu.name, gpu.memory_total] = gpu
    return (Measured(hold.spec, gpu, hold.used[gpu.uuid], not hold.measured) for gpu in kinds.values())


def _with_holders(gpu: Gpu, held: tuple[Reservation, ...]) -> Gpu:
    promised = sum(gpu.memory_total if each.memory is None else each.memory for each in held)
    return attrs.evolve(
        gpu, engines=tuple(each.engine_id for each in held), reservations=held, memory_promised=promised
    )
