"""The records everything else talks about. Frozen, but for what every request makes anew; no behaviour beyond derived
values.

Times inside the program are seconds of a monotonic clock; :class:`EngineInfo` and :class:`RequestRecord`, which leave
it, carry seconds since the Unix epoch. Memory is in bytes.
"""

from __future__ import annotations

from stoker.model.engines import (
    EngineInfo,
    EngineLoad,
    EngineRun,
    EngineSpec,
    EngineState,
    ExitStatus,
    KeptEngine,
    Origin,
    StartProgress,
    Stray,
)
from stoker.model.gpus import Gpu, GpuProcess, GpuReport, Refusal, Reservation, Reservations
from stoker.model.launching import AdapterPaths, EnvironmentSpec, LaunchPlan, Placement, SleepPaths, TokenProbe
from stoker.model.nothing import NOTHING
from stoker.model.requests import Activity, Backend, Candidate, RequestRecord, RouteRequest

__all__ = [
    "NOTHING",
    "Activity",
    "AdapterPaths",
    "Backend",
    "Candidate",
    "EngineInfo",
    "EngineLoad",
    "EngineRun",
    "EngineSpec",
    "EngineState",
    "EnvironmentSpec",
    "ExitStatus",
    "Gpu",
    "GpuProcess",
    "GpuReport",
    "KeptEngine",
    "LaunchPlan",
    "Origin",
    "Placement",
    "Refusal",
    "RequestRecord",
    "Reservation",
    "Reservations",
    "RouteRequest",
    "SleepPaths",
    "StartProgress",
    "Stray",
    "TokenProbe",
]
