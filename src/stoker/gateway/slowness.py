"""When a policy is too slow, told apart from a machine that is busy.

A call that takes longer than :data:`MOST_SECONDS` holds up every request, so a policy that does it
:data:`MOST_STRIKES` times is out. But the gateway itself may be preempted in the middle of a call of a microsecond, so
that every policy looks slow now and then. Two things keep such accidents from adding up. From the first slow call on,
one counts only if the thread computed all that time or gave the processor up itself, as who sleeps or waits does; not
if it was taken away. And :data:`FORGIVEN_AFTER` quick calls in a row make a clean slate.
"""

from __future__ import annotations

import resource
from time import perf_counter, thread_time

MOST_SECONDS = 0.005
MOST_STRIKES = 3
FORGIVEN_AFTER = 100

_THREAD = getattr(resource, "RUSAGE_THREAD", None)  # Linux


class Slowness:
    """Watches the calls of one policy: ``began = begin()`` before each, ``end(began)`` after it."""

    __slots__ = ("_blocked", "_computed", "_quick", "strikes")

    def __init__(self) -> None:
        self.strikes = 0
        self._quick = 0
        self._computed = 0.0
        self._blocked = 0

    def begin(self) -> float:
        """The time at which a call begins."""
        if self.strikes:
            self._computed, self._blocked = thread_time(), _times_blocked()
        return perf_counter()

    def end(self, began: float) -> bool:
        """The call is over. Whether it was too slow, which is a strike."""
        if perf_counter() - began <= MOST_SECONDS:
            if self.strikes:
                self._quick += 1
                if self._quick >= FORGIVEN_AFTER:
                    self.strikes = 0
            return False
        if self.strikes and not self._was_its_own():
            return False
        self.strikes += 1
        self._quick = 0
        return True

    @property
    def too_often(self) -> bool:
        """Whether it is time to do without the policy."""
        return self.strikes >= MOST_STRIKES

    def _was_its_own(self) -> bool:
        computed = thread_time() - self._computed
        return _THREAD is None or computed > MOST_SECONDS or _times_blocked() > self._blocked


def _times_blocked() -> int:
    return 0 if _THREAD is None else resource.getrusage(_THREAD).ru_nvcsw
