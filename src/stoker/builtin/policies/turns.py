"""Who had a turn when: what breaks ties."""

from __future__ import annotations


class Turns:
    """Remembers in which order engines last had their turn. Bounded: the longest unused are forgotten first."""

    def __init__(self, remembered: int = 4096) -> None:
        self._remembered = remembered
        self._last: dict[str, int] = {}
        self._count = 0

    def last(self, engine_id: str) -> int:
        """A number that grows with every turn taken; 0 for an engine that had none yet."""
        return self._last.get(engine_id, 0)

    def take(self, engine_id: str) -> None:
        """``engine_id`` had its turn now."""
        self._count += 1
        self._last.pop(engine_id, None)
        self._last[engine_id] = self._count
        if len(self._last) > self._remembered:
            del self._last[next(iter(self._last))]
