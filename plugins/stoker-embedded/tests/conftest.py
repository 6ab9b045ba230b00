"""A real embedded engine: its environment, installed once, and engines started in it as their plans say."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from stoker import environments
from stoker.environments import Installed
from stoker.home import Home
from stoker.model import EngineSpec, Placement
from stoker_embedded import Embedded

ROOT = Path(__file__).resolve().parents[3]
HANG_GUARD_SECONDS = 60

Started = tuple[subprocess.Popen[bytes], str, Path]


@pytest.fixture(scope="session")
def installed() -> Installed:
    """The runtime's environment, kept from run to run in the folder that the tests of the built file use as well."""
    home = Home(Path(os.environ.get("STOKER_TEST_HOME") or ROOT / "build" / "e2e" / "home"))
    return environments.install(home, "embedded", Embedded().environment, lambda _progress: None)


@pytest.fixture(scope="module")
def start(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[EngineSpec], Started]]:
    """Starts an engine: gives its process, its address and its log. All end with the module."""
    with ExitStack() as ending:

        def start_one(spec: EngineSpec) -> Started:
            plan = Embedded().plan(spec, Placement(python=installed.python), free_port())
            log = tmp_path_factory.mktemp("engine") / "log"
            with log.open("wb") as file:
                process = subprocess.Popen(
                    plan.argv, env={**os.environ, **plan.env}, cwd=plan.cwd, stdout=file, stderr=subprocess.STDOUT
                )
            ending.callback(end, process)
            return process, plan.base_url, log

        yield start_one


@pytest.fixture(scope="module")
def chat(start: Callable[[EngineSpec], Started]) -> str:
    """The address of a chat engine."""
    return ready(*start(EngineSpec(model="smollm2", runtime="embedded")))


@pytest.fixture(scope="module")
def embedding(start: Callable[[EngineSpec], Started]) -> str:
    """The address of an embedding engine."""
    return ready(*start(EngineSpec(model="all-minilm-l6-v2", runtime="embedded", kind="embedding")))


@pytest.fixture(scope="session")
def until_ready() -> Callable[[subprocess.Popen[bytes], str, Path], str]:
    """Waits for an engine to answer, and gives its address."""
    return ready


def ready(process: subprocess.Popen[bytes], url: str, log: Path) -> str:
    """Wait until the engine's health is 200."""
    end = time.monotonic() + HANG_GUARD_SECONDS
    with httpx2.Client(base_url=url, trust_env=False, verify=False) as client:
        while time.monotonic() < end:
            assert process.poll() is None, f"it ended with {process.returncode}:\n{log.read_text()}"
            try:
                if client.get("/health").status_code == 200:
                    return url
            except httpx2.TransportError:
                time.sleep(0.02)
    raise AssertionError(f"it is not ready in {HANG_GUARD_SECONDS} s:\n{log.read_text()}")


def free_port() -> int:
    """A port that nobody has at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def end(process: subprocess.Popen[bytes]) -> None:
    """Leave no process behind."""
    process.kill()
    process.wait()
