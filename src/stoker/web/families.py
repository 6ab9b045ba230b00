"""All that is measured, as Prometheus wants it: families of samples, each with its name, its help and its labels."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import cast

import attrs
from prometheus_client import Metric, ProcessCollector
from prometheus_client.samples import Sample

from stoker import __version__
from stoker.gateway.counters import Counters
from stoker.gateway.measures import Histogram, Snapshot
from stoker.model import EngineInfo, EngineState

SAMPLES_AT_ONCE = 50
BREATH_SECONDS = 0.001

Labels = dict[str, str]
Values = Iterable[tuple[Labels, float]]


@attrs.frozen
class PolicyState:
    """How a routing policy does: its failures by their reason, and whether it is asked at all."""

    name: str
    failures: Mapping[str, int]
    in_service: bool


@attrs.frozen
class ObserverState:
    """What became of what a plugin was to be told."""

    plugin: str
    dropped: int
    failures: int


@attrs.frozen
class Page:
    """All there is to tell at one moment, for any thread to read; an encoder calls ``collect``.

    ``waiting`` requests wait for an engine, and ``waiting_limit`` may. ``refusals`` at the door are by reason.
    """

    measured: Snapshot
    counters: Counters
    engines: tuple[EngineInfo, ...]
    policies: tuple[PolicyState, ...]
    observers: tuple[ObserverState, ...]
    refusals: Mapping[str, int]
    waiting: int
    waiting_limit: int

    def collect(self) -> Iterator[Metric]:
        """Every family, to be gone through once, in the order given. Blocks: it reads /proc, and takes its time."""
        yield from self._requests()
        yield from self._traffic()
        yield from self._troubles()
        yield from self._policies()
        yield from self._observers()
        yield from self._engines()
        yield from self._process()

    def _requests(self) -> Iterator[Metric]:
        requests = (
            ({**_labels(model, engine_id), "path": _text(path), "status": str(status)}, count)
            for (model, engine_id, path, status), count in self.measured.requests.items()
        )
        times = [
            ({**_labels(model, engine_id), "path": _text(path)}, each)
            for (model, engine_id, path), each in self.measured.times.items()
        ]
        in_flight = ((_labels_of(info), info.active_requests) for info in self.engines)
        yield counter("stoker_requests", "Requests that are over, by the status sent; 499: the client left.", requests)
        yield histogram(
            "stoker_request_duration_seconds",
            "From a request's head to the end of its answer.",
            ((labels, each.duration) for labels, each in times),
        )
        yield histogram(
            "stoker_time_to_first_byte_seconds",
            "From a request's head to the first byte of its answer; it may have waited.",
            ((labels, each.first_byte) for labels, each in times),
        )
        yield gauge("stoker_requests_in_flight", "Requests that the engine works on.", in_flight)
        yield gauge("stoker_requests_waiting", "Requests that wait for an engine.", [({}, self.waiting)])
        yield gauge("stoker_requests_waiting_limit", "How many requests may wait at once.", [({}, self.waiting_limit)])

    def _traffic(self) -> Iterator[Metric]:
        traffic = [(_labels(*key), each) for key, each in self.measured.traffic.items()]
        sizes = (
            ({**labels, "direction": direction}, size)
            for labels, each in traffic
            for direction, size in (("to_engine", each.received_bytes), ("to_client", each.sent_bytes))
        )
        tokens = (
            ({**labels, "kind": kind}, count)
            for labels, each in traffic
            for kind, count in (("prompt", each.prompt_tokens), ("completion", each.completion_tokens))
        )
        yield histogram(
            "stoker_inter_chunk_seconds",
            "Between two pieces of a streamed answer.",
            ((labels, each.gaps) for labels, each in traffic),
        )
        yield counter("stoker_relayed_bytes", "Bytes of the bodies of requests and answers.", sizes, unit="bytes")
        yield counter("stoker_tokens", "Tokens read and written, where the engine reports them.", tokens)

    def _troubles(self) -> Iterator[Metric]:
        counted, measured = self.counters, self.measured
        for name, documentation, count in (
            ("retries", "Attempts at a request after its first.", counted.retries),
            ("requests_refused", "Requests that got an error without reaching an engine.", counted.refused),
            ("requests_failed", "Requests at which every engine tried failed.", counted.errors),
            ("stream_errors", "Streams that broke off, or told of an error.", counted.stream_errors),
            ("connections_accepted", "Connections of clients there were.", measured.connections_accepted),
            ("contained_failures", "Defects that cost one connection, or one request.", measured.contained_failures),
        ):
            yield counter(f"stoker_{name}", documentation, [({}, count)])
        endings = (
            ({"ending": "complete"}, counted.turns_kept),
            ({"ending": "aborted"}, counted.turns_aborted),
            ({"ending": "lost"}, counted.turns_lost),
        )
        yield counter("stoker_session_turns", "Turns of stored conversations, by what became of them.", endings)
        refusals = (({"reason": reason}, count) for reason, count in self.refusals.items())
        yield counter("stoker_key_refusals", "Requests that their API key, or none, kept out.", refusals)
        yield gauge("stoker_connections", "Connections of clients that are open.", [({}, measured.connections)])

    def _policies(self) -> Iterator[Metric]:
        failures = (
            ({"policy": _text(policy.name), "reason": reason}, count)
            for policy in self.policies
            for reason, count in policy.failures.items()
        )
        in_service = (({"policy": _text(policy.name)}, policy.in_service) for policy in self.policies)
        yield counter("stoker_policy_failures", "Calls at which a policy failed, or took too long.", failures)
        yield gauge(
            "stoker_policy_in_service", "0 for a policy that was too slow, and is not asked any more.", in_service
        )

    def _observers(self) -> Iterator[Metric]:
        dropped = (({"plugin": _text(each.plugin)}, each.dropped) for each in self.observers)
        failures = (({"plugin": _text(each.plugin)}, each.failures) for each in self.observers)
        yield counter("stoker_observer_dropped", "What a plugin was not told, as it was too far behind.", dropped)
        yield counter("stoker_observer_failures", "Calls at which a plugin that observes failed.", failures)

    def _engines(self) -> Iterator[Metric]:
        states = (
            ({**_labels_of(info), "state": state.value}, info.state is state)
            for info in self.engines
            for state in EngineState
        )
        restarts = ((_labels_of(info), info.restarts) for info in self.engines)
        ready = [
            (_labels_of(info), info.ready_at)
            for info in self.engines
            if info.state is EngineState.READY and info.ready_at is not None
        ]
        limits = [(_labels_of(info), info.max_concurrency) for info in self.engines if info.max_concurrency is not None]
        yield gauge("stoker_engine_state", "1 for the state the engine is in, 0 for the others.", states)
        yield counter("stoker_engine_restarts", "Starts of the engine after its first, asked for or not.", restarts)
        yield gauge("stoker_engine_ready_timestamp_seconds", "Since when the engine is READY.", ready, unit="seconds")
        yield gauge("stoker_engine_max_concurrency", "Requests the engine may have at once.", limits)
        yield from self._loads()

    def _loads(self) -> Iterator[Metric]:
        loads = [(_labels_of(info), info.load) for info in self.engines if info.load is not None]
        cache = [(labels, load.kv_cache_used) for labels, load in loads if load.kv_cache_used is not None]
        running = ((labels, load.running) for labels, load in loads)
        waiting = ((labels, load.waiting) for labels, load in loads)
        yield gauge("stoker_engine_running", "Requests the engine computes, as it says itself.", running)
        yield gauge("stoker_engine_waiting", "Requests that wait within the engine, as it says itself.", waiting)
        yield gauge("stoker_engine_kv_cache_used_ratio", "The part of the KV cache in use.", cache, unit="ratio")

    def _process(self) -> Iterator[Metric]:
        about = {"version": __version__, "python": platform.python_version()}
        info = Metric("stoker_build", "The version that runs.", "info")
        yield _filled(info, [Sample("stoker_build_info", about, 1)])
        yield from ProcessCollector(registry=None).collect()


def counter(name: str, documentation: str, values: Values, unit: str = "") -> Metric:
    """A number that only grows; ``name`` is without its ``_total``."""
    samples = (Sample(f"{name}_total", labels, value) for labels, value in values)
    return _filled(Metric(name, documentation, "counter", unit), samples)


def gauge(name: str, documentation: str, values: Values, unit: str = "") -> Metric:
    """A number that comes and goes."""
    return _filled(Metric(name, documentation, "gauge", unit), (Sample(name, *value) for value in values))


def histogram(name: str, documentation: str, values: Iterable[tuple[Labels, Histogram]]) -> Metric:
    """Seconds, counted in buckets."""
    samples = (sample for labels, observed in values for sample in _buckets(name, labels, observed))
    return _filled(Metric(name, documentation, "histogram", "seconds"), samples)


def _buckets(name: str, labels: Labels, observed: Histogram) -> Iterator[Sample]:
    bounds = (*map(str, observed.bounds), "+Inf")
    for bound, count in zip(bounds, accumulate(observed.counts), strict=True):
        yield Sample(f"{name}_bucket", {**labels, "le": bound}, count)
    yield Sample(f"{name}_count", labels, sum(observed.counts))
    yield Sample(f"{name}_sum", labels, observed.total)


def _filled(metric: Metric, samples: Iterable[Sample]) -> Metric:
    metric.samples = cast("list[Sample]", _unhurried(samples))  # all that is done to them is to go through them, once
    return metric


def _unhurried(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Pause again and again: a thread that has much to do lets the event loop run only once in five milliseconds."""
    for index, sample in enumerate(samples):
        if index % SAMPLES_AT_ONCE == SAMPLES_AT_ONCE - 1:
            time.sleep(BREATH_SECONDS)
        yield sample


def _labels_of(info: EngineInfo) -> Labels:
    return _labels(info.model, info.engine_id)


def _labels(model: str, engine_id: str) -> Labels:
    return {"model": _text(model), "engine": _text(engine_id)}


def _text(value: str) -> str:
    """``value``, or what can be written of it: half a surrogate pair in one name must not spoil the whole page."""
    return value.encode(errors="replace").decode()
