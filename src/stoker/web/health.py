"""``/health`` (the gateway lives) and ``/ready`` (it can answer somebody), for whoever watches the gateway."""

from __future__ import annotations

from collections import Counter

import attrs
from quart import Blueprint, Response

from stoker.core.codes import Code
from stoker.gateway.answers import error
from stoker.model import EngineState
from stoker.web.control import Control, Operations
from stoker.web.problems import RequestError
from stoker.web.wire import Wire


@attrs.frozen
class HealthEndpoints:
    """Two answers that need no token and tell nothing but how it is."""

    control: Control
    operations: Operations
    wire: Wire

    def add_to(self, blueprint: Blueprint) -> None:
        """Add the endpoints to ``blueprint``."""
        blueprint.add_url_rule("/health", view_func=self.health, methods=["GET"])
        blueprint.add_url_rule("/ready", view_func=self.ready, methods=["GET"])

    async def health(self) -> Response:
        """``GET /health``: 200 while the gateway lives."""
        return self.wire.answer({"status": "ok"})

    async def ready(self) -> Response:
        """``GET /ready``: 200 while an engine is READY; 503 with the reason otherwise, and while Stoker shuts down."""
        if self.operations.shutting_down():
            raise _unavailable("the gateway is shutting down")
        counts = Counter(info.state for info in self.control.infos())
        if not counts:
            raise _unavailable("there are no engines")
        if not counts[EngineState.READY]:
            others = ", ".join(f"{counts[state]} {state}" for state in EngineState if counts[state])
            raise _unavailable(f"no engine is READY; there are: {others}")
        return self.wire.answer({"status": "ready", "engines_ready": counts[EngineState.READY]})


def _unavailable(message: str) -> RequestError:
    return RequestError(error(Code.NOT_READY, message))
