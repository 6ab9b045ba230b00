"""How the built-in policies do on the simulated fleet. Those of chance are seeded."""

from __future__ import annotations

import random
from collections.abc import Callable

from drawing.marks import Parts
from stoker.builtin.policies import AtRandom, LeastLoad, PowerOfTwo, PrefixAffinity, RoundRobin, SessionAffinity
from stoker.contracts import RoutingPolicy
from stoker.testing.comparing import compare


def _simulated() -> str:
    policies: list[Callable[[], RoutingPolicy]] = [
        RoundRobin,
        lambda: AtRandom(random.Random(1)),  # noqa: S311
        LeastLoad,
        lambda: PowerOfTwo(random.Random(1)),  # noqa: S311
        SessionAffinity,
        PrefixAffinity,
    ]
    return compare(policies)


PARTS: Parts = {"simulated": _simulated}
