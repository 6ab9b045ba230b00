"""What a client probably meant that asks for a model which isn't there; a flood of such names stays cheap."""

from __future__ import annotations

from collections.abc import Callable, Collection

import attrs
import trio

from stoker.suggesting import suggestion_and_all, there_are

SHARE = 0.05  # of the time
AT_ONCE_SECONDS = 0.02


@attrs.define(eq=False)
class Guesses:
    """Compares names, which takes milliseconds where there are hundreds, for a small share of the time.

    Who asks when that is used up is told what there is. ``clock`` gives monotonic seconds.
    """

    clock: Callable[[], float] = trio.current_time
    _used: float = 0.0
    _as_of: float = float("-inf")

    def about(self, name: str, known: Collection[str]) -> str:
        """The end of a sentence about ``name``: what was probably meant, and what there is."""
        began = self.clock()
        self._used = max(0.0, self._used - SHARE * (began - self._as_of))
        self._as_of = began
        if self._used >= AT_ONCE_SECONDS:
            return there_are(known)
        text = suggestion_and_all(name, known)
        self._used += self.clock() - began
        return text
