"""A damaged state file, a full disk, a clock that jumps: each costs what depends on it, and nothing else."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from stoker.home import Home
from tests import loopback
from tests.e2e.running import running, until

from .test_supervisor_dies import by_id, chat, engine, kill, pids, write

DAY_SECONDS = 86_400


@pytest.mark.parametrize("damage", ["cut", "a flipped bit", "nonsense", "gone"])
def test_with_a_damaged_state_file_it_starts_and_says_what_became_of_it(
    pyz: Path, stoker_home: Home, tmp_path: Path, damage: str
) -> None:
    config = write(tmp_path, engine("one"), engine("two"))
    with running(pyz, stoker_home, "up", "-c", config) as first:
        first.wait_until_ready(2)
        before = pids(first)
        kill(first)
        spoil(stoker_home.state, damage)
        with running(pyz, stoker_home, "up", "-c", config) as second:
            second.wait_until_ready(2)
            assert chat(second, "one").status_code == httpx2.codes.OK
            members = {entry.session for entry in second.processes()}
            assert members == set(pids(second).values()), f"nobody is left of {before}, and nobody runs twice"
            if damage != "gone":
                assert "is set aside as state.sqlite3.damaged-" in second.output.read_text()


def spoil(file: Path, damage: str) -> None:
    connection = sqlite3.connect(file)  # what is in the log beside it goes into the file
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = bytearray(file.read_bytes())
    match damage:
        case "cut":
            file.write_bytes(whole[: len(whole) // 2 + 100])
        case "a flipped bit":
            whole[100] ^= 0x40
            file.write_bytes(whole)
        case "nonsense":
            file.write_bytes(b"nothing that SQLite knows\n" * 500)
        case "gone":
            file.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "none", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be made here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all the room that there is."""
    ballast = place / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (65_536, 4096, 512, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
    return ballast


def test_a_full_disk_costs_no_request_and_no_engine(pyz: Path, small_disk: Path, tmp_path: Path) -> None:
    home = Home(small_disk / "home")
    config = write(tmp_path, engine("one"), engine("two"))
    with running(pyz, home, "up", "-c", config) as program:
        program.wait_until_ready(2)
        ballast = fill(small_disk)
        assert chat(program, "one").status_code == httpx2.codes.OK
        assert program.signal_engine(pids(program)["one"])
        until(lambda: by_id(program)["one"]["restarts"] == 1, "it is started anew")
        until(lambda: by_id(program)["one"]["state"] == "READY", "and is READY")
        assert chat(program, "one").status_code == httpx2.codes.OK
        assert chat(program, "two").status_code == httpx2.codes.OK
        ballast.unlink()
        assert program.signal_engine(pids(program)["two"])
        until(lambda: by_id(program)["two"]["state"] == "READY" and by_id(program)["two"]["restarts"] == 1, "again")
        after = pids(program)
        kill(program)
        with running(pyz, home, "up", "-c", config) as second:
            second.wait_until_ready(2)
            assert pids(second) == after, "with room again, all is kept again"


def test_on_a_disk_that_was_full_from_the_beginning_it_serves_too(pyz: Path, small_disk: Path, tmp_path: Path) -> None:
    home = Home(small_disk / "home")
    config = write(tmp_path, engine("one"))
    with running(pyz, home, "up", "-c", config) as program:  # makes the token, without which there is no management
        program.wait_until_ready(1)
        program.signal(signal.SIGINT)
        assert program.wait() == 0
    home.state.unlink()
    fill(small_disk)
    output = tmp_path / "output.txt"
    environ = {**os.environ, "STOKER_HOME": str(home.path)}
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, str(pyz), "up", "-c", config], env=environ, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        answers = re.compile(r"answers at (\S+)/v1")
        found = until(lambda: answers.search(output.read_text()), "it serves")
        body = {"model": "one", "messages": [{"role": "user", "content": "Hi"}]}
        answer = loopback.post(f"{found[1]}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == httpx2.codes.OK, answer.text
        said = output.read_text()
        assert f"the command line finds this gateway only by STOKER_URL={found[1]}" in said
        assert "nothing is kept beyond this run" in said or "not kept" in said
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def wall_clock(tmp_path: Path) -> Path:
    """The library for LD_PRELOAD."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler here to make a clock with")
    library = tmp_path / "wall_clock.so"
    source = Path(__file__).parent / "wall_clock.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source, "-ldl"], check=True)
    return library


def test_a_wall_clock_that_jumps_by_a_day_fires_no_timer(
    pyz: Path, stoker_home: Home, tmp_path: Path, wall_clock: Path
) -> None:
    config = write(tmp_path, engine("one", drain_timeout_seconds=20, startup_timeout_seconds=60))
    wrong_by = tmp_path / "wrong_by"
    wrong_by.write_text("0")
    env = {"LD_PRELOAD": str(wall_clock), "STOKER_TEST_CLOCK": str(wrong_by)}
    with running(pyz, stoker_home, "up", "-c", config, **env) as program:
        program.wait_until_ready(1)
        before = by_id(program)["one"]
        for days in (1, -1, 0):
            wrong_by.write_text(str(days * DAY_SECONDS))
            status = program.manage("GET", "/status").json()
            told = time.time() + days * DAY_SECONDS
            heartbeat = by_id(program)["one"]["last_heartbeat"]
            until(lambda seen=heartbeat: by_id(program)["one"]["last_heartbeat"] != seen, "it is probed on")  # type: ignore[misc]
            assert chat(program, "one").status_code == httpx2.codes.OK
            after = by_id(program)["one"]
            assert (after["state"], after["pid"], after["restarts"]) == ("READY", before["pid"], 0)
            assert status["uptime_seconds"] >= 0
            assert abs(status["started_at"] + status["uptime_seconds"] - told) < DAY_SECONDS + 60
        wrong_by.write_text(str(DAY_SECONDS))
        stop = threading.Thread(target=program.manage, args=("POST", "/engines/one/restart"))
        stop.start()
        until(lambda: by_id(program)["one"]["pid"] not in (None, before["pid"]), "it is started again, in its time")
        until(lambda: by_id(program)["one"]["state"] == "READY", "and is READY")
        stop.join()
