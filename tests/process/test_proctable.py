"""The process table is read, and processes are signalled, without doing anything to strangers or to ourselves."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.supervise import ports, proctable

pytestmark = pytest.mark.skipif(not proctable.HAS_PROC, reason="there is no /proc to look into")


def test_a_look_at_the_table_interns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """pathlib does, every pid: the table of interned strings was built anew, 2 MB each time, in thread after thread."""
    interned: list[str] = []

    def intern(text: str) -> str:
        interned.append(text)
        return text

    monkeypatch.setattr(sys, "intern", intern)
    assert os.getpid() in {entry.pid for entry in proctable.process_table()}
    assert proctable.members(None, "nobody's".__eq__) == []
    assert proctable.read_mark(os.getpid()) is None
    assert ports.sockets_of(os.getpid()) is not None
    assert interned == []


@pytest.fixture
def leader() -> Iterator[subprocess.Popen[bytes]]:
    """A process that leads a session."""
    with subprocess.Popen(["sleep", "600"], start_new_session=True) as process:
        yield process
        process.kill()


def entry_of(process: subprocess.Popen[bytes]) -> proctable.ProcessEntry:
    entry = proctable.read_entry(process.pid)
    assert entry is not None
    return entry


def test_a_session_of_the_same_number_that_began_at_another_time_is_a_strangers(
    leader: subprocess.Popen[bytes],
) -> None:
    began = entry_of(leader).started
    for known, found in ((0, [leader.pid]), (began, [leader.pid]), (began - 1, [])):
        assert [entry.pid for entry in proctable.members(leader.pid, "".__eq__, known)] == found


@pytest.mark.parametrize(
    ("call", "number"),
    [("pidfd_open", errno.EINVAL), ("pidfd_open", errno.ESRCH), ("pidfd_send_signal", errno.EPERM)],
    ids=["gone, but its session is not", "gone", "another user's"],
)
def test_one_that_can_not_be_signalled_is_passed_over(
    leader: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    """Linux before 6.15 says of a pid that is only a session's number by now that it is invalid."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "pidfd_open" else signal, call, refuse)
        proctable.send([entry_of(leader)], signal.SIGKILL)
    assert leader.poll() is None
    proctable.send([entry_of(leader)], signal.SIGKILL)
    assert leader.wait(10) == -signal.SIGKILL


def test_a_long_table_of_connections_is_not_held_in_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each start of an engine read it whole, 4 MB for 10,000 that had just ended, in the memory of another thread."""
    table = tmp_path / "self" / "net" / "tcp"
    table.parent.mkdir(parents=True)
    ended = "{}: 0100007F:{:04X} 0100007F:1F90 06 00000000:00000000 03:000004A0 00000000     0        0 0 3 0\n"
    listens = "20000: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0\n"
    table.write_text("".join(["sl local_address …\n", *(ended.format(n, n + 20000) for n in range(20000)), listens]))
    monkeypatch.setattr(ports, "PROC", str(tmp_path))
    tracemalloc.start()
    try:
        assert ports.listeners("127.0.0.1", 0x1F90) == {4711}
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 256 * 1024
