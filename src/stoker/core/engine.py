"""What the fleet is made of: frozen records, replaced and never changed."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

import attrs

from stoker.core.events import AfterStop, Endpoint
from stoker.model import EngineSpec, EngineState, Origin, StartProgress


class Phase(enum.Enum):
    """How far the task of the current incarnation is. Only with NONE is it certain that nothing of it is left."""

    NONE = "none"
    LAUNCHING = "launching"
    ALIVE = "alive"
    STOPPING = "stopping"


@attrs.frozen(kw_only=True)
class Engine:
    """One engine and everything that is known of it. Times are monotonic seconds.

    ``state_since`` is when its state last changed. While it waits for GPUs it has no ``startup_deadline``; ``refused``
    says that it waits because they are not free.
    ``progress`` is of its last start. ``was_ready`` says that its process was READY under an earlier Stoker.
    """

    engine_id: str
    spec: EngineSpec
    origin: Origin
    state: EngineState
    created_at: float
    incarnation: int
    state_since: float = attrs.field(default=attrs.Factory(lambda new: new.created_at, takes_self=True))
    was_ready: bool = False
    phase: Phase = Phase.LAUNCHING
    reason: str = ""
    progress: StartProgress | None = None
    ready_at: float | None = None
    last_heartbeat: float | None = None
    consecutive_failures: int = 0
    restarts: int = 0
    attempts: int = 0
    startup_deadline: float | None = None
    refused: bool = False
    restart_at: float | None = None
    drain_deadline: float | None = None
    grace_seconds: float = 0.0
    after_stop: AfterStop = AfterStop.STAY
    next_spec: EngineSpec | None = None
    endpoint: Endpoint = attrs.field(factory=Endpoint)
    last_error: str | None = None
    last_exit: str | None = None

    @property
    def accepting(self) -> bool:
        """Whether requests may be sent to it."""
        return self.state is EngineState.READY and not (self.endpoint.asleep or self.endpoint.withheld)

    @property
    def runs(self) -> bool:
        """Whether it was started, and has not ended."""
        return self.state in (EngineState.STARTING, EngineState.READY, EngineState.DRAINING)

    @property
    def has_ended(self) -> bool:
        """Whether nothing becomes of it unless somebody says so: STOPPED, or in ERROR for good."""
        if self.state is EngineState.ERROR:
            return self.restart_at is None and self.origin is not Origin.REGISTERED
        return self.state is EngineState.STOPPED

    @property
    def leaving(self) -> bool:
        """Whether it is forgotten as soon as it is stopped."""
        return self.state is EngineState.DRAINING and self.after_stop is AfterStop.FORGET

    @property
    def settled(self) -> bool:
        """Whether nothing is under way: READY, STOPPED, waiting for GPUs that are not free, or in ERROR and not about
        to start because somebody said so.
        """
        if self.state is EngineState.ERROR:
            return self.restart_at is None or self.attempts > 0
        return self.state in (EngineState.READY, EngineState.STOPPED) or self.refused

    @property
    def expected(self) -> bool:
        """Whether it may take requests soon without anybody's doing: it starts, or is due to be restarted."""
        if self.state is EngineState.STARTING:
            return True
        if self.state is EngineState.ERROR:
            return self.restart_at is not None
        return self.state is EngineState.DRAINING and self.after_stop is AfterStop.START


@attrs.frozen
class Fleet:
    """All engines, in the order they came.

    ``launches`` is the highest incarnation ever given. It counts over the whole fleet, so that an engine that takes the
    id of a forgotten one can't be mistaken for it. ``seed`` is the chance that the backoffs draw from.
    """

    engines: Mapping[str, Engine] = MappingProxyType({})
    launches: int = 0
    seed: bytes = b"stoker"

    def get(self, engine_id: str) -> Engine | None:
        """The engine of that id, or None."""
        return self.engines.get(engine_id)

    def having(self, engine: Engine) -> Fleet:
        """This fleet with ``engine`` in its place; a new one comes last."""
        engines = MappingProxyType({**self.engines, engine.engine_id: engine})
        return attrs.evolve(self, engines=engines, launches=max(self.launches, engine.incarnation))

    def without(self, engine_id: str) -> Fleet:
        """This fleet without that engine."""
        rest = {key: engine for key, engine in self.engines.items() if key != engine_id}
        return attrs.evolve(self, engines=MappingProxyType(rest))
