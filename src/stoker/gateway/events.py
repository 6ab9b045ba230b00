"""Server-sent events, as far as relaying needs them: where one ends, and whether it speaks of an error."""

from __future__ import annotations

import re

HELD_AT_MOST = 64 * 1024
_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_ERROR = re.compile(rb'^data: ?\{"error"', re.MULTILINE)


class EventGate:
    """Lets whole events through and holds back the beginning of the next one.

    So nothing half said is relayed of an engine that dies. An event longer than ``HELD_AT_MOST`` is let through in
    pieces; ``torn`` is true while one is.
    """

    def __init__(self) -> None:
        self.torn = False
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What can be relayed now, maybe nothing."""
        held = self._held
        if data.endswith(b"\n\n"):  # nearly every time: an engine writes event by event
            self._held = b""
            self.torn = False
            return held + data if held else data
        joined = held + data
        known = max(0, len(held) - 3)  # there was no end in what was held, but one may have begun there
        cut = max(_end(joined, mark, known) for mark in _EVENT_ENDS)
        if cut:
            self.torn = False
        if len(joined) - cut > HELD_AT_MOST:
            self.torn = True
            cut = len(joined)
        self._held = joined[cut:]
        return joined[:cut]

    def rest(self) -> bytes:
        """What is held back, when the stream has ended as it should."""
        rest, self._held = self._held, b""
        return rest


def _end(data: bytes, mark: bytes, start: int) -> int:
    found = data.rfind(mark, start)
    return found + len(mark) if found >= 0 else 0


def speaks_of_error(events: bytes) -> bool:
    """Whether one of the events is an error object, as engines send when their insides die in mid-stream."""
    return b'{"error"' in events and _ERROR.search(events) is not None
