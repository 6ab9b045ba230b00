"""Runs one command of an installation, in a session of its own, and reads what it prints line by line."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO

import attrs

TICK_SECONDS = 0.5
GRACE_SECONDS = 5.0
TAIL_LINES = 200


@attrs.frozen
class Ended:
    """How a command ended: its status as :mod:`subprocess` gives it, and the last lines it printed."""

    status: int
    lines: Sequence[str]


def run(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    hear: Callable[[str | None], None],
    inherit: Sequence[int] = (),
) -> Ended:
    """Run ``argv`` to its end. Both its outputs go to ``hear``, line by line; None stands for half a second's silence.

    Whatever ``hear`` raises, and Ctrl-C, ends the command and all it started before it goes on to the caller. Raises
    OSError when the command can't be started.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
        pass_fds=inherit,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        for line in _lines(process.stdout):
            if line:
                tail.append(line)
            hear(line)
        _wait(process)
    finally:
        _end(process)
    return Ended(process.returncode, tuple(tail))


def _lines(stream: IO[bytes]) -> Iterator[str | None]:
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(TICK_SECONDS):
                yield None
                continue
            chunk = os.read(stream.fileno(), 65536)
            if not chunk:
                break
            *whole, rest = (rest + chunk).replace(b"\r", b"\n").split(b"\n")
            yield from (line.decode(errors="replace").rstrip() for line in whole)
    if rest:
        yield rest.decode(errors="replace").rstrip()


def _end(process: subprocess.Popen[bytes]) -> None:
    """Leave nothing of the command behind: its process group first asked, then killed.

    Only then is it reaped: until that is done, the group of that number is no other's.
    """
    if not _has_ended(process):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + GRACE_SECONDS
        while not _has_ended(process) and time.monotonic() < end:
            time.sleep(0.02)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _wait(process: subprocess.Popen[bytes]) -> None:
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    if not hasattr(os, "waitid"):  # macOS, under a Python before 3.13: it is reaped by that
        return process.poll() is not None
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
