"""The inventory through the true ctypes path: a real pynvml, and a libnvidia-ml.so.1 that this test compiles."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

STUB = Path(__file__).parent / "nvml_stub.c"
READER = """
import json, sys, attrs
from stoker.gpu.inventory import read_gpus
print(json.dumps([attrs.asdict(read_gpus()) for _ in range(2)]))
"""
GIB = 1024**3


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the compiled stub."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to make a libnvidia-ml.so.1 with")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-Wall", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([compiler, *flags, "-o", str(library), str(STUB)], check=True)
    return folder


def read(driver: Path | None, **stub: object) -> Mapping[str, Any]:
    """What a process of its own reads, with the stub told ``NVML_STUB_…``. It reads twice, and must see the same."""
    env = {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "LD_LIBRARY_PATH": str(driver) if driver else "",
        **{f"NVML_STUB_{name.upper()}": str(value) for name, value in stub.items()},
    }
    ran = subprocess.run([sys.executable, "-c", READER], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    first, second = json.loads(ran.stdout)
    assert first == second
    return dict(first)


def test_every_gpu_is_described(driver: Path) -> None:
    report = read(driver, gpus=2)
    assert report["reason"] is None
    assert report["gpus"] == [
        {
            "index": index,
            "uuid": f"GPU-{index:08}",
            "name": f"Stub {index}",
            "memory_total": 80 * GIB,
            "memory_used": (index + 1) * GIB,
            "utilisation": 37,
            "temperature": 55,
            "processes": [],
            "engines": [],
        }
        for index in (0, 1)
    ]


def test_the_processes_that_hold_memory_are_named_once_each(driver: Path) -> None:
    report = read(driver, gpus=2, processes="4711:1024", draws="4711:2048")
    assert report["gpus"][0]["processes"] == [{"pid": 4711, "memory_used": 1024, "engine_id": None}]
    assert report["gpus"][1]["processes"] == []


def test_a_process_whose_memory_the_driver_hides_has_none(driver: Path) -> None:
    report = read(driver, gpus=1, processes="4711:-1")
    assert report["gpus"][0]["processes"] == [{"pid": 4711, "memory_used": None, "engine_id": None}]


def test_an_older_driver_names_processes_too(driver: Path) -> None:
    report = read(driver, gpus=1, processes="4711:1024", no_v3=1)
    assert [process["pid"] for process in report["gpus"][0]["processes"]] == [4711]


def test_a_gpu_that_fell_off_the_bus_does_not_hide_the_others(driver: Path) -> None:
    report = read(driver, gpus=3, lost=1)
    assert [gpu["index"] for gpu in report["gpus"]] == [0, 2]
    assert report["reason"] == "GPU 1 can't be read: GPU is lost"


def test_what_a_gpu_can_not_tell_is_missing_and_nothing_else(driver: Path) -> None:
    (gpu,) = read(driver, gpus=1, bare=1)["gpus"]
    assert (gpu["utilisation"], gpu["temperature"], gpu["processes"]) == (None, None, [])
    assert gpu["memory_total"] == 80 * GIB


@pytest.mark.parametrize(("code", "words"), [(9, "Driver Not Loaded"), (18, "version mismatch")])
def test_a_driver_that_fails_is_the_reason_for_no_gpus(driver: Path, code: int, words: str) -> None:
    report = read(driver, gpus=2, init=code)
    assert report["gpus"] == []
    assert report["reason"].startswith("the NVIDIA driver can't be asked: ")
    assert words in report["reason"]


def test_a_driver_without_gpus_says_so(driver: Path) -> None:
    assert read(driver, gpus=0) == {"gpus": [], "reason": "the NVIDIA driver knows no GPU"}


def test_no_driver_is_no_error() -> None:
    report = read(None)
    if report["gpus"]:
        pytest.skip("this machine has GPUs")
    assert "no NVIDIA driver is installed" in report["reason"]
