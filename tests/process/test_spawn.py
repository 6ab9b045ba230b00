"""What a spawned engine gets, and what a spawn that can't be says."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path

import pytest

from stoker.errors import LaunchError, PermanentLaunchError
from stoker.model import ExitStatus
from stoker.supervise import proctable
from stoker.supervise.process import spawn

from .conftest import Start

ABOUT_ITSELF = """
import json, os
print(json.dumps({
    "session": os.getsid(0), "pid": os.getpid(), "mark": os.environ["STOKER_MARK"],
    "stdin": os.readlink("/proc/self/fd/0"), "stdout": os.readlink("/proc/self/fd/1"),
    "descriptors": sorted(map(int, os.listdir("/proc/self/fd"))),
}), flush=True)
"""


async def test_an_engine_leads_its_own_session_and_writes_straight_into_its_log(
    start: Start, mark: str, tmp_path: Path
) -> None:
    inherited = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(inherited, True)
    try:
        process = start(ABOUT_ITSELF)
        assert await process.wait() == ExitStatus(code=0)
    finally:
        os.close(inherited)
    log = tmp_path / "engine.log"
    about = json.loads(log.read_text())
    assert about["session"] == about["pid"] == process.pid
    assert about["mark"] == mark
    assert about["stdin"] == "/dev/null"
    assert about["stdout"] == str(log)
    assert inherited not in about["descriptors"]
    assert log.stat().st_mode & 0o077 == 0


async def test_a_log_keeps_what_earlier_incarnations_wrote(start: Start, tmp_path: Path) -> None:
    for word in ("first", "second"):
        await start(f"print('{word}')").wait()
    assert (tmp_path / "engine.log").read_text() == "first\nsecond\n"


@pytest.mark.parametrize(
    ("argv", "cwd", "message"),
    [
        (["no-such-engine-anywhere"], None, "there is no executable 'no-such-engine-anywhere' on the PATH"),
        (["./engine"], "/tmp", "there is no executable './engine': /tmp/engine does not exist"),
        (["/"], None, "'/' is a folder, not an executable"),
        (["/etc/passwd"], None, "'/etc/passwd' is not executable; make it so"),
        ([sys.executable], "/no/such/folder", "the working folder '/no/such/folder' does not exist"),
        ([sys.executable, "nul\0byte"], None, "can't be started: embedded null byte"),
    ],
)
def test_a_spawn_that_cannot_be_names_the_thing(tmp_path: Path, argv: list[str], cwd: str | None, message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        spawn(argv, dict(os.environ), cwd, tmp_path / "log", "mark")


def test_a_file_that_is_no_program_can_not_be_mended_by_trying_again(tmp_path: Path) -> None:
    program = tmp_path / "engine"
    program.write_text("#!/no/such/interpreter -u\n")
    program.chmod(0o755)
    with pytest.raises(PermanentLaunchError, match="its first line names the interpreter '/no/such/interpreter'"):
        spawn([str(program)], dict(os.environ), None, tmp_path / "log", "mark")
    program.write_text("no first line to speak of")
    with pytest.raises(PermanentLaunchError, match="can't be executed: Exec format error; is it a program for this"):
        spawn(["./engine"], dict(os.environ), str(tmp_path), tmp_path / "log", "mark")


def test_our_own_entry_can_be_read_whatever_the_process_is_called() -> None:
    entry = proctable.read_entry(os.getpid())
    assert entry is not None
    assert entry.parent == os.getppid()
    assert not entry.gone
    assert proctable.read_entry(2**22 + 1) is None


async def test_a_relative_program_is_one_of_the_folder_it_runs_in(tmp_path: Path) -> None:
    program = tmp_path / "engine"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    process = spawn(["./engine"], dict(os.environ), str(tmp_path), tmp_path / "log", "mark")
    assert await process.wait() == ExitStatus(code=7)
    await process.stop(0)


async def test_an_exit_is_seen_also_without_a_descriptor_left_for_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", none_left)
    assert await start("raise SystemExit(3)").wait() == ExitStatus(code=3)


def test_a_process_that_we_may_not_look_at_is_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int | str, name: str) -> bytes:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), f"/proc/{pid}/{name}")

    monkeypatch.setattr(proctable, "read_file", refused)  # as with hidepid=1
    assert proctable.process_table() == []
