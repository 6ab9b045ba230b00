"""Reads lines from a terminal: with editing and a history where Python has ``readline``, and without where not."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import termios
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import attrs

LONGEST_HISTORY = 1000
_DELIMITERS = " \t\n"


@attrs.define
class Lines:
    """The lines that somebody types. ``styled`` says whether a prompt may be more than text."""

    styled: bool
    _readline: ModuleType | None = None
    _history: Path | None = None

    def read(self, prompt: str) -> str:
        """The next line. Raises EOFError for Ctrl-D, and KeyboardInterrupt."""
        if self._readline is None:
            return input(prompt)
        prompt = f"\001\033[1m\002{prompt}\001\033[0m\002" if self.styled else prompt
        with _drawn_again_after_a_stop(self._readline, prompt):
            return input(prompt)

    def remember(self, line: str) -> None:
        """Keep a line in the history, unless it is the last one again, empty, or begins with a space."""
        if self._readline is None or not line.strip() or line.startswith(" "):
            return
        length = self._readline.get_current_history_length()
        if length and self._readline.get_history_item(length) == line:
            return
        self._readline.add_history(line)
        if self._history is not None:
            try:
                self._readline.append_history_file(1, self._history)
            except OSError:  # a full disk: it is not worth the conversation
                self._history = None


def open_lines(history: Path, *, styled: bool, dumb: bool, complete: Callable[[str], Sequence[str]]) -> Lines:
    """Lines of a terminal, with the history in that file. ``complete`` gives what the last word may become.

    A history that can't be read or written is no reason to fail: then there is none beyond this sitting.
    """
    readline = None if dumb else _readline()
    if readline is None:
        return Lines(styled)
    readline.set_auto_history(False)
    readline.set_history_length(LONGEST_HISTORY)
    readline.set_completer_delims(_DELIMITERS)
    readline.set_completer(_completer(readline, complete))
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
    try:
        _make_private(history)
        readline.read_history_file(history)
    except OSError:
        return Lines(styled, readline)
    return Lines(styled, readline, history)


@contextlib.contextmanager
def _drawn_again_after_a_stop(readline: ModuleType, prompt: str) -> Iterator[None]:
    """Go on editing the line after Ctrl-Z and ``fg``: Python's readline leaves the terminal as the shell had it.

    Only the main thread may use it, as only there signals have handlers.
    """
    visible = re.sub("[\001\002]", "", prompt)  # without readline's marks of what takes no room
    modes: list[list[Any]] = []

    def remember() -> None:
        modes[:] = [termios.tcgetattr(sys.stdin)]

    def go_on(_signal: int, _frame: FrameType | None) -> None:
        if modes:
            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, modes[0])
            print(f"\r{visible}{readline.get_line_buffer()}", end="", flush=True)

    readline.set_pre_input_hook(remember)  # called when the terminal is as the editing needs it
    before = signal.signal(signal.SIGCONT, go_on)
    try:
        yield
    finally:
        signal.signal(signal.SIGCONT, before)
        readline.set_pre_input_hook()


def _readline() -> ModuleType | None:
    try:
        import readline
    except ImportError:  # a Python that was built without it
        return None
    return readline


def _make_private(path: Path) -> None:
    """See to it that the file is there, and its owner's alone: questions are nobody else's business."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.fchmod(descriptor, 0o600)
    finally:
        os.close(descriptor)


def _completer(readline: ModuleType, complete: Callable[[str], Sequence[str]]) -> Callable[[str, int], str | None]:
    def completer(_: str, state: int) -> str | None:
        begun = readline.get_line_buffer()[: readline.get_endidx()]
        found = complete(begun)
        return found[state] if state < len(found) else None

    return completer
