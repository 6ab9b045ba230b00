"""Stoker as its user runs it: the built file in a process of its own, with a home of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIGKILL, Signals
from typing import Any, TypeVar

import attrs
import httpx2

from stoker.home import Home
from stoker.supervise import proctable
from tests import loopback

HANG_GUARD_SECONDS = 120
LAST_LINES = 40
T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, seconds: float = HANG_GUARD_SECONDS) -> T:
    """Wait for a condition of the outside world, and return what it gave; fail loudly when it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"in {seconds} s it did not come to this: {what}")


def find_python(minor: int) -> str | None:
    """An interpreter of that version, where this machine has one."""
    installed = sorted(map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")))
    asks = f"import sys; sys.exit(sys.version_info[:2] != (3, {minor}))"
    for python in filter(None, [shutil.which(f"python3.{minor}"), *installed]):
        if subprocess.run([python, "-c", asks], capture_output=True, check=False).returncode == 0:
            return python
    return None


@attrs.define
class Program:
    """One `stoker …` that runs."""

    process: subprocess.Popen[bytes]
    home: Home
    output: Path

    @property
    def url(self) -> str:
        """The gateway's address."""
        return str(json.loads(self.home.gateway.read_text())["url"])

    @property
    def token(self) -> str:
        """The admin token."""
        return self.home.admin_token.read_text().strip()

    def manage(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx2.Response:
        """One call of the management side."""
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"{self.url}/v1/management{path}"
        return loopback.request(method, url, json=body, headers=headers, timeout=HANG_GUARD_SECONDS)

    def engines(self) -> list[dict[str, Any]]:
        """Every engine as the management side shows it."""
        answer = self.manage("GET", "/engines").json()
        return list(answer["data"])

    def wait_until_ready(self, count: int, seconds: float = HANG_GUARD_SECONDS) -> list[dict[str, Any]]:
        """Wait until so many engines are READY, and return all."""

        def enough() -> list[dict[str, Any]] | None:
            assert self.process.poll() is None, self.output.read_text()
            engines = self.engines()
            broken = [engine["last_error"] for engine in engines if engine["state"] == "ERROR"]
            assert not broken, broken
            return engines if sum(engine["state"] == "READY" for engine in engines) >= count else None

        return until(enough, f"{count} engines READY", seconds)

    def processes(self) -> list[proctable.ProcessEntry]:
        """Every living process of its engines."""
        return proctable.members(None, lambda mark: mark.startswith(f"{self.home.digest}:"))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program alone."""
        self.process.send_signal(number)

    def signal_engine(self, pid: int, number: Signals = SIGKILL) -> bool:
        """Signal a process of its engines; False where that is gone, whoever has its pid by now.

        What has a handle can't become another process, so its marker is looked at once that is had.
        """
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        try:
            is_ours = (proctable.read_mark(pid) or "").startswith(f"{self.home.digest}:")
            if is_ours:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)
        return is_ours

    def wait(self) -> int:
        """Its exit code, once it ended."""
        return self.process.wait(HANG_GUARD_SECONDS)

    @property
    def last_words(self) -> str:
        """How it ended, and what it said last; empty while it runs."""
        code = self.process.poll()
        if code is None:
            return ""
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        lines = self.output.read_text(errors="replace").splitlines()[-LAST_LINES:]
        return "\n".join([f"Stoker (pid {self.process.pid}) ended: {how}. It said last:", *lines])


@contextlib.contextmanager
def running(pyz: Path | Sequence[str], home: Home, *arguments: str, **env: str) -> Iterator[Program]:
    """Run ``stoker ARGUMENTS`` from the built file until the block ends; wait until it announces itself.

    ``pyz`` may also be the words of another command that is Stoker.
    """
    command = [sys.executable, str(pyz)] if isinstance(pyz, Path) else list(pyz)
    home.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    output = home.path / "output.txt"
    told = {
        "STOKER_HOME": str(home.path),
        "NO_COLOR": "1",
        "PYTHONFAULTHANDLER": "1",
    }  # the last: a crash leaves a trace
    environ = {**os.environ, **told, **env}
    with output.open("wb") as file:
        process = subprocess.Popen([*command, *arguments], stdout=file, stderr=subprocess.STDOUT, env=environ)
    program = Program(process, home, output)
    try:
        until(lambda: _answers(program), f"the gateway answers; it said:\n{output.read_text()}")
        yield program
    except BaseException as error:
        if words := program.last_words:  # whatever the test noticed of it
            error.add_note(words)
        raise
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
        process.kill()
        process.wait()
        proctable.send(program.processes(), signal.SIGKILL)


def _answers(program: Program) -> bool:
    if program.process.poll() is not None:
        raise AssertionError(f"it ended with {program.process.returncode}:\n{program.output.read_text()}")
    try:
        return loopback.get(f"{program.url}/health", timeout=5).status_code == httpx2.codes.OK
    except (OSError, httpx2.HTTPError, json.JSONDecodeError):
        return False
