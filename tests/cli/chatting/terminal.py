"""Somebody at a terminal: types, reads what is shown, and presses Ctrl-C."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from typing import Any

import attrs

from tests.cli.conftest import SECONDS, Shell
from tests.e2e.running import until

CTRL_A, CTRL_C, CTRL_D = "\x01", "\x03", "\x04"
QUOTED = "\x16"  # Ctrl-V: the next key is meant as it is


@attrs.define(eq=False)
class Typist:
    """Who sits at it. ``drawn`` is all that was shown, as it came."""

    process: subprocess.Popen[bytes]
    _end: int
    drawn: bytes = b""
    _seen: int = 0
    _prompted: int = 0

    def type(self, text: str) -> None:
        """Press these keys."""
        os.write(self._end, text.encode())

    @property
    def modes(self) -> list[Any]:
        """How the terminal takes keys, as termios has it."""
        return termios.tcgetattr(self._end)

    @modes.setter
    def modes(self, modes: list[Any]) -> None:
        termios.tcsetattr(self._end, termios.TCSANOW, modes)

    def enter(self, *lines: str) -> None:
        """Type lines, each at a prompt."""
        for line in lines:
            self.until_prompt()
            self.type(f"{line}\n")

    def until(self, pattern: str) -> str:
        """Read on until there is something like that, and return all up to its end that was not returned before."""
        found = self._wait(pattern, self._seen)
        before, self._seen = self._seen, found.end()
        return found.string[before : found.end()]

    def until_prompt(self) -> None:
        """Wait until it waits for another line."""
        self._prompted = self._wait(r"(^|\n)(> |\. )\Z", self._prompted).end()

    def _wait(self, pattern: str, after: int) -> re.Match[str]:
        expression = re.compile(pattern)

        def there() -> re.Match[str] | None:
            ended = self.process.poll() is not None
            found = expression.search(self.text, after)
            assert found or not ended, f"it ended: {self.text!r}"
            return found

        try:
            return until(there, pattern, SECONDS)
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows {self.text!r}") from None

    def ends(self) -> int:
        """Its exit code, when it has ended."""
        return self.process.wait(SECONDS)

    @property
    def text(self) -> str:
        """What is shown, without styles and without what an editor of lines tells its terminal."""
        shown = self.drawn.decode(errors="replace").replace("\r\n", "\n")
        return re.sub(r"\x1b\[(\?2004[hl]|[0-9;]*m|K|C)\r?|\r", "", shown)

    def read_to_the_end(self) -> None:
        with contextlib.suppress(OSError):  # that is how the end of a terminal looks
            while data := os.read(self._end, 4096):
                self.drawn += data


@contextlib.contextmanager
def at_a_terminal(shell: Shell, *arguments: str, **environ: str) -> Iterator[Typist]:
    """``stoker chat`` on a terminal of its own, which has Ctrl-C as terminals have it."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
    given = shell.environ({"TERM": "xterm", "INPUTRC": os.devnull, **environ})
    process = subprocess.Popen(
        [sys.executable, "-m", "stoker", "chat", *arguments],
        cwd=shell.folder,
        env={name: value for name, value in given.items() if name != "COLUMNS"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    typist = Typist(process, ours)
    reader = threading.Thread(target=typist.read_to_the_end)
    reader.start()
    try:
        yield typist
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)
