"""Hooks, the contracts of what they return, and the records that go in and out."""

from __future__ import annotations

import inspect

from drawing.marks import Parts
from drawing.prose import annotation, prose, record, signature
from stoker import contracts, hookspecs
from stoker.model import (
    AdapterPaths,
    Candidate,
    EngineInfo,
    EngineLoad,
    EngineSpec,
    EnvironmentSpec,
    Gpu,
    GpuProcess,
    LaunchPlan,
    Placement,
    Refusal,
    RequestRecord,
    Reservation,
    Reservations,
    RouteRequest,
    SleepPaths,
    StartProgress,
    TokenProbe,
)

RECORDS = (
    EngineSpec,
    Placement,
    LaunchPlan,
    TokenProbe,
    SleepPaths,
    AdapterPaths,
    EnvironmentSpec,
    EngineLoad,
    StartProgress,
    RouteRequest,
    Candidate,
    Gpu,
    GpuProcess,
    Reservation,
    Reservations,
    Refusal,
    EngineInfo,
    RequestRecord,
)


def _hooks() -> str:
    specs = [value for name, value in vars(hookspecs).items() if name.startswith("stoker_")]
    return "\n\n".join(f"## {each.__name__}\n\n{signature(each)}\n\n{prose(each)}" for each in specs)


def _contracts() -> str:
    own = [each for each in vars(contracts).values() if inspect.isclass(each) and each.__module__ == contracts.__name__]
    return "\n\n".join(map(_contract, own))


def _contract(contract: type) -> str:
    parts = [f"## {contract.__name__}\n\n{prose(contract)}"]
    for name, member in vars(contract).items():
        if isinstance(member, property):
            parts.append(f"**`{name}`**: `{annotation(member.fget, 'return')}`\n\n{prose(member)}")
        elif inspect.isfunction(member) and not name.startswith("_"):
            parts.append(f"**{signature(member)}**\n\n{prose(member)}")
    return "\n\n".join(parts)


PARTS: Parts = {
    "hooks": _hooks,
    "contracts": _contracts,
    "records": lambda: "\n\n".join(map(record, RECORDS)),
}
