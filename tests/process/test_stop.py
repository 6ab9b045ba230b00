"""A stop is over when nothing is left: every way an engine's processes try to stay."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio
import trio.testing

from stoker.model import ExitStatus
from stoker.supervise import proctable

from .conftest import Start, until

READY = "open(1, 'w', closefd=False).write('ready\\n')\n"
SLEEP = READY + "import time\ntime.sleep(600)\n"
IGNORE_TERM = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SLEEP
LOSE_ONE_TERM = (
    "import signal, sys\n"
    "count = []\n"
    "signal.signal(signal.SIGTERM, lambda *_: (count.append(1), len(count) > 1 and sys.exit(0)))\n" + SLEEP
)
CHILD_IN_THE_SESSION = "import os, time\nif os.fork() == 0:\n    time.sleep(600)\n" + SLEEP
GRANDCHILD_IN_ITS_OWN_SESSION = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    open(1, 'w', closefd=False).write('grandchild\\n')
    time.sleep(600)
time.sleep(600)
"""
DAEMON_THAT_LEAVES_AT_ONCE = """
import os, time
if os.fork() == 0:
    os.setsid()
    open(1, 'w', closefd=False).write('ready\\n')
    time.sleep(600)
"""


def left(mark: str) -> list[proctable.ProcessEntry]:
    return proctable.members(None, mark.__eq__)


def says(tmp_path: Path, word: str) -> bool:
    return word in (tmp_path / "engine.log").read_text()


@pytest.mark.parametrize(
    ("script", "word"),
    [
        (SLEEP, "ready"),
        (CHILD_IN_THE_SESSION, "ready"),
        (GRANDCHILD_IN_ITS_OWN_SESSION, "grandchild"),
        (DAEMON_THAT_LEAVES_AT_ONCE, "ready"),
    ],
    ids=["plain", "child", "setsid grandchild", "daemon"],
)
async def test_nothing_is_left_after_a_stop(start: Start, mark: str, tmp_path: Path, script: str, word: str) -> None:
    process = start(script)
    await until(lambda: says(tmp_path, word))
    assert left(mark)
    note = await process.stop(grace_seconds=0.5)
    assert note == ""
    assert left(mark) == []


async def test_an_engine_that_was_stopped_by_a_signal_is_woken_to_hear_that_it_ends(
    start: Start, mark: str, tmp_path: Path
) -> None:
    """It once slept through its grace, however long, and was killed; its clients waited as long."""
    process = start(SLEEP)
    await until(lambda: says(tmp_path, "ready"))
    os.kill(process.pid, signal.SIGSTOP)
    with trio.fail_after(20):
        assert await process.stop(grace_seconds=3600) == ""
    assert process.status == ExitStatus(signal=signal.SIGTERM)


async def test_without_grace_whoever_left_the_group_is_killed_too(start: Start, mark: str, tmp_path: Path) -> None:
    """A second Ctrl-C once left them: SIGKILL went to the group for as long as its leader was not reaped."""
    process = start(GRANDCHILD_IN_ITS_OWN_SESSION)
    await until(lambda: says(tmp_path, "grandchild"))
    with trio.fail_after(10):
        assert await process.stop(grace_seconds=0) == ""
    assert left(mark) == []


async def test_an_engine_that_ignores_sigterm_is_killed_after_its_grace(start: Start, tmp_path: Path) -> None:
    process = start(IGNORE_TERM)
    await until(lambda: says(tmp_path, "ready"))
    await process.stop(grace_seconds=0.3)
    assert await process.wait() == ExitStatus(signal=signal.SIGKILL)


async def test_a_lost_sigterm_is_repeated_within_the_grace(start: Start, tmp_path: Path) -> None:
    process = start(LOSE_ONE_TERM)
    await until(lambda: says(tmp_path, "ready"))
    await process.stop(grace_seconds=60)
    assert await process.wait() == ExitStatus(code=0)


async def test_hurrying_ends_a_long_grace(start: Start, tmp_path: Path) -> None:
    process = start(IGNORE_TERM)
    await until(lambda: says(tmp_path, "ready"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.stop, 3600)
        await trio.testing.wait_all_tasks_blocked()
        process.hurry(0)
    assert await process.wait() == ExitStatus(signal=signal.SIGKILL)


async def test_orphans_of_a_killed_parent_are_found(start: Start, mark: str, tmp_path: Path) -> None:
    """vLLM's core and workers live on when the API process is killed."""
    process = start(CHILD_IN_THE_SESSION)
    await until(lambda: len(left(mark)) == 2 and says(tmp_path, "ready"))
    os.kill(process.pid, signal.SIGKILL)
    assert await process.wait() == ExitStatus(signal=signal.SIGKILL)
    assert len(left(mark)) == 1
    await process.stop(grace_seconds=0.5)
    assert left(mark) == []
    assert len(process.seen) == 1


async def test_a_stranger_is_never_hit(start: Start, tmp_path: Path) -> None:
    """A signal goes to the process that was seen, not to a later bearer of its pid."""
    process = start(SLEEP)
    await until(lambda: says(tmp_path, "ready"))
    entry = proctable.read_entry(process.pid)
    assert entry is not None
    impostor = proctable.ProcessEntry(entry.pid, entry.parent, entry.session, entry.state, entry.started - 1)
    proctable.send([impostor], signal.SIGKILL)
    proctable.send([entry], signal.SIGUSR1)
    assert await process.wait() == ExitStatus(signal=signal.SIGUSR1)


async def test_its_pid_is_nobody_elses_until_the_stop_is_over(start: Start, mark: str) -> None:
    """Reaped at once, its number could be a stranger's session by the time that the rest of it is looked for."""
    process = start("raise SystemExit(3)")
    assert await process.wait() == ExitStatus(code=3)
    entry = proctable.read_entry(process.pid)
    assert entry is not None
    assert entry.gone
    assert await process.stop(grace_seconds=1) == ""
    assert proctable.read_entry(process.pid) is None
    assert process.status == ExitStatus(code=3)
