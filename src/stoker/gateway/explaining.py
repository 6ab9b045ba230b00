"""Which engine a request would get, and why: asked of the routing table without sending anything or changing it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from time import perf_counter

import attrs

from stoker.containing import described, held, one_line, told
from stoker.contracts import Explaining
from stoker.gateway.answers import listed, shown
from stoker.gateway.choosing import Chooser, chosen_by
from stoker.gateway.known import KnownEngine, KnownModel
from stoker.gateway.routing import Prospect, RoutingTable, Ticket
from stoker.gateway.slowness import MOST_SECONDS
from stoker.model import Candidate, EngineLoad, RouteRequest

ASKED_AGAIN = 8
"""How often a policy that is quick is asked besides, to see whether it leaves something to chance."""


@attrs.frozen(kw_only=True)
class Considered:
    """One engine of the model. ``why_not`` is empty for a candidate; ``limit`` is its ``max_concurrency``."""

    engine_id: str
    candidate: bool
    why_not: str
    in_flight: int
    limit: int | None
    load: EngineLoad | None
    suspected: bool


@attrs.frozen(kw_only=True)
class Explanation:
    """What would become of a request.

    ``choice`` is the engine that it would get, or None, and ``why`` says why, or what it would wait for or be refused
    with. ``policy`` is the model's, of the plugin ``plugin``. ``may_differ`` says that the next request may get another
    engine though nothing changed.
    """

    model: str
    policy: str
    plugin: str
    in_service: bool
    engines: tuple[Considered, ...]
    choice: str | None
    why: str
    may_differ: bool = False


def explain(table: RoutingTable, request: RouteRequest) -> Explanation | None:
    """What would become of ``request`` now; None where nobody serves its model.

    The policy is asked what it would choose, as for a request, but it is told of no lease, and what goes wrong in it is
    not counted against it.
    """
    model = table.known(request.model)
    if model is None:
        return None
    ticket, now = Ticket(request, patience_seconds=0.0), table.clock()
    candidates = table.candidates(ticket, now)
    prospect = table.prospect(ticket)
    chosen: Candidate | None = None
    may_differ = False
    if not candidates or prospect is Prospect.CLOSED:
        why = _no_engine(table, model, request, prospect)
    else:
        chosen, why, may_differ = _choice(table, model, request, candidates, now)
    return Explanation(
        model=model.engines[0].backend.model,
        policy=model.policy.name,
        plugin=model.policy.plugin,
        in_service=model.policy.in_service,
        engines=tuple(_considered(engine, request, candidates, now) for engine in model.engines),
        choice=None if chosen is None else chosen.engine_id,
        why=why,
        may_differ=may_differ,
    )


def _considered(engine: KnownEngine, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> Considered:
    is_candidate = engine.candidate in candidates
    return Considered(
        engine_id=engine.backend.engine_id,
        candidate=is_candidate,
        why_not="" if is_candidate else _why_not(engine, request),
        in_flight=engine.in_flight,
        limit=engine.backend.max_concurrency,
        load=engine.candidate.load,
        suspected=engine.suspected_until > now,
    )


def _why_not(engine: KnownEngine, request: RouteRequest) -> str:
    backend = engine.backend
    if request.path not in backend.paths:
        return f"it does not serve {request.path}"
    if not backend.accepting:
        return backend.detail or "it is not ready"
    if not engine.has_room:
        return "it has as many requests as it may have"
    return "it failed a request a moment ago, and others did not"


def _no_engine(table: RoutingTable, model: KnownModel, request: RouteRequest, prospect: Prospect) -> str:
    match prospect:
        case Prospect.CLOSED:
            return f"it would be refused: {table.closed_message}"
        case Prospect.UNKNOWN_PATH:
            served = sorted(frozenset[str]().union(*(engine.backend.paths for engine in model.engines)))
            return (
                f"it would be refused: no engine of {shown(request.model)} serves {request.path}, but {listed(served)}"
            )
        case Prospect.WAIT:
            busy = [engine.backend.engine_id for engine in model.engines if engine.backend.accepting]
            expected = [engine.backend.engine_id for engine in model.engines if engine.backend.expected]
            hopes = [f"room at {listed(busy)}"] * bool(busy) + [f"the start of {listed(expected)}"] * bool(expected)
            return f"it would wait for {' or '.join(hopes)}"
    return f"it would be refused: {prospect.value}"


def _choice(
    table: RoutingTable, model: KnownModel, request: RouteRequest, candidates: Sequence[Candidate], now: float
) -> tuple[Candidate, str, bool]:
    """The candidate that would be chosen, why, and whether another one may be the next time."""
    policy, fallback = model.policy, table.policies.fallback
    if not policy.in_service:
        why = f"the policy {policy.name!r} is out of service; {_why(fallback, request, candidates, now)}"
        return fallback.choose(request, candidates, now), why, False
    try:
        began = perf_counter()
        chosen = chosen_by(policy.policy, request, candidates, now)
        times = ASKED_AGAIN if perf_counter() - began < MOST_SECONDS else 0
        again = [chosen_by(policy.policy, request, candidates, now) for _ in range(times)]
    except BaseException as error:  # noqa: BLE001 - the plugin boundary: contained, and named
        why = f"the policy {policy.name!r} failed ({told(held(error))}); {_why(fallback, request, candidates, now)}"
        return fallback.choose(request, candidates, now), why, False
    return chosen, _why(policy, request, candidates, now), any(other is not chosen for other in again)


def _why(chooser: Chooser, request: RouteRequest, candidates: Sequence[Candidate], now: float) -> str:
    """The policy's own sentence, or one of ours."""
    ours = f"the policy {chooser.name!r} chose it"
    try:
        if isinstance(chooser.policy, Explaining):
            said: object = chooser.policy.explain(request, tuple(candidates), now)
            if isinstance(said, str) and (sentence := one_line(said)):
                return sentence
            if inspect.iscoroutine(said):
                said.close()  # or Python complains that nobody waited for it
            return f"{ours}, and failed to say why (it gave {described(said)})"
    except BaseException as error:  # noqa: BLE001 - the plugin boundary: contained, and named
        return f"{ours}, and failed to say why ({told(held(error))})"
    return ours
