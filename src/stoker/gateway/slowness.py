"""When a policy is too slow, told apart from a machine that is busy.

A call that takes longer than :data:`MOST_SECONDS` holds up every request, so a policy that does it
:data:`MOST_STRIKES` times within :data:`REMEMBERED_SECONDS` is out, however many quick calls lie between. But the
gateway itself may be interrupted in the middle of a call of a microsecond, so that every policy looks slow now and
then. What tells these accidents apart costs 1.5 µs a call. So nobody looks until there was a slow call, which counts
without proof; from then on, for as long as it is remembered, every slow call is judged:

- The thread computed all that time: the policy's own doing.
- The processor was taken away, and the thread never gave it up: no strike.
- The thread gave it up while the rest of Stoker stood still: the policy slept or waited.
- The thread gave it up while other threads of Stoker computed. That may be the policy's doing. But the interpreter runs
  one thread at a time and makes each give way to the others every 5 ms, wherever it is; a policy that is called often
  is hit by this often, and on a busy machine the other thread may itself wait for a processor. So it is a strike, and
  :data:`FORGIVEN_AFTER` quick calls in a row make up for it.
"""

from __future__ import annotations

import enum
import resource
from time import perf_counter, process_time, thread_time

MOST_SECONDS = 0.005
MOST_STRIKES = 3
REMEMBERED_SECONDS = 3600.0
FORGIVEN_AFTER = 100
STILL_SECONDS = 0.00002  # less than a thread needs to notice that it has to give way

_THREAD = getattr(resource, "RUSAGE_THREAD", None)  # Linux


class _Whose(enum.Enum):
    """Whose doing a slow call was."""

    THE_POLICYS = enum.auto()
    THE_MACHINES = enum.auto()
    DOUBTFUL = enum.auto()


class Slowness:
    """Watches the calls of one policy: ``began = begin()`` before each, ``end(began)`` after it."""

    __slots__ = ("_blocked", "_by_all", "_computed", "_doubtful", "_quick", "_sure", "_watched_until")

    def __init__(self) -> None:
        self._sure: list[float] = []
        self._doubtful = 0
        self._quick = 0
        self._watched_until = float("-inf")
        self._computed = 0.0
        self._by_all = 0.0
        self._blocked = 0

    def begin(self) -> float:
        """The time at which a call begins."""
        began = perf_counter()
        if began < self._watched_until:
            self._computed, self._by_all, self._blocked = thread_time(), process_time(), _times_blocked()
        return began

    def end(self, began: float) -> bool:
        """The call is over. Whether it was too slow, which is a strike."""
        now = perf_counter()
        if now - began > MOST_SECONDS:
            return self._is_strike(began, now)
        if self._doubtful:
            self._quick += 1
            if self._quick >= FORGIVEN_AFTER:
                self._doubtful = 0
        return False

    @property
    def strikes(self) -> int:
        """How many count as of the last one."""
        return len(self._sure) + self._doubtful

    @property
    def too_often(self) -> bool:
        """Whether it is time to do without the policy."""
        return self.strikes >= MOST_STRIKES

    def _is_strike(self, began: float, now: float) -> bool:
        was_watched = began < self._watched_until
        self._watched_until = now + REMEMBERED_SECONDS
        self._sure = [at for at in self._sure if now - at < REMEMBERED_SECONDS]
        whose = self._whose() if was_watched else _Whose.THE_POLICYS
        if whose is _Whose.THE_POLICYS:
            self._sure.append(now)
        elif whose is _Whose.DOUBTFUL:
            self._doubtful += 1
            self._quick = 0
        return whose is not _Whose.THE_MACHINES

    def _whose(self) -> _Whose:
        """Who took the time of a call that was watched."""
        computed = thread_time() - self._computed
        if computed > MOST_SECONDS:
            return _Whose.THE_POLICYS
        if _THREAD is None:
            return _Whose.DOUBTFUL
        if _times_blocked() == self._blocked:
            return _Whose.THE_MACHINES
        by_others = process_time() - self._by_all - computed
        return _Whose.THE_POLICYS if by_others < STILL_SECONDS else _Whose.DOUBTFUL


def _times_blocked() -> int:
    return 0 if _THREAD is None else resource.getrusage(_THREAD).ru_nvcsw
