"""All that is measured at one moment, as the families of ``/metrics``."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping

import attrs
from prometheus_client import Metric, ProcessCollector

from stoker import __version__
from stoker.gateway.counters import Counters
from stoker.gateway.measures import Snapshot
from stoker.model import EngineInfo, EngineState
from stoker.web import declared


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
        yield from self._plugins()
        yield from self._engines()
        yield from self._loads()
        yield from self._gateway()
        yield from ProcessCollector(registry=None).collect()

    def _requests(self) -> Iterator[Metric]:
        requests = (
            ((model, engine_id, path, str(status)), count)
            for (model, engine_id, path, status), count in self.measured.requests.items()
        )
        times = self.measured.times.items()
        yield declared.REQUESTS.of(requests)
        yield declared.DURATION.observed((labels, each.duration) for labels, each in times)
        yield declared.FIRST_BYTE.observed((labels, each.first_byte) for labels, each in times)
        yield declared.IN_FLIGHT.of((_of(info), info.active_requests) for info in self.engines)
        yield declared.WAITING.of([((), self.waiting)])
        yield declared.WAITING_LIMIT.of([((), self.waiting_limit)])

    def _traffic(self) -> Iterator[Metric]:
        traffic = self.measured.traffic.items()
        yield declared.GAPS.observed((labels, each.gaps) for labels, each in traffic)
        yield declared.RELAYED.of(
            ((*labels, direction), size)
            for labels, each in traffic
            for direction, size in (("to_engine", each.received_bytes), ("to_client", each.sent_bytes))
        )
        yield declared.TOKENS.of(
            ((*labels, kind), count)
            for labels, each in traffic
            for kind, count in (("prompt", each.prompt_tokens), ("completion", each.completion_tokens))
        )

    def _troubles(self) -> Iterator[Metric]:
        counted = self.counters
        yield declared.RETRIES.of([((), counted.retries)])
        yield declared.REFUSED.of([((), counted.refused)])
        yield declared.FAILED.of([((), counted.errors)])
        yield declared.STREAM_ERRORS.of([((), counted.stream_errors)])
        yield declared.TURNS.of(
            [
                (("complete",), counted.turns_kept),
                (("aborted",), counted.turns_aborted),
                (("lost",), counted.turns_lost),
            ]
        )

    def _plugins(self) -> Iterator[Metric]:
        yield declared.POLICY_FAILURES.of(
            ((policy.name, reason), count) for policy in self.policies for reason, count in policy.failures.items()
        )
        yield declared.POLICY_IN_SERVICE.of(((policy.name,), policy.in_service) for policy in self.policies)
        yield declared.OBSERVER_DROPPED.of(((each.plugin,), each.dropped) for each in self.observers)
        yield declared.OBSERVER_FAILURES.of(((each.plugin,), each.failures) for each in self.observers)

    def _engines(self) -> Iterator[Metric]:
        engines = self.engines
        yield declared.STATE.of(
            ((*_of(info), state.value), info.state is state) for info in engines for state in EngineState
        )
        yield declared.RESTARTS.of((_of(info), info.restarts) for info in engines)
        yield declared.READY_AT.of(
            (_of(info), info.ready_at)
            for info in engines
            if info.state is EngineState.READY and info.ready_at is not None
        )
        yield declared.LIMIT.of(
            (_of(info), info.max_concurrency) for info in engines if info.max_concurrency is not None
        )

    def _loads(self) -> Iterator[Metric]:
        loads = [(_of(info), info.load) for info in self.engines if info.load is not None]
        cache = [(labels, load.kv_cache_used) for labels, load in loads if load.kv_cache_used is not None]
        yield declared.RUNNING.of((labels, load.running) for labels, load in loads)
        yield declared.QUEUED.of((labels, load.waiting) for labels, load in loads)
        yield declared.CACHE.of(cache)

    def _gateway(self) -> Iterator[Metric]:
        measured = self.measured
        yield declared.CONNECTIONS.of([((), measured.connections)])
        yield declared.ACCEPTED.of([((), measured.connections_accepted)])
        yield declared.KEY_REFUSALS.of(((reason,), count) for reason, count in self.refusals.items())
        yield declared.CONTAINED.of([((), measured.contained_failures)])
        yield declared.BUILD.of([((__version__, platform.python_version()), 1)])


def _of(info: EngineInfo) -> tuple[str, str]:
    return info.model, info.engine_id
