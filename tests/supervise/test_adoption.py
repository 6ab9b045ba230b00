"""The processes of an earlier Stoker are told by what no two of them have in common."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import attrs
import pytest

from stoker.model import EngineRun, ExitStatus, LaunchPlan
from stoker.supervise import proctable
from stoker.supervise.adoption import Survey, survey
from stoker.supervise.process import adopt

Start = Callable[..., EngineRun]
WAITS = "import sys; sys.stdout.write('.'); sys.stdout.flush(); sys.stdin.read()"


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that waits, with a marker of its own, and tell of it as a Stoker would have."""
    processes: list[subprocess.Popen[bytes]] = []

    def start_one(script: str = WAITS, *, leads: bool = True, **env: str) -> EngineRun:
        mark = f"home:run:engine:{os.urandom(4).hex()}"
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, proctable.MARK_VARIABLE: mark, **env},
            start_new_session=leads,
        )
        processes.append(process)
        assert process.stdout is not None
        process.stdout.read(1)
        entry = proctable.read_entry(process.pid)
        assert entry is not None
        return EngineRun(
            engine_id="engine",
            incarnation=1,
            mark=mark,
            boot_id=proctable.boot_id(),
            pid=process.pid,
            started=entry.started,
            host="127.0.0.1",
            port=1,
            plan=LaunchPlan(base_url="http://127.0.0.1:1"),
        )

    yield start_one
    for process in processes:
        process.kill()
        process.communicate()


def test_one_that_lives_is_found(start: Start) -> None:
    run = start()
    assert survey([run]) == Survey((run,), ())


def test_one_that_was_just_being_started_is_found_by_its_marker(start: Start) -> None:
    run = start()
    unfinished = attrs.evolve(run, pid=None, started=None)
    assert survey([unfinished]).living == (run,)
    child = start(leads=False)
    nobody = attrs.evolve(child, pid=None, started=None)
    assert survey([nobody]).living == (), "only the leader of a session is the engine itself"


def test_one_that_ended_is_not(start: Start) -> None:
    run = start()
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    os.waitid(os.P_PID, run.pid, os.WEXITED | os.WNOWAIT)
    assert survey([run]) == Survey(), "a zombie is gone"


@pytest.mark.parametrize("change", [{"started": 1}, {"boot_id": "another"}], ids=["another start", "another boot"])
def test_a_later_bearer_of_its_pid_is_not(start: Start, change: dict[str, object]) -> None:
    assert survey([attrs.evolve(start(), **change)]) == Survey()  # type: ignore[arg-type]


def test_one_that_wrote_over_its_environment_is_known_by_pid_and_start(start: Start) -> None:
    bare = start(f"import os\nos.environ.clear()\nos.execve({sys.executable!r}, ['x', '-c', {WAITS!r}], {{}})")
    assert bare.pid is not None
    assert proctable.read_mark(bare.pid) is None
    assert survey([bare]).living == (bare,)


def test_one_with_the_marker_of_another_is_reported_and_left_alone(start: Start) -> None:
    run = start()
    found = survey([attrs.evolve(run, mark="home:run:other:9")])
    assert found.living == ()
    assert found.doubtful == (
        f"process {run.pid} began when engine 'engine' did, and has the marker of another; it is left alone",
    )


async def test_the_exit_of_one_that_is_still_our_child_is_known(start: Start) -> None:
    """As after an exec: the successor is the same process."""
    run = start()
    assert run.pid is not None
    assert run.started is not None
    process = adopt(run.pid, run.started, run.mark)
    assert await process.stop(5) == ""
    assert process.status == ExitStatus(signal=signal.SIGTERM)


async def test_the_exit_of_one_that_is_no_child_is_seen_and_nothing_is_made_up(start: Start) -> None:
    parent = start(
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {WAITS!r}], stdin=subprocess.PIPE, start_new_session=True)\n"
        "sys.stdin.read()\n"
    )
    children = [entry for entry in proctable.members(None, parent.mark.__eq__) if entry.parent == parent.pid]
    [child] = children
    process = adopt(child.pid, child.started, parent.mark)
    os.kill(child.pid, signal.SIGKILL)
    status = await process.wait()
    assert status == ExitStatus()
    assert str(status) == "exit code not known"
    assert await process.stop(0) == "", "it is somebody else's to reap"


async def test_one_that_can_not_be_looked_at_for_lack_of_descriptors_is_looked_at_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start()
    assert run.pid is not None
    assert run.started is not None
    process = adopt(run.pid, run.started, run.mark)
    read = proctable.read_file
    refused: list[str] = []

    def refuse_at_first(pid: int | str, name: str) -> bytes:
        if len(refused) < 3:
            refused.append(name)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return read(pid, name)

    os.kill(run.pid, signal.SIGKILL)
    monkeypatch.setattr(proctable, "read_file", refuse_at_first)
    assert await process.wait() == ExitStatus(signal=signal.SIGKILL)
    assert len(refused) == 3
    assert await process.stop(0) == ""
