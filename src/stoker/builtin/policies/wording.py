"""How policies speak of engines when they explain themselves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from stoker.model import Candidate

NAMED = 4


def requests(count: int) -> str:
    """``1 request in flight``, ``2 requests in flight``."""
    return f"{count} request{'' if count == 1 else 's'} in flight"


def listed(things: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``; after a few: ``a, b, c, d and 9 more``."""
    if len(things) > NAMED + 1:
        things = [*things[:NAMED], f"{len(things) - NAMED} more"]
    return " and ".join(filter(None, (", ".join(things[:-1]), things[-1])))


def ids(candidates: Iterable[Candidate]) -> str:
    """The ids of the engines, as :func:`listed`."""
    return listed([candidate.engine_id for candidate in candidates])


def loads(candidates: Iterable[Candidate]) -> str:
    """``a has 3, b has 5``, the least loaded first."""
    by_load = sorted(candidates, key=lambda candidate: candidate.in_flight)
    return listed([f"{candidate.engine_id} has {candidate.in_flight}" for candidate in by_load])


def only(candidate: Candidate) -> str:
    """What every policy says of a choice that is none."""
    return f"engine {candidate.engine_id} is the only one that can take the request"
