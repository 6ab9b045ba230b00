"""Finds the processes of an earlier Stoker again, and tells surely which they are. Blocking: call it in a thread."""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from stoker.model import EngineRun
from stoker.supervise import proctable


@attrs.frozen
class Survey:
    """``living`` are the runs whose process is there, with its pid. ``doubtful`` says what could not be told apart."""

    living: tuple[EngineRun, ...] = ()
    doubtful: tuple[str, ...] = ()


def survey(runs: Iterable[EngineRun]) -> Survey:
    """Which of ``runs`` still run. Where there is no process table, none is known to."""
    if not proctable.HAS_PROC:
        return Survey()
    living: list[EngineRun] = []
    doubtful: list[str] = []
    this_boot = proctable.boot_id()
    for run in runs:
        if run.boot_id != this_boot:
            continue
        found = _by_mark(run) if run.pid is None else _by_pid(run)
        if isinstance(found, EngineRun):
            living.append(found)
        elif found:
            doubtful.append(found)
    return Survey(tuple(living), tuple(doubtful))


def _by_pid(run: EngineRun) -> EngineRun | str:
    """The run, if its process lives; empty if not; or a remark. No two processes of a boot have both numbers alike."""
    assert run.pid is not None
    entry = proctable.read_entry(run.pid)
    if entry is None or entry.gone or entry.started != run.started:
        return ""
    mark = proctable.read_mark(run.pid)
    if mark not in (None, run.mark):  # none: it wrote a title over its environment
        who = f"process {run.pid} began when engine {run.engine_id!r} did"
        return f"{who}, and has the marker of another; it is left alone"
    return run


def _by_mark(run: EngineRun) -> EngineRun | str:
    """One that was being started when Stoker ended: the leader of a session with its marker."""
    for entry in proctable.members(None, run.mark.__eq__):
        if entry.pid == entry.session and proctable.read_mark(entry.pid) == run.mark:
            return attrs.evolve(run, pid=entry.pid, started=entry.started)
    return ""
