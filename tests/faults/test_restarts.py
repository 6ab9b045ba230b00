"""Engines that end as soon as they are started, hundreds of times: what that costs the gateway."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.e2e.running import Program, until

from .fleet import descriptors, engine, fleet, resident_bytes
from .stoker_up import count

MIB = 1024 * 1024
WARM_UP = 40
RESTARTS = count(1000)
MORE_MEMORY = 4 * MIB
REPLICAS = 8  # each is looked after by threads of its own, and these have memory of their own


def wait_for_restarts(program: Program, restarts: int) -> int:
    """Wait until there were so many of all engines together; returns how many there were by then."""

    def enough() -> int | None:
        done = sum(info["restarts"] for info in program.engines())
        return done if done >= restarts else None

    return until(enough, f"{restarts} restarts")


def test_restarts_cost_no_memory(tmp_path: Path) -> None:
    """Four hundred once took 17 MiB for good: a table of interned pids was built anew in the memory of each thread."""
    false = shutil.which("false")
    assert false is not None
    spec = engine(
        command=(false, "{port}"),
        replicas=REPLICAS,
        restart_limit=10**6,
        restart_base_seconds=0.02,
        restart_cap_seconds=0.02,
    )
    with fleet(tmp_path, spec) as program:
        pid = program.process.pid
        done = wait_for_restarts(program, WARM_UP)
        before, open_before = resident_bytes(pid), descriptors(pid)
        wait_for_restarts(program, done + RESTARTS)
        grown = resident_bytes(pid) - before
        assert grown < MORE_MEMORY, f"{grown / MIB:.1f} MiB more after {RESTARTS} restarts"
        until(lambda: descriptors(pid) <= open_before + REPLICAS, "it holds no more descriptors than before")
