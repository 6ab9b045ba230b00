"""Processes that are measured or that measure: started on their CPU, waited for, asked, and always ended."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import BenchError, pinned

STOP_SECONDS = 20


@dataclass
class Running:
    """A process with a session of its own, and the file with what it says."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    port: int

    @property
    def pid(self) -> int:
        """Of its first process."""
        return self.process.pid

    def said(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-2000:]

    def wait_until(self, ready: Callable[[], bool], seconds: float) -> None:
        """Wait until it is ``ready``. Raises BenchError if it ends before, or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if self.process.poll() is not None:
                raise BenchError(f"{self.name} ended with {self.process.returncode} as it was started:\n{self.said()}")
            if time.monotonic() > deadline:
                raise BenchError(f"{self.name} was not ready after {seconds:.0f} seconds:\n{self.said()}")
            time.sleep(0.1)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what doesn't heed it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def running(
    name: str, argv: Sequence[str], environ: Mapping[str, str], port: int, cpu: int, folder: Path
) -> Iterator[Running]:
    """Start ``argv`` on ``cpu``; it is ended when the block is left."""
    log = folder / f"{name}.log"
    with log.open("wb") as output, pinned({cpu}):
        process = subprocess.Popen(
            argv,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    started = Running(name, process, log, port)
    try:
        yield started
    finally:
        started.stop()


def answer(
    port: int, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """One request. Raises OSError or HTTPException when there is no answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, body, {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def answers(port: int, path: str, body: bytes | None = None) -> bool:
    """Whether the answer is a 200."""
    try:
        return answer(port, "GET" if body is None else "POST", path, body)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


class WrongAnswerError(Exception):
    """An answer was not what the engine said."""


@dataclass(frozen=True)
class LoadClient:
    """The load client, ``load.c``, on its CPU."""

    program: Path
    cpu: int

    def run(self, *arguments: str) -> dict[str, Any]:
        """Put a load on something and return what the client found. Raises WrongAnswerError."""
        with pinned({self.cpu}):
            done = subprocess.run([str(self.program), *arguments], capture_output=True, text=True, check=False)
        return self._result(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def holding(self, *arguments: str) -> Iterator[None]:
        """Inside of the block the connections are open, idle, and have had one answer each."""
        with (
            pinned({self.cpu}),
            subprocess.Popen(
                [str(self.program), "--hold", *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            ) as client,
        ):
            assert client.stdout is not None
            first = client.stdout.readline()
            if first == "ready\n":
                yield
            output, errors = client.communicate()
        self._result(client.returncode, output or first, errors)

    def _result(self, code: int, output: str, errors: str) -> dict[str, Any]:
        if code not in (0, 1):
            raise BenchError(errors.strip() or f"the load client ended with {code}")
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        if code:
            raise WrongAnswerError(
                f"{found['wrong']} wrong answers, the first one: {' '.join(found['reason'].split())}"
            )
        return found
