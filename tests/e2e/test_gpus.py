"""The built file on a machine with GPUs: a driver of ours says what there is, and engines that take memory of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stoker.home import Home
from stoker.testing.engines import fake_engine_env
from tests import loopback
from tests.gpu.driver import GIB, Driver, driver, library

from .running import Program, running, until

__all__ = ["driver", "library"]

pytestmark = pytest.mark.e2e

SERVER = (sys.executable, "-m", "stoker.testing.fake_engine")
WHERE = ("--host", "{host}", "--port", "{port}", "--model", "{model}")


def engine(driver: Driver, label: str, takes_gib: float, **more: object) -> str:
    """An ``[[engine]]`` that takes so much of its GPU when it starts."""
    fields = {
        "model": label,
        "label": label,
        "runtime": "command",
        "gpus": 1,
        "command": driver.holding(takes_gib, (*SERVER, *WHERE)),
        "restart_base_seconds": 0.1,
        "probe_interval_seconds": 0.2,
        **more,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    path = json.dumps(fake_engine_env()["PYTHONPATH"])
    return "\n".join(["[[engine]]", *lines, f"env = {{ PYTHONPATH = {path} }}", ""])


def write(folder: Path, *engines: str, scheduler: str = "pack") -> str:
    file = folder / "stoker.toml"
    file.write_text(f'scheduler = "{scheduler}"\n[gateway]\nlisten = "127.0.0.1:0"\n' + "".join(engines))
    return str(file)


def found(program: Program, engine_id: str) -> Mapping[str, Any]:
    return dict(program.manage("GET", f"/engines/{engine_id}").json())


def gpus(program: Program) -> Mapping[int, Mapping[str, Any]]:
    return {gpu["index"]: gpu for gpu in program.manage("GET", "/gpu").json()["gpus"]}


def wait_for(program: Program, engine_id: str, **values: object) -> Mapping[str, Any]:
    def there() -> Mapping[str, Any] | None:
        info = found(program, engine_id)
        return info if all(info[name] == value for name, value in values.items()) else None

    return until(there, f"{engine_id} is {values}")


def stoker(pyz: Path, home: Home, *words: str, **env: str) -> str:
    environ = {**os.environ, "NO_COLOR": "1", "STOKER_HOME": str(home.path), "COLUMNS": "250", **env}
    done = subprocess.run([sys.executable, pyz, *words], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_engines_are_measured_and_then_share_gpus(pyz: Path, stoker_home: Home, driver: Driver, tmp_path: Path) -> None:
    """A story in two lives of the gateway: what the first one measured, the second one knows."""
    driver.say("mortal")
    driver.add_gpu(0)
    driver.add_gpu(1)
    config = write(tmp_path, *(engine(driver, label, 30, model="m") for label in "abc"))
    with running(pyz, stoker_home, "up", "-c", config, **driver.env) as program:
        until(lambda: sum(info["state"] == "READY" for info in program.engines()) == 2, "two are READY")
        [waiting] = [info for info in program.engines() if info["state"] == "STARTING"]
        wait_for(program, waiting["engine_id"], state="STARTING", restarts=0, last_error=None)
        reason = found(program, waiting["engine_id"])["reason"]
        assert reason.startswith("waits for GPUs: m needs 1 GPU"), reason
        holders = [info for info in program.engines() if info["state"] == "READY"]
        for info in holders:
            assert info["engine_id"] in reason, "who holds them"
        until(lambda: program.manage("GET", "/gpu/ledger").json()["data"], "what they use is noted")
        program.manage("POST", f"/engines/{holders[0]['engine_id']}/stop")
        wait_for(program, waiting["engine_id"], state="READY")
        shown = until(lambda: gpus(program), "the GPUs are read")
        used = {each["engine_id"]: each["used"] for gpu in shown.values() for each in gpu["reservations"]}
        assert used == {waiting["engine_id"]: 30 * GIB, holders[1]["engine_id"]: 30 * GIB}
        table = stoker(pyz, stoker_home, "gpu")
        assert f"{holders[1]['engine_id']} (all of it, uses 30.0 GiB)" in table
        assert "210 of 300 W" in table
    assert "30.0 GiB" in stoker(pyz, stoker_home, "gpu", "--ledger")

    with running(pyz, stoker_home, "up", "-c", config, **driver.env) as program:
        program.wait_until_ready(3)
        shared = sorted(len(gpu["reservations"]) for gpu in gpus(program).values())
        assert shared == [1, 2], "two of 30 GiB fit on one GPU, now that this is known"


def test_what_can_not_be_placed_is_refused_with_what_it_needs_and_what_there_is(
    pyz: Path, stoker_home: Home, driver: Driver, tmp_path: Path
) -> None:
    driver.add_gpu(0, gib=24)
    driver.run(0, os.getpid(), 20)
    too_big = engine(driver, "too-big", 1, required_memory_gb=40)
    blocked = engine(driver, "blocked", 1, required_memory_gb=10)
    config = write(tmp_path, too_big, blocked)
    with running(pyz, stoker_home, "up", "-c", config, **driver.env) as program:
        error = wait_for(program, "too-big", state="ERROR")
        assert "too-big needs 1 GPU with 40.0 GiB free" in error["last_error"]
        assert "4.0 GiB of 24.0 GiB free" in error["last_error"]
        assert f"used by process {os.getpid()} (20.0 GiB)" in error["last_error"]
        assert (error["restart_at"], error["restarts"]) == (None, 0), "no number of tries will make it fit"
        until(lambda: "10.0 GiB free" in found(program, "blocked")["reason"], "the other one waits, and says for what")
        driver.unsay(f"gpu0/compute/{os.getpid()}")
        wait_for(program, "blocked", state="READY", restarts=0)


def test_a_gpu_that_falls_off_the_bus_and_a_driver_that_hangs_hold_up_nobody(
    pyz: Path, stoker_home: Home, driver: Driver, tmp_path: Path
) -> None:
    driver.say("mortal")
    driver.add_gpu(0)
    driver.add_gpu(1)
    config = write(tmp_path, engine(driver, "one", 10), engine(driver, "two", 10))
    with running(pyz, stoker_home, "up", "-c", config, **driver.env) as program:
        program.wait_until_ready(2)
        driver.say("gpu1/lost")
        report = program.manage("GET", "/gpu").json()
        assert [gpu["index"] for gpu in report["gpus"]] == [0]
        assert report["reason"] == "GPU 1 can't be read: GPU is lost"
        assert {info["state"] for info in program.engines()} == {"READY"}, "whether it works is seen by its probes"
        driver.unsay("gpu1/lost")
        driver.say("hang")
        asking = subprocess.Popen(
            [sys.executable, pyz, "gpu"],
            env={**os.environ, "STOKER_HOME": str(stoker_home.path), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        body = {"model": "one", "messages": [{"role": "user", "content": "Hi"}]}
        for _ in range(20):
            answer = loopback.post(f"{program.url}/v1/chat/completions", json=body, timeout=60)
            assert answer.status_code == httpx2.codes.OK
        assert asking.poll() is None, "it waits for the driver, and nobody else does"
        driver.unsay("hang")
        assert "GPU-00000001" in asking.communicate()[0]


def test_a_killed_engine_comes_back_on_its_gpus(pyz: Path, stoker_home: Home, driver: Driver, tmp_path: Path) -> None:
    driver.say("mortal")
    driver.add_gpu(0)
    with running(pyz, stoker_home, "up", "-c", write(tmp_path, engine(driver, "one", 50)), **driver.env) as program:
        [before] = program.wait_until_ready(1)
        assert program.signal_engine(before["pid"])
        after = wait_for(program, "one", state="READY", restarts=1)
        assert after["gpus"] == before["gpus"] == ["GPU-00000000"]
        process = gpus(program)[0]["processes"]
        assert [(each["pid"], each["engine_id"]) for each in process] == [(after["pid"], "one")]
