"""The routing table: which engines there are, how busy each is, and who waits for one.

A small mutable view for the request path, which never steps the fleet. Everything here is synchronous, so within one
event loop each call is atomic. The invariant behind its fairness: after every call, no waiting ticket could be given a
lease. Room that appears goes to those who wait, in their order, in the same call in which it appears; so a newcomer
that finds room overtakes nobody.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import Protocol

import attrs
import trio

from stoker.errors import UpstreamError
from stoker.gateway.choosing import Chooser
from stoker.gateway.counters import Counters
from stoker.gateway.failures import GivenUp
from stoker.gateway.known import KnownEngine, KnownModel, renewed
from stoker.gateway.policies import Policies
from stoker.model import Activity, Backend, Candidate, EngineLoad, RouteRequest

SUSPICION_SECONDS = 5.0
_NOTHING_NEEDED: frozenset[str] = frozenset()


class Prospect(enum.Enum):
    """What a request that got no lease may hope for."""

    WAIT = "an engine will have room, or is expected"
    CLOSED = "the gateway is shutting down"
    UNKNOWN_MODEL = "no engine has that model"
    UNKNOWN_PATH = "engines have the model, but none serves the path"
    NONE = "engines of the model are there, but none will take the request"


@attrs.define(eq=False)
class Ticket:
    """A request on its way to a lease.

    ``patience_seconds`` is how long it may still wait, ``excluded`` holds the terms of the engines at which it failed,
    and ``spent`` counts those of its attempts that count.
    ``visible`` are the names that it may be told of, None: all.
    ``lease`` is set by the table while the ticket waits; ``woken``, if there is one, then and whenever its prospects
    changed.
    """

    request: RouteRequest
    patience_seconds: float
    excluded: frozenset[trio.Event] = frozenset()
    spent: int = 0
    lease: Lease | None = None
    woken: trio.Event | None = None
    visible: frozenset[str] | None = None


class Carrier(Protocol):
    """What carries a request to its engine, and the answer: a connection."""

    def break_off(self, failure: UpstreamError) -> None:
        """Whoever waits for the answer gets ``failure`` instead, behind what came before."""
        ...


class Lease:
    """The right of one request to use one engine. Closed exactly once.

    ``term`` is an event that is set once the engine takes no requests any more.
    """

    __slots__ = ("_carrier", "_closed", "_engine", "_failure", "_policy", "_request", "_table", "backend", "term")

    def __init__(self, table: RoutingTable, engine: KnownEngine, policy: Chooser, request: RouteRequest) -> None:
        self._table = table
        self._engine = engine
        self._policy = policy
        self._request = request
        self._closed = False
        self._carrier: Carrier | None = None
        self._failure: str | None = None
        self.backend = engine.backend
        self.term = engine.term

    def progress(self, now: float) -> None:
        """Something came from the engine at ``now``."""
        self._engine.progress_at = now

    def succeeded(self) -> None:
        """The engine answered: it is no longer suspected."""
        self._engine.suspected_until = -1.0

    def suspect(self) -> None:
        """The engine failed the request: it is used last, until it changes, succeeds, or some seconds have passed."""
        self._engine.suspected_until = self._table.clock() + SUSPICION_SECONDS

    def carried(self, carrier: Carrier | None) -> None:
        """The request is in the hands of ``carrier`` from now on; None: of nobody."""
        self._carrier = carrier
        if carrier is not None and self._failure is not None:
            carrier.break_off(GivenUp(self._failure))

    def fail(self, error: str) -> None:
        """Nothing more is expected of the engine: the request fails with ``error``, as if its connection had broken."""
        self._failure = error
        if self._carrier is not None:
            self._carrier.break_off(GivenUp(error))

    def close(self) -> None:
        """Give the engine back. Raises RuntimeError the second time."""
        if self._closed:
            raise RuntimeError(f"a lease on {self.backend.engine_id} was closed twice")
        self._closed = True
        self._engine.holders.discard(self)
        self._table._closed_lease(self._engine, self._policy, self._request)  # noqa: SLF001 - the two are one thing


class RoutingTable:
    """The engines as the gateway sees them. ``clock`` gives monotonic seconds."""

    def __init__(self, policies: Policies, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.counters = Counters()
        self.policies = policies
        self._engines: dict[str, KnownEngine] = {}
        self._by_name: dict[str, KnownModel] = {}
        self._queue: dict[Ticket, None] = {}
        self._open_leases = 0
        self._closed_message: str | None = None

    # What the fleet is

    def update(self, backends: Sequence[Backend]) -> None:
        """Take over what the fleet is now. Whoever waits and can be served, or can't hope any more, is woken."""
        before, self._engines = self._engines, {}
        for backend in backends:
            self._engines[backend.engine_id] = renewed(before.pop(backend.engine_id, None), backend)
        for engine in before.values():
            engine.end()
        by_name: dict[str, list[KnownEngine]] = {}
        for engine in self._engines.values():
            for name in engine.names:
                by_name.setdefault(name, []).append(engine)
        self._by_name = {name: self._model(engines) for name, engines in by_name.items()}
        self._serve(tuple(self._queue))

    def close_doors(self, message: str) -> None:
        """From now on nobody gets a lease: new requests and those that wait are told ``message``."""
        self._closed_message = message
        self._serve(tuple(self._queue))

    def models(self) -> Sequence[Backend]:
        """All known backends, in the order of the fleet."""
        return tuple(engine.backend for engine in self._engines.values())

    def backend(self, engine_id: str) -> Backend | None:
        """The backend of that engine, or None where requests don't go (yet)."""
        engine = self._engines.get(engine_id)
        return None if engine is None else engine.backend

    def of_model(self, name: str) -> Sequence[Backend]:
        """The backends that clients reach under ``name``."""
        return tuple(engine.backend for engine in self._engines_of(name))

    def known(self, name: str) -> KnownModel | None:
        """All that is known of what stands behind the name that a client used, or None for one that nobody serves."""
        return self._by_name.get(name)

    def proper_name(self, name: str) -> str:
        """The model behind the name that a client used, or an empty text for a name that nobody serves."""
        engines = self._engines_of(name)
        return engines[0].backend.model if engines else ""

    def needs(self, name: str) -> frozenset[str]:
        """What the policy of that model must see of a request (:attr:`stoker.contracts.RoutingPolicy.needs`)."""
        model = self._by_name.get(name)
        return _NOTHING_NEEDED if model is None else model.policy.needs

    def models_by(self, policy: Chooser) -> Sequence[str]:
        """The models that go by that policy."""
        engines = (engine for model in self._by_name.values() if model.policy is policy for engine in model.engines)
        return tuple(dict.fromkeys(engine.backend.model for engine in engines))

    def names(self) -> Sequence[str]:
        """Every name a client may ask for."""
        return tuple(self._by_name)

    @property
    def closed_message(self) -> str | None:
        """What new requests are told, once the doors are closed."""
        return self._closed_message

    # What goes on

    def activity(self, engine_id: str) -> Activity:
        """The open leases of the engine's present incarnation, and when a byte last came from it."""
        engine = self._engines.get(engine_id)
        if engine is None:
            return Activity()
        return Activity(active_requests=engine.in_flight, progress_at=engine.progress_at, load=engine.candidate.load)

    def report_load(self, engine_id: str, incarnation: int, load: EngineLoad | None) -> None:
        """What the engine's own metrics say now; None where they can't be read."""
        engine = self._engines.get(engine_id)
        if engine is not None and engine.backend.incarnation == incarnation:
            engine.candidate.load = load

    def fail_requests(self, engine_id: str, incarnation: int, error: str) -> None:
        """Fail all that hold a lease of that incarnation. They close it themselves, soon."""
        engine = self._engines.get(engine_id)
        if engine is not None and engine.backend.incarnation == incarnation:
            for holder in tuple(engine.holders):
                holder.fail(error)

    def when_idle(self, engine_id: str, callback: Callable[[], None]) -> None:
        """Call back once, as soon as the engine's present incarnation has no open lease; at once if it has none."""
        engine = self._engines.get(engine_id)
        if engine is None or not engine.in_flight:
            callback()
        else:
            engine.idle_callbacks.append(callback)

    def in_flight(self) -> int:
        """All open leases."""
        return self._open_leases

    def waiting(self) -> int:
        """How many requests wait for a lease."""
        return len(self._queue)

    # Leases

    def open(self, ticket: Ticket) -> Lease | None:
        """A lease for the ticket's request, or None while no engine has room for it."""
        if self._closed_message is not None:
            return None
        request, now = ticket.request, self.clock()
        candidates = self.candidates(ticket, now)
        if not candidates:
            return None
        policy = self._by_name[request.model].policy
        chosen = policy.choose(request, candidates, now)
        if chosen is None:
            policy = self.policies.fallback
            chosen = policy.choose(request, self.candidates(ticket, now), now)
        engine = self._behind(chosen)
        engine.in_flight += 1
        self._open_leases += 1
        chosen.in_flight = engine.in_flight
        policy.opened(request, chosen)
        chosen.in_flight = engine.in_flight  # whatever it wrote there
        lease = Lease(self, engine, policy, request)
        engine.holders.add(lease)
        return lease

    def candidates(self, ticket: Ticket, now: float) -> list[Candidate]:
        """The engines that have room for the ticket's request; suspected ones only if there are no others."""
        fit, healthy = [], []
        for engine in self._fit(ticket):
            if engine.has_room:
                candidate = engine.candidate
                candidate.in_flight = engine.in_flight  # some policy may have written there
                fit.append(candidate)
                if engine.suspected_until <= now:
                    healthy.append(candidate)
        return healthy or fit

    def prospect(self, ticket: Ticket) -> Prospect:
        """What a ticket that got no lease may hope for."""
        if self._closed_message is not None:
            return Prospect.CLOSED
        engines = self._engines_of(ticket.request.model)
        if not engines:
            return Prospect.UNKNOWN_MODEL
        serving = [engine.backend for engine in engines if ticket.request.path in engine.backend.paths]
        if not serving:
            return Prospect.UNKNOWN_PATH
        if any(backend.expected for backend in serving) or any(e.backend.accepting for e in self._fit(ticket)):
            return Prospect.WAIT
        return Prospect.NONE

    def enqueue(self, ticket: Ticket) -> None:
        """Let a ticket wait that :meth:`open` had nothing for. It must be withdrawn in the end."""
        self._queue[ticket] = None

    def withdraw(self, ticket: Ticket) -> None:
        """The ticket waits no longer; nothing happens if it got its lease already."""
        self._queue.pop(ticket, None)

    def _model(self, engines: list[KnownEngine]) -> KnownModel:
        return KnownModel(tuple(engines), self.policies.of_model([engine.backend for engine in engines]))

    def _engines_of(self, name: str) -> tuple[KnownEngine, ...]:
        model = self._by_name.get(name)
        return () if model is None else model.engines

    def _behind(self, candidate: Candidate) -> KnownEngine:
        engine = self._engines.get(candidate.engine_id)
        if engine is not None and engine.candidate is candidate:
            return engine
        engine = next(engine for engine in self._engines.values() if engine.candidate is candidate)
        candidate.engine_id = engine.backend.engine_id  # a policy wrote there
        return engine

    def _fit(self, ticket: Ticket) -> Sequence[KnownEngine]:
        path, excluded = ticket.request.path, ticket.excluded
        return [
            engine
            for engine in self._engines_of(ticket.request.model)
            if path in engine.backend.paths and engine.term not in excluded
        ]

    def _closed_lease(self, engine: KnownEngine, policy: Chooser, request: RouteRequest) -> None:
        candidate = engine.candidate
        engine.in_flight -= 1
        self._open_leases -= 1
        candidate.in_flight = engine.in_flight
        policy.closed(request, candidate)
        candidate.in_flight = engine.in_flight
        if not engine.in_flight and engine.idle_callbacks:
            callbacks, engine.idle_callbacks = engine.idle_callbacks, []
            for callback in callbacks:
                callback()
        names = engine.names if self._queue else ()
        for ticket in tuple(self._queue):
            if not engine.has_room:
                break
            if ticket.request.model in names:
                self._serve((ticket,))

    def _serve(self, tickets: Sequence[Ticket]) -> None:
        """Give leases to ``tickets`` in their order, and wake those that need not wait any longer."""
        for ticket in tickets:
            ticket.lease = self.open(ticket)
            if ticket.lease is not None:
                del self._queue[ticket]
            elif self.prospect(ticket) is Prospect.WAIT:
                continue
            if ticket.woken is not None:
                ticket.woken.set()
