"""One installer at a time for each runtime, across processes."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from stoker.environments.records import Progress
from stoker.errors import EnvironmentFault

LOOK_AGAIN_SECONDS = 0.2


@contextmanager
def held(path: Path, name: str, report: Callable[[Progress], None], *, wait: bool) -> Iterator[int]:
    """Hold the lock of runtime ``name``; yields its descriptor.

    A child that inherits the descriptor keeps the lock for as long as it lives: should we be killed, nobody builds in
    the folder while our orphan still does. ``report`` is told, again and again, for whom we wait; whatever it raises
    ends the waiting. With ``wait`` false, raises :class:`EnvironmentFault` that names the holder instead.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        while not _try(file):
            holder = _holder(file, name)
            if not wait:
                raise EnvironmentFault(f"{holder}; try again when it is done")
            report(Progress("wait", holder))
            time.sleep(LOOK_AGAIN_SECONDS)
        _write(file, {"pid": os.getpid(), "since": time.strftime("%H:%M:%S")})
        try:
            yield file.fileno()
        finally:
            _write(file, {})


def _try(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(file: IO[str], name: str) -> str:
    file.seek(0)
    try:
        who = json.loads(file.read())
        pid, since = who["pid"], who["since"]
    except (ValueError, KeyError):
        return f"another process is at runtime {name!r}"
    if _alive(pid):
        return f"process {pid} is at runtime {name!r} since {since}"
    return f"process {pid}, which was at runtime {name!r} since {since}, is gone, but its pip is still working"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _write(file: IO[str], who: dict[str, Any]) -> None:
    file.seek(0)
    file.truncate()
    file.write(json.dumps(who) if who else "")
    file.flush()
