"""Families of samples, as Prometheus has them: each with its name, its help and its labels."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Literal, cast

import attrs
from prometheus_client import Metric
from prometheus_client.samples import Sample

from stoker.gateway.measures import Histogram

SAMPLES_AT_ONCE = 50
BREATH_SECONDS = 0.001

_SUFFIXES = {"counter": "_total", "info": "_info"}

Labels = tuple[str, ...]
"""The values of a family's labels, in their order."""


@attrs.frozen
class Family:
    """One family. ``name`` is what stands in queries, ``meaning`` its ``# HELP``; ``more`` is said by the manual alone.

    Of a histogram, ``bounds`` are the upper bounds of its buckets in seconds, and ``closest`` says why they are these.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram", "info"]
    labels: Labels
    meaning: str
    more: str = ""
    unit: str = attrs.field(default="", kw_only=True)
    bounds: tuple[float, ...] = attrs.field(default=(), kw_only=True)
    closest: str = attrs.field(default="", kw_only=True)

    def of(self, values: Iterable[tuple[Labels, float]]) -> Metric:
        """The family with these samples, to be gone through once."""
        return self._filled(Sample(self.name, self._named(labels), value) for labels, value in values)

    def observed(self, values: Iterable[tuple[Labels, Histogram]]) -> Metric:
        """The family, a histogram, with these observations, to be gone through once."""
        return self._filled(sample for labels, each in values for sample in self._buckets(self._named(labels), each))

    def _named(self, labels: Labels) -> dict[str, str]:
        return {name: _text(value) for name, value in zip(self.labels, labels, strict=True)}

    def _buckets(self, labels: dict[str, str], observed: Histogram) -> Iterator[Sample]:
        bounds = (*map(str, observed.bounds), "+Inf")
        for bound, count in zip(bounds, accumulate(observed.counts), strict=True):
            yield Sample(f"{self.name}_bucket", {**labels, "le": bound}, count)
        yield Sample(f"{self.name}_count", labels, sum(observed.counts))
        yield Sample(f"{self.name}_sum", labels, observed.total)

    def _filled(self, samples: Iterable[Sample]) -> Metric:
        metric = Metric(self.name.removesuffix(_SUFFIXES.get(self.kind, "")), self.meaning, self.kind, self.unit)
        metric.samples = cast("list[Sample]", _unhurried(samples))  # all that is done to them is to go through them
        return metric


def _unhurried(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Pause again and again: a thread that has much to do lets the event loop run only once in five milliseconds."""
    for index, sample in enumerate(samples):
        if index % SAMPLES_AT_ONCE == SAMPLES_AT_ONCE - 1:
            time.sleep(BREATH_SECONDS)
        yield sample


def _text(value: str) -> str:
    """``value``, or what can be written of it: half a surrogate pair in one name must not spoil the whole page."""
    return value.encode(errors="replace").decode()
