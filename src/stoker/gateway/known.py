"""What the routing table knows: of each incarnation of an engine, and of each name that clients may ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import attrs
import trio

from stoker.gateway.choosing import Chooser
from stoker.model import Backend, Candidate


class Holder(Protocol):
    """Somebody who waits for an answer of an engine: see :class:`stoker.gateway.routing.Lease`."""

    def fail(self, error: str) -> None:
        """There will be no answer, or no more of it."""
        ...


@attrs.define(eq=False)
class KnownEngine:
    """One incarnation of an engine: its latest record, and what the gateway knows of it.

    ``in_flight`` counts its open leases, which are its ``holders``. A term is a time in which it accepts requests; its
    event is set when the term is over. What ``candidate`` says is for policies, and may be what one of them wrote:
    nothing is decided by it here.
    """

    backend: Backend
    candidate: Candidate = attrs.field(init=False)
    in_flight: int = 0
    holders: set[Holder] = attrs.field(factory=set)
    progress_at: float | None = None
    suspected_until: float = -1.0
    idle_callbacks: list[Callable[[], None]] = attrs.field(factory=list)
    term: trio.Event = attrs.field(factory=trio.Event)

    def __attrs_post_init__(self) -> None:
        backend = self.backend
        self.candidate = Candidate(engine_id=backend.engine_id, max_concurrency=backend.max_concurrency)

    @property
    def has_room(self) -> bool:
        """Whether it takes one more request."""
        limit = self.backend.max_concurrency
        return self.backend.accepting and (limit is None or self.in_flight < limit)

    @property
    def names(self) -> tuple[str, ...]:
        """All that clients may call its model, each once."""
        return tuple(dict.fromkeys((self.backend.model, *self.backend.names)))

    def renew(self, backend: Backend) -> None:
        """Take over a new record of the same incarnation."""
        if backend != self.backend:
            self.suspected_until = -1.0
            self.backend = backend
            self.candidate.max_concurrency = backend.max_concurrency
        if not backend.accepting:
            self.term.set()
        elif self.term.is_set():
            self.term = trio.Event()

    def end(self) -> None:
        """It is gone, or another incarnation took its place."""
        self.renew(attrs.evolve(self.backend, accepting=False, expected=False))


@attrs.frozen(eq=False)
class KnownModel:
    """What stands behind one name: at least one engine, and the policy that chooses among them."""

    engines: tuple[KnownEngine, ...]
    policy: Chooser


def renewed(engine: KnownEngine | None, backend: Backend) -> KnownEngine:
    """The engine with its new record: the same one while its incarnation lives."""
    if engine is not None and engine.backend.incarnation != backend.incarnation:
        engine.end()
        engine = None
    if engine is None:
        engine = KnownEngine(backend)
    engine.renew(backend)
    return engine
