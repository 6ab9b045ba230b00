"""Readings through the true ctypes path: a real pynvml, and a ``libnvidia-ml.so.1`` that these tests compile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from .driver import GIB, Driver

READER = """
import json, os, attrs
from stoker.gpu.nvml import read_gpus
print(json.dumps([attrs.asdict(read_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))) for _ in range(2)]))
"""


def read(driver: Driver | None, **env: str) -> Mapping[str, Any]:
    """What a process of its own reads. It reads twice, and must see the same."""
    path = os.pathsep.join(path for path in sys.path if path)
    environ = {"PYTHONPATH": path, **(driver.env if driver else {}), **env}
    ran = subprocess.run([sys.executable, "-c", READER], env=environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    first, second = json.loads(ran.stdout)
    assert first == second
    return dict(first)


def test_every_gpu_is_described(driver: Driver) -> None:
    driver.add_gpu(0, name="One", used_gib=1)
    driver.add_gpu(1, name="Two", gib=24)
    report = read(driver)
    assert (report["reason"], report["incomplete"]) == (None, False)
    assert [(gpu["index"], gpu["uuid"], gpu["name"]) for gpu in report["gpus"]] == [
        (0, "GPU-00000000", "One"),
        (1, "GPU-00000001", "Two"),
    ]
    assert [(gpu["memory_total"], gpu["memory_used"]) for gpu in report["gpus"]] == [(80 * GIB, GIB), (24 * GIB, 0)]
    measured = ("utilisation", "temperature", "power", "power_limit")
    assert [report["gpus"][0][name] for name in measured] == [37, 55, 210.5, 300.0]


def test_the_processes_that_hold_memory_are_named_once_each(driver: Driver) -> None:
    driver.add_gpu(0)
    driver.add_gpu(1)
    driver.run(0, 4711, 1)
    driver.run(0, 4712, 3)
    driver.run(0, 4711, 1, "graphics")
    gpus = read(driver)["gpus"]
    assert gpus[0]["processes"] == [
        {"pid": 4711, "memory_used": GIB, "engine_id": None},
        {"pid": 4712, "memory_used": 3 * GIB, "engine_id": None},
    ]
    assert gpus[1]["processes"] == []


def test_a_process_whose_memory_the_driver_hides_has_none(driver: Driver) -> None:
    driver.add_gpu(0)
    driver.run(0, 4711, -1)
    assert read(driver)["gpus"][0]["processes"] == [{"pid": 4711, "memory_used": None, "engine_id": None}]


def test_an_older_driver_names_processes_too(driver: Driver) -> None:
    driver.add_gpu(0)
    driver.run(0, 4711, 1)
    driver.say("old")
    assert [process["pid"] for process in read(driver)["gpus"][0]["processes"]] == [4711]


def test_a_gpu_that_fell_off_the_bus_does_not_hide_the_others(driver: Driver) -> None:
    for index in range(3):
        driver.add_gpu(index)
    driver.say("gpu1/lost")
    report = read(driver)
    assert [gpu["index"] for gpu in report["gpus"]] == [0, 2]
    assert report["reason"] == "GPU 1 can't be read: GPU is lost"
    assert report["incomplete"], "another reading may find it"


def test_what_a_gpu_can_not_tell_is_missing_and_nothing_else(driver: Driver) -> None:
    driver.add_gpu(0)
    driver.say("gpu0/bare")
    (gpu,) = read(driver)["gpus"]
    assert [gpu[name] for name in ("utilisation", "temperature", "power", "power_limit")] == [None] * 4
    assert gpu["processes"] == []
    assert gpu["memory_total"] == 80 * GIB


def test_of_a_divided_gpu_the_parts_are_told(driver: Driver) -> None:
    driver.add_gpu(0)
    driver.divide(0, 1, gib=10)
    driver.divide(0, 4, gib=20)
    driver.add_gpu(1)
    gpus = read(driver)["gpus"]
    assert [(gpu["index"], gpu["uuid"], gpu["memory_total"] // GIB) for gpu in gpus] == [
        (0, "MIG-00000001", 10),
        (0, "MIG-00000004", 20),
        (1, "GPU-00000001", 80),
    ]
    assert gpus[0]["temperature"] == 55, "heat is the board's"


def test_a_divided_gpu_without_parts_is_told(driver: Driver) -> None:
    driver.add_gpu(0)
    driver.divide(0, 0)
    for name in ("uuid", "name", "total", "used"):
        driver.unsay(f"gpu0/mig/0/{name}")
    (driver.says / "gpu0/mig/0").rmdir()
    report = read(driver)
    assert report["gpus"] == []
    assert report["reason"] == "GPU 0 is in MIG mode and has no MIG devices"


@pytest.mark.parametrize("visible", ["1", "GPU-00000001", "GPU-00000001,MIG-1", " 1 , -1, 0"])
def test_only_the_gpus_that_the_environment_leaves_us_are_there(driver: Driver, visible: str) -> None:
    driver.add_gpu(0)
    driver.add_gpu(1)
    report = read(driver, CUDA_VISIBLE_DEVICES=visible)
    assert [gpu["index"] for gpu in report["gpus"]] == [1]
    assert report["reason"] == f"CUDA_VISIBLE_DEVICES={visible} keeps 1 of 2 GPUs from Stoker"
    assert not report["incomplete"], "another reading finds no more"


def test_a_lost_gpu_that_is_none_of_ours_is_no_trouble(driver: Driver) -> None:
    driver.add_gpu(0)
    driver.add_gpu(1)
    driver.say("gpu0/lost")
    assert read(driver, CUDA_VISIBLE_DEVICES="1")["reason"] is None


@pytest.mark.parametrize(("code", "words"), [(9, "Driver Not Loaded"), (18, "version mismatch"), (999, "Unknown")])
def test_a_driver_that_fails_is_the_reason_for_no_gpus(driver: Driver, code: int, words: str) -> None:
    driver.add_gpu(0)
    driver.say("init", code)
    report = read(driver)
    assert report["gpus"] == []
    assert report["reason"].startswith("the NVIDIA driver can't be asked: ")
    assert words in report["reason"]
    assert report["incomplete"]


def test_a_driver_without_gpus_says_so(driver: Driver) -> None:
    assert read(driver) == {"gpus": [], "reason": "the NVIDIA driver knows no GPU", "incomplete": False}


def test_no_driver_is_no_error() -> None:
    report = read(None)
    if report["gpus"]:
        pytest.skip("this machine has GPUs")
    assert "no NVIDIA driver is installed" in report["reason"]
    assert not report["incomplete"]
