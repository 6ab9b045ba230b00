"""Processes that an engine leaves behind: each by its own way of leaving. To be called before any thread runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import NoReturn

from stoker.testing.fake_engine.faults import Faults

LIFETIME_SECONDS = 600  # nothing a test forgets stays for ever


def leave_processes(faults: Faults) -> tuple[int, ...]:
    """Start what ``faults`` ask for; their pids."""

    def linger() -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if faults.ignore_sigterm else signal.SIG_DFL)
        signal.alarm(LIFETIME_SECONDS)
        while True:
            signal.pause()

    def own_session() -> NoReturn:
        os.setsid()
        linger()

    pids: list[int] = []
    if faults.child:
        pids.append(_fork(linger))
    if faults.setsid_grandchild:
        pids.extend(_fork_twice(own_session, then=linger))
    if faults.double_fork:
        middle, daemon = _fork_twice(own_session, then=lambda: os._exit(0))
        os.waitpid(middle, 0)
        pids.append(daemon)
    return tuple(pids)


def _fork(live: Callable[[], NoReturn]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            live()
        finally:
            os._exit(1)  # whatever happens, never back into the parent's code
    return pid


def _fork_twice(live: Callable[[], NoReturn], then: Callable[[], NoReturn]) -> tuple[int, int]:
    """A child that forks ``live`` and goes on as ``then``: the pids of both."""
    reading, writing = os.pipe()

    def middle() -> NoReturn:
        os.write(writing, str(_fork(live)).encode())
        os.close(writing)
        then()

    child = _fork(middle)
    os.close(writing)
    grandchild = int(os.read(reading, 16))
    os.close(reading)
    return child, grandchild
