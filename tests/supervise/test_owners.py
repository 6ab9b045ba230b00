"""Which engine a process belongs to: by session, marker or parent, with real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from stoker.supervise import owners as module
from stoker.supervise.owners import owners
from stoker.supervise.proctable import MARK_VARIABLE

Start = Callable[..., int]
NO_SUCH_PID = 2**22 + 1  # above what Linux gives out


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python script in a session of its own; its first line of output is a pid."""
    running: list[subprocess.Popen[bytes]] = []

    def start_script(script: str, **env: str) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **env},
            start_new_session=True,
        )
        running.append(process)
        assert process.stdout is not None
        return int(process.stdout.readline())

    yield start_script
    for process in running:
        process.communicate()  # its input ends, and so do they all


ITSELF = "import os; print(os.getpid(), flush=True); input()"
CHILD = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "input()"], **{options})
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture(autouse=True)
def _as_on_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_in_container", lambda: False)


def test_a_process_of_the_engines_session_is_the_engines(start: Start) -> None:
    pid = start(ITSELF)
    assert owners([pid], {pid: "qwen"}, {}) == {pid: "qwen"}


def test_one_that_left_the_session_is_known_by_its_marker(start: Start) -> None:
    pid = start(CHILD.format(options={"start_new_session": True}), **{MARK_VARIABLE: "mine"})
    assert owners([pid], {}, {"mine": "qwen"}) == {pid: "qwen"}


def test_one_that_left_the_session_and_has_no_marker_is_known_by_its_parent(start: Start) -> None:
    """vLLM's workers write their titles over their environment."""
    pid = start(CHILD.format(options={"start_new_session": True, "env": {}}), **{MARK_VARIABLE: "mine"})
    assert owners([pid], {}, {"mine": "qwen"}) == {pid: "qwen"}


def test_a_stranger_is_nobodys(start: Start) -> None:
    pid = start(ITSELF)
    assert owners([pid, os.getpid(), NO_SUCH_PID, 1, 0], {NO_SUCH_PID: "qwen"}, {"mine": "qwen"}) == {}


def test_in_a_container_that_sees_other_pids_than_the_driver_none_is_matched(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver's pids may be the host's; one of them could be, here, an engine that is another process there."""
    monkeypatch.setattr(module, "_in_container", lambda: True)
    pid = start(ITSELF)
    assert owners([pid], {pid: "qwen"}, {}) == {pid: "qwen"}
    assert owners([pid, NO_SUCH_PID], {pid: "qwen"}, {}) == {}
