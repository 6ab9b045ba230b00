"""The families of ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from drawing.marks import Parts
from drawing.prose import table
from stoker.web.declared import OF_ENGINES, OF_REQUESTS, OF_THE_GATEWAY
from stoker.web.families import Family


def _families(families: Iterable[Family]) -> str:
    rows = (
        (f"`{each.name}`", each.kind, ", ".join(f"`{label}`" for label in each.labels), f"{each.meaning} {each.more}")
        for each in families
    )
    return table(("metric", "type", "labels", "meaning"), rows)


def _buckets() -> str:
    rows = (
        (f"`{each.name}`", ", ".join(f"{bound:g}" for bound in each.bounds), each.closest)
        for each in OF_REQUESTS
        if each.bounds
    )
    return table(("metric", "buckets", "why"), rows)


PARTS: Parts = {
    "requests": partial(_families, OF_REQUESTS),
    "engines": partial(_families, OF_ENGINES),
    "gateway": partial(_families, OF_THE_GATEWAY),
    "buckets": _buckets,
}
