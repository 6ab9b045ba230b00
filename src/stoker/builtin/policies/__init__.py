"""The policies that come with Stoker: by load, in turn, at random, by session, by prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence

from stoker.builtin.policies.blind import AtRandom, RoundRobin
from stoker.builtin.policies.by_load import LeastLoad, PowerOfTwo
from stoker.builtin.policies.prefix_affinity import PrefixAffinity
from stoker.builtin.policies.session_affinity import SessionAffinity
from stoker.builtin.policies.turns import Turns
from stoker.contracts import RoutingPolicy
from stoker.hookspecs import hookimpl

__all__ = [
    "AtRandom",
    "LeastLoad",
    "PowerOfTwo",
    "PrefixAffinity",
    "RoundRobin",
    "SessionAffinity",
    "Turns",
    "stoker_register_policies",
]


@hookimpl
def stoker_register_policies() -> Sequence[RoutingPolicy]:
    """New policies each time: they hold state, and nobody else's."""
    chance = random.Random()  # noqa: S311 - spreads load, guards nothing
    return [LeastLoad(), RoundRobin(), AtRandom(chance), PowerOfTwo(chance), SessionAffinity(), PrefixAffinity()]
