"""What the data plane measures, in plain numbers: that costs so little that every request and every piece is measured.

All of it belongs to the thread of the event loop; another thread is given a :class:`Snapshot`. Nothing is ever
forgotten, as Prometheus likes it, so the label sets are bounded: when there are as many as there may be, new ones are
counted together, under :data:`OTHER`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping

import attrs

from stoker.gateway.paths import EXACT
from stoker.gateway.usage import Usage

OTHER = "other"
MOST_LABEL_SETS = 2_000
"""How many (model, engine, path), and how many (model, engine): a page of them is made in seconds."""
MOST_REQUEST_SETS = 10_000
"""How many of those with a status besides."""


def _bounds(seconds: str) -> tuple[float, ...]:
    return tuple(map(float, seconds.split()))


# Why these: stoker.web.declared says it.
DURATION_BOUNDS = _bounds("0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10 15 30 60 120 300 600")
FIRST_BYTE_BOUNDS = _bounds("0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.2 0.3 0.5 1 2 5 10 30 60 120")
GAP_BOUNDS = _bounds("0.001 0.0025 0.005 0.01 0.015 0.02 0.03 0.04 0.05 0.075 0.1 0.15 0.25 0.5 1 2.5 5 10")

_AUDIO = frozenset({"/v1/audio/speech", "/v1/audio/transcriptions", "/v1/audio/translations"})
_IMAGES = frozenset({"/v1/images/edits", "/v1/images/generations", "/v1/images/variations"})
_KNOWN_PATHS = EXACT | _AUDIO | _IMAGES


class Histogram:
    """How many observations fell into which bucket.

    ``bounds`` are the buckets' upper bounds, which belong to them; ``counts`` has one more, for all that is greater.
    ``total`` is the sum of the observations.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def copy(self) -> Histogram:
        """The same numbers, which stay."""
        copy = Histogram(self.bounds)
        copy.counts = self.counts.copy()
        copy.total = self.total
        return copy


@attrs.define(eq=False)
class Times:
    """How long requests of one (model, engine, path) took: until the end of the answer, and until its first byte."""

    duration: Histogram = attrs.field(factory=lambda: Histogram(DURATION_BOUNDS))
    first_byte: Histogram = attrs.field(factory=lambda: Histogram(FIRST_BYTE_BOUNDS))


@attrs.define(eq=False)
class Traffic:
    """What went between clients and one (model, engine). ``gaps`` are the times between two pieces of a stream."""

    gaps: Histogram = attrs.field(factory=lambda: Histogram(GAP_BOUNDS))
    received_bytes: int = 0
    sent_bytes: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


@attrs.define(eq=False)
class _Requests:
    """Those of one (model, engine, path, status); the times are shared with the other statuses."""

    times: Times
    count: int = 0


@attrs.frozen
class Snapshot:
    """What was measured up to a moment, by label values. Nothing of it changes any more.

    The keys are ``(model, engine_id, path, status)`` of requests, ``(model, engine_id, path)`` of times and ``(model,
    engine_id)`` of traffic.
    """

    requests: Mapping[tuple[str, str, str, int], int]
    times: Mapping[tuple[str, str, str], Times]
    traffic: Mapping[tuple[str, str], Traffic]
    connections: int
    connections_accepted: int
    contained_failures: int


class Measures:
    """Counts and adds up. All calls come from the event loop, and none of them fails.

    ``model`` is everywhere the model that the engines load (their spec's ``model``), whichever of its names the client
    used, and ``""`` for a name that the gateway doesn't serve: it is the client's invention. ``connections`` are those
    of clients that are open, ``connections_accepted`` all there ever were, and ``contained_failures`` defects that were
    kept within one of them; the server counts these three by itself.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.connections_accepted = 0
        self.contained_failures = 0
        self._requests: dict[tuple[str, str, str, int], _Requests] = {}
        self._times: dict[tuple[str, str, str], Times] = {}
        self._traffic: dict[tuple[str, str], Traffic] = {}

    def finished(
        self, model: str, engine_id: str, path: str, status: int, seconds: float, first_byte_seconds: float | None
    ) -> None:
        """A request is over, after ``seconds`` since its head was read.

        ``engine_id`` is that of the engine that answered, or of the last one tried if none could, and ``""`` if none
        was reached. ``status`` is 499, as nginx has it, if the client went away before the end. ``first_byte_seconds``
        is None if it got no byte.
        """
        requests = self._requests.get((model, engine_id, path, status))
        if requests is None:
            requests = self._first_of(model, engine_id, path, status)
        requests.count += 1
        times = requests.times
        times.duration.observe(seconds)
        if first_byte_seconds is not None:
            times.first_byte.observe(first_byte_seconds)

    def gaps(self, model: str, engine_id: str) -> Histogram:
        """Where the relay of a stream tells the time between each piece and the one before it."""
        return self._traffic_of(model, engine_id).gaps

    def relayed(self, model: str, engine_id: str, received_bytes: int, sent_bytes: int) -> None:
        """Bytes of bodies passed: received from a client for the engine, and sent to the client from the engine."""
        traffic = self._traffic_of(model, engine_id)
        traffic.received_bytes += received_bytes
        traffic.sent_bytes += sent_bytes

    def tokens(self, model: str, engine_id: str, usage: Usage) -> None:
        """The engine reported this of one answer."""
        traffic = self._traffic_of(model, engine_id)
        traffic.prompt_tokens += usage.prompt_tokens
        traffic.completion_tokens += usage.completion_tokens

    def snapshot(self) -> Snapshot:
        """All of it as it is now, for another thread to read."""
        return Snapshot(
            {key: requests.count for key, requests in self._requests.items()},
            {key: Times(times.duration.copy(), times.first_byte.copy()) for key, times in self._times.items()},
            {key: attrs.evolve(traffic, gaps=traffic.gaps.copy()) for key, traffic in self._traffic.items()},
            self.connections,
            self.connections_accepted,
            self.contained_failures,
        )

    def _first_of(self, model: str, engine_id: str, path: str, status: int) -> _Requests:
        """Of requests that were not met before, or that are counted under other labels than their own."""
        if not engine_id and path not in _KNOWN_PATHS:  # anything may stand behind /v1/audio/
            path = OTHER
        labels = (model, engine_id, path)
        full = len(self._times) >= MOST_LABEL_SETS and labels not in self._times
        if full or len(self._requests) >= MOST_REQUEST_SETS:
            labels = (OTHER, OTHER, OTHER)
        requests = self._requests.get((*labels, status))
        if requests is None:
            times = self._times.get(labels)
            if times is None:
                times = self._times[labels] = Times()
            requests = self._requests[*labels, status] = _Requests(times)
        return requests

    def _traffic_of(self, model: str, engine_id: str) -> Traffic:
        traffic = self._traffic.get((model, engine_id))
        if traffic is None:
            full = len(self._traffic) >= MOST_LABEL_SETS
            labels = (OTHER, OTHER) if full else (model, engine_id)
            traffic = self._traffic.get(labels)
            if traffic is None:
                traffic = self._traffic[labels] = Traffic()
        return traffic
