"""Says what is going on while a command waits: a line that changes on a terminal, plain lines elsewhere.

All of it goes to standard error; standard output is for results.
"""

from __future__ import annotations

import contextlib
import sys
import time
from types import TracebackType

from rich.markup import escape
from rich.status import Status

from stoker.cli.output import cell, duration
from stoker.cli.terminal import can_redraw, console

POLL_SECONDS = 0.1


class Activity:
    """A context manager around the waiting. ``about`` is what is being waited for."""

    def __init__(self, about: str) -> None:
        self._about = about
        self._console = console(stderr=True)
        self._status: Status | None = None
        self._since = time.monotonic()
        self._said: set[str] = set()

    def __enter__(self) -> Activity:
        if can_redraw(self._console):
            self._status = self._console.status(escape(self._about))
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, line: str) -> None:
        """A line that stays, unless it was said already."""
        if line not in self._said:
            self._said.add(line)
            self._console.print(line, markup=False, soft_wrap=True)

    def update(self, detail: str = "", fraction: float | None = None) -> None:
        """How it is at this moment, and how much of that is done, if known; only a terminal shows it."""
        if self._status is not None:
            waited = duration(time.monotonic() - self._since)
            drawn = "" if fraction is None else f"{bar(fraction)} "
            room = max(20, self._console.width - 8)
            self._status.update(escape(f"{self._about} ({waited}) {drawn}{cell(detail)}"[:room]))

    def pause(self) -> None:
        """Wait a moment before looking again."""
        time.sleep(POLL_SECONDS)


def bar(fraction: float, width: int = 20) -> str:
    """A bar of that many cells, filled so far."""
    done = round(min(max(fraction, 0.0), 1.0) * width)
    return "━" * done + "─" * (width - done)


def warn(message: str) -> None:
    """A remark for people, on standard error."""
    with contextlib.suppress(BrokenPipeError):
        print(message, file=sys.stderr, flush=True)
