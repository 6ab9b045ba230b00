"""Engine ids: short, legible, safe in a path and in a URL, and the same for the same configuration every time."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count

import attrs

from stoker.model import EngineSpec

LONGEST = 48
FALLBACK = "engine"

_ID = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{LONGEST - 1}}}")
_UNWANTED = re.compile(r"[^a-z0-9._]+")
_EDGES = "._-"


def is_engine_id(text: str) -> bool:
    """Whether ``text`` can be an engine id: lower case letters, digits and ``._-``, at most 48 of them."""
    return _ID.fullmatch(text) is not None


def base_id(spec: EngineSpec) -> str:
    """The id an engine of ``spec`` has when nobody else wants it: its label, or the last part of its model's name."""
    text = spec.label if spec.label is not None else spec.model.rstrip("/").rpartition("/")[2]
    slug = _UNWANTED.sub("-", text.lower()).strip(_EDGES)
    return slug[:LONGEST].rstrip(_EDGES) or FALLBACK


def expand(specs: Sequence[EngineSpec], taken: Collection[str] = ()) -> Mapping[str, EngineSpec]:
    """One spec for each engine that ``specs`` ask for, in order, by engine id; each has ``replicas=1``.

    The first engine has no number, so that a spec that gets more replicas keeps the engine it has; the others are
    numbered from 2. Earlier specs choose first, so that appending a spec renames nothing. No id is in ``taken``.
    """
    engines: dict[str, EngineSpec] = {}
    for spec in specs:
        candidates = _candidates(base_id(spec))
        for _ in range(spec.replicas):
            engine_id = next(free for free in candidates if free not in engines and free not in taken)
            engines[engine_id] = attrs.evolve(spec, replicas=1)
    return engines


def free_id(spec: EngineSpec, taken: Collection[str]) -> str:
    """The id for one more engine of ``spec`` beside those that are ``taken``."""
    return next(free for free in _candidates(base_id(spec)) if free not in taken)


def _candidates(base: str) -> Iterator[str]:
    yield base
    for number in count(2):
        suffix = f"-{number}"
        yield base[: LONGEST - len(suffix)].rstrip(_EDGES) + suffix
