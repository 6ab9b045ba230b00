"""Follows an engine's log, over its restarts and over those of the gateway."""

from __future__ import annotations

import re
import sys
import time

import attrs

from stoker.cli.activity import warn
from stoker.cli.client import connect, engine_path
from stoker.errors import NotFoundError, StokerError

RETURN_SECONDS = 30.0  # how long a gateway may be away
PAUSE_SECONDS = 0.3
RESUMED_LINES = 300
REMEMBERED = 2000  # characters
# What Stoker writes into an engine's log before each of its starts
HEADING = re.compile(r"^--- stoker: (?P<engine>\S+), incarnation (?P<number>\d+): ")


def follow(engine_id: str, tail: int) -> None:
    """Print the last ``tail`` lines and whatever is added, until Ctrl-C. What interrupts it is said on standard error.

    Raises StokerError where it can't begin, where the engine is gone, and where the gateway does not come back.
    """
    printer = Printer()
    gone_since: float | None = None
    while True:
        began = printer.began
        try:
            with connect() as client:
                lines = RESUMED_LINES if began else tail
                for number, text in enumerate(client.text(engine_path(engine_id, "logs"), tail=lines, follow=1)):
                    if gone_since is not None:
                        warn(f"stoker: the gateway is back after {time.monotonic() - gone_since:.0f} s")
                        gone_since = None
                    printer.take(text, resumed=began and number == 0, live=began or number > 0)
        except NotFoundError:
            raise
        except StokerError:  # it ends, is gone, or is not quite there yet
            if not printer.began or (gone_since is not None and time.monotonic() - gone_since > RETURN_SECONDS):
                raise
        if gone_since is None:
            gone_since = time.monotonic()
            warn("stoker: the gateway has ended the log; waiting for it to come back")
        time.sleep(PAUSE_SECONDS)


@attrs.define
class Printer:
    """Prints pieces of one log, none twice, and remarks on every start of the engine among those that are ``live``."""

    began: bool = False
    _printed: str = ""
    _line: str = ""

    def take(self, text: str, *, resumed: bool, live: bool) -> None:
        """The next piece; with ``resumed`` it begins with what may have been printed already."""
        self.began = True
        if resumed:
            text = unseen(text, self._printed)
        self._printed = (self._printed + text)[-REMEMBERED:]
        *lines, self._line = (self._line + text).split("\n")
        sys.stdout.write(text)
        sys.stdout.flush()
        for line in lines if live else ():
            if heading := HEADING.match(line):
                warn(f"stoker: {heading['engine']} is started again (incarnation {heading['number']})")


def unseen(text: str, printed: str) -> str:
    """What of ``text`` comes after ``printed``; all of it where that is not in there."""
    if not printed:
        return text
    place = text.rfind(printed)
    if place >= 0:
        return text[place + len(printed) :]
    # The end of what was printed may be all that is left of it: the piece is shorter than what is remembered.
    longest = next((size for size in range(min(len(text), len(printed)), 0, -1) if printed.endswith(text[:size])), 0)
    return text[longest:]
