"""What a client of HTTP/2 may ask for that costs it nothing: a budget of frames."""

from __future__ import annotations

MOST_CREDIT = 1000
CREDIT_PER_SECOND = 100
CREDIT_OF_AN_ANSWER = 8  # and of each frame of its body: the client acknowledges those
COST_OF_A_RESET = 5
SMALL_DATA = 256  # bytes; from here on a frame of a body is paid for by what it brings

_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_HEAD = 9
_DATA, _RST_STREAM = 0, 3


class FrameBudget:
    """Counts the frames in what comes, before anybody takes the trouble to read them.

    Every frame costs: it is work for us, and for the client nine bytes. What is answered earns credit again, and so
    does time. So pings, settings, priorities, windows, resets and empty frames, in any mixture, may be as many as the
    requests they belong to make plausible, and a flood is over the budget soon. ``now`` is monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._credit: float = MOST_CREDIT
        self._at = now
        self._skip = _PREFACE
        self._head = b""

    def earn(self) -> None:
        """A part of an answer, or all of it, was sent."""
        self._credit = min(self._credit + CREDIT_OF_AN_ANSWER, MOST_CREDIT)

    def allows(self, data: bytes, now: float) -> bool:
        """Pay for the frames that begin in ``data``. Says whether there was credit for them."""
        self._credit = min(self._credit + (now - self._at) * CREDIT_PER_SECOND, MOST_CREDIT)
        self._at = now
        at = 0
        while at < len(data):
            if self._skip:
                step = min(self._skip, len(data) - at)
                self._skip -= step
                at += step
                continue
            piece = data[at : at + _HEAD - len(self._head)]
            self._head += piece
            at += len(piece)
            if len(self._head) == _HEAD:
                self._pay()
        return self._credit >= 0

    def _pay(self) -> None:
        length, kind = int.from_bytes(self._head[:3], "big"), self._head[3]
        self._head, self._skip = b"", length
        if kind == _RST_STREAM:
            self._credit -= COST_OF_A_RESET
        elif kind != _DATA or length < SMALL_DATA:
            self._credit -= 1
