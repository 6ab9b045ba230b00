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

from stoker.cli.output import duration
from stoker.cli.pages import can_redraw, console

POLL_SECONDS = 0.1


class Activity:
    """A context manager around the waiting. ``about`` is what is being waited for."""

    def __init__(self, about: str) -> None:
        self._about = about
        self._console = console(stderr=True)
        self._status: Status | None = None
        self._since = time.monotonic()
        self._said = ""

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
        """A line that stays, unless it was the last one said too."""
        if line != self._said:
            self._said = line
            self._console.print(line, markup=False, soft_wrap=True)

    def update(self, detail: str = "") -> None:
        """How it is at this moment; only a terminal shows that."""
        if self._status is not None:
            waited = duration(time.monotonic() - self._since)
            room = max(20, self._console.width - 8)
            self._status.update(escape(f"{self._about} ({waited}) {detail}"[:room]))

    def pause(self) -> None:
        """Wait a moment before looking again."""
        time.sleep(POLL_SECONDS)


def warn(message: str) -> None:
    """A remark for people, on standard error."""
    with contextlib.suppress(BrokenPipeError):
        print(message, file=sys.stderr, flush=True)
