"""No engine starts on a GPU whose memory has not come back. A driver of ours says what is used."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.running import until
from tests.gpu.driver import Driver, driver, library

from .fleet import FAKE, engine, fleet, info_of, wait_for

__all__ = ["driver", "library"]


def test_what_a_killed_engine_left_on_its_gpu_is_given_to_nobody(tmp_path: Path, driver: Driver) -> None:
    """An engine that nobody knows the needs of was once started on a GPU that was full, if no engine held it."""
    driver.add_gpu(0)  # it is not "mortal": what a process took stays taken when it is gone
    command = driver.holding(50, FAKE)
    first, other = (
        engine(label=label, model=label, command=command, gpus=1, restart_limit=0, stop_grace_seconds=0)
        for label in ("first", "other")
    )
    with fleet(tmp_path, first, other, env=driver.env) as program:
        holder = until(lambda: next((each for each in program.engines() if each["state"] == "READY"), None), "one runs")
        waits = {"first": "other", "other": "first"}[holder["engine_id"]]
        until(lambda: f"held by {holder['engine_id']}" in info_of(program, waits)["reason"], "the other one waits")
        assert program.signal_engine(holder["pid"])
        left = f"GPU 0 (Stub, 30.0 GiB of 80.0 GiB free) is not empty, used by process {holder['pid']} (50.0 GiB)"
        until(lambda: left in info_of(program, waits)["reason"], "it waits for what the killed one left")
        assert info_of(program, waits)["state"] == "STARTING"
        driver.unsay(f"gpu0/compute/{holder['pid']}")
        wait_for(program, waits, state="READY", restarts=0)
