"""Asks the scheduler for an engine's GPUs, and holds it to its promises."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from stoker.containing import contained, described, is_text
from stoker.contracts import GpuScheduler
from stoker.errors import LaunchError, PermanentLaunchError
from stoker.model import EngineSpec, Gpu, GpuReport, Placement, Refusal, Reservations
from stoker.supervise.holdings import Holdings

GIB = 1024**3


@attrs.frozen
class Wait:
    """The engine can't be placed at this moment, but may be later."""

    reason: str
    refused: bool


def choose(
    scheduler: GpuScheduler, spec: EngineSpec, report: GpuReport, holdings: Holdings, needs: Mapping[str, int | None]
) -> Placement | Wait | LaunchError:
    """GPUs that the engine may start on now, or why it has to wait, or why it never will start.

    A refusal is for good where the scheduler refuses even if every GPU is empty. What a scheduler raises is contained,
    and a placement that gives away what there is not is refused in its name.
    """
    reservations = holdings.reservations(needs)
    name = scheduler.name
    try:
        with contained(f"scheduler {name!r} could not place it", LaunchError):
            placed = scheduler.place(spec, report.gpus, reservations)
            refused = isinstance(placed, Refusal)
            wrong = _wrong(placed, spec, report, reservations)
            hopeless = refused and not report.incomplete and _refuses_empty(scheduler, spec, report, needs)
    except LaunchError as problem:
        return problem
    if wrong:
        return PermanentLaunchError(f"scheduler {name!r} placed it wrongly: {wrong}")
    if isinstance(placed, Refusal):
        reason = "; ".join(filter(None, (placed.reason, report.reason)))
        if hopeless:
            return PermanentLaunchError(f"no GPUs for it: {reason}")
        return Wait(f"waits for GPUs: {reason}", refused=True)
    if starting := holdings.starting_on(placed.gpus):
        numbers = {gpu.uuid: gpu.index for gpu in report.gpus}
        who = (f"{engine_id}, which is starting on GPU {numbers[uuid]}" for engine_id, uuid in starting.items())
        return Wait(f"waits for {' and '.join(who)}", refused=False)
    return placed


def _refuses_empty(
    scheduler: GpuScheduler, spec: EngineSpec, report: GpuReport, needs: Mapping[str, int | None]
) -> bool:
    empty = tuple(
        attrs.evolve(gpu, memory_used=0, processes=(), engines=(), reservations=(), memory_promised=0)
        for gpu in report.gpus
    )
    return isinstance(scheduler.place(spec, empty, Reservations(needed=needs)), Refusal)


def _wrong(placed: object, spec: EngineSpec, report: GpuReport, reservations: Reservations) -> str:
    """What is wrong with an answer; empty if nothing is. A placement without any GPU leaves GPUs to the engine."""
    if isinstance(placed, Refusal):
        is_told = is_text(placed.reason) and placed.reason.strip()
        return "" if is_told else f"it refused it with the reason {described(placed.reason)}, which says nothing"
    if not isinstance(placed, Placement):
        return f"it answered {described(placed)}, which is neither a Placement nor a Refusal"
    if not is_text(placed.host):
        return f"it put it on the host {described(placed.host)}, which is no text"
    return _over_committed(placed, spec, report, reservations)


def _over_committed(placed: Placement, spec: EngineSpec, report: GpuReport, reservations: Reservations) -> str:
    by_uuid = {gpu.uuid: gpu for gpu in report.gpus}
    if not isinstance(placed.gpus, tuple | list) or not all(map(is_text, placed.gpus)):
        return f"its gpus are {described(placed.gpus)}, and must be a tuple of UUIDs, such as {tuple(by_uuid)[:1]}"
    if unknown := [uuid for uuid in placed.gpus if uuid not in by_uuid]:
        return f"there is no GPU {', '.join(unknown)}; there are: {', '.join(by_uuid) or 'none'}"
    given = [by_uuid[uuid] for uuid in placed.gpus]
    names = ", ".join(f"GPU {gpu.index}" for gpu in given)
    if len(set(placed.gpus)) < len(given):
        return f"it gave a GPU twice: {names}"
    if given and len(given) != spec.gpus:
        return f"{spec.gpus} wanted, {len(given)} given: {names}"
    return "; ".join(_too_full(gpu, reservations) for gpu in given if not reservations.fits(gpu))


def _too_full(gpu: Gpu, reservations: Reservations) -> str:
    needed = reservations.needed.get(gpu.uuid)
    wants = "must be its alone, since nobody knows what it needs" if needed is None else f"can't give it {_gib(needed)}"
    holders = ", ".join(
        f"{each.engine_id} ({'all of it' if each.memory is None else _gib(each.memory)})"
        for each in reservations.held.get(gpu.uuid, ())
    )
    held = f", held by {holders}" if holders else ""
    return f"GPU {gpu.index} {wants}: {_gib(reservations.free(gpu))} of {_gib(gpu.memory_total)} can be had{held}"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
