"""The retry budget: retries may be a share of the requests, so that failing engines aren't buried under them.

After the retry budget of Finagle (Twitter, 2016), a token bucket. A request puts a fraction of a token in, a retry
takes one out. A reserve, refilled with time, lets the requests through that an engine's sudden death hits at once,
also while there have been few requests.
"""

from __future__ import annotations

from collections.abc import Callable

RESERVE = 100
RESERVE_PER_SECOND = 10
MOST = 1000


class RetryBudget:
    """``ratio`` is the share of requests that may be retried; 0 forbids retries. ``clock`` gives monotonic seconds."""

    def __init__(self, ratio: float, clock: Callable[[], float]) -> None:
        self._ratio = ratio
        self._clock = clock
        self._tokens: float = RESERVE
        self._refilled_at = clock()

    def deposit(self) -> None:
        """A request came."""
        if self._tokens < MOST:
            self._tokens += self._ratio

    def withdraw(self) -> bool:
        """Whether one more retry is affordable, and if so, pay for it."""
        now = self._clock()
        if self._tokens < RESERVE:
            self._tokens = min(RESERVE, self._tokens + (now - self._refilled_at) * RESERVE_PER_SECOND)
        self._refilled_at = now
        if self._ratio <= 0 or self._tokens < 1:
            return False
        self._tokens -= 1
        return True
