"""The load guard of the affinity policies: consistent hashing with bounded loads, applied to any preference.

After Mirrokni, Thorup and Zadimoghaddam, https://arxiv.org/abs/1608.01350.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import attrs

from stoker.model import Candidate


@attrs.frozen
class LoadGuard:
    """How many requests an engine may have before affinity gives way to load.

    That is ``load_factor`` (at least 1) times its even share of all that are in flight, the new one among them, rounded
    up. ``slack`` requests are always allowed: engines answer a few at once as fast as one, so while there are few, a
    cache that is warm is worth more than balance.

    The share is the same for all engines. ``max_concurrency`` says what an engine bears, not how fast it is; one that
    is full isn't offered.
    """

    load_factor: float = 1.25
    slack: int = 4

    def limit(self, candidates: Sequence[Candidate]) -> int:
        """The requests one of ``candidates`` may have, the new one among them. At least one of them has fewer."""
        requests = 1
        for candidate in candidates:
            requests += candidate.in_flight
        return max(self.slack, math.ceil(self.load_factor * requests / len(candidates)))
