"""Real children: scripts that behave the ways engines do when they are told to stop."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from stoker.supervise import proctable
from stoker.supervise.process import EngineProcess, spawn

Start = Callable[..., EngineProcess]
HANG_GUARD_SECONDS = 20


@pytest.fixture
def mark() -> str:
    """A marker no other test has."""
    return f"test:{os.urandom(8).hex()}"


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Iterator[Start]:
    """Start a Python script as an engine; whatever is left of it is killed after the test."""

    started: list[EngineProcess] = []

    def start_script(script: str, **env: str) -> EngineProcess:
        environ = {**os.environ, **env}
        started.append(spawn([sys.executable, "-c", script], environ, None, tmp_path / "engine.log", mark))
        return started[-1]

    yield start_script
    proctable.send(proctable.members(None, mark.__eq__), signal.SIGKILL)
    for process in started:
        process.let_go()


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition of the outside world; give up loudly when it does not come."""
    with trio.fail_after(HANG_GUARD_SECONDS):
        while not condition():
            await trio.sleep(0.01)
