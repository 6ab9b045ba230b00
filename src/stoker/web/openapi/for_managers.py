"""The endpoints of management."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from stoker.core.keys import ApiKey, KeyOrder
from stoker.core.reload import Difference
from stoker.gateway.choosing import Failures
from stoker.gateway.counters import Counters
from stoker.gateway.explaining import Considered, Explanation
from stoker.gpu import ledger
from stoker.model import EngineInfo, EngineState, GpuReport, Stray
from stoker.store import audit
from stoker.web.audit import USUAL
from stoker.web.engines import MOST_LINES, TAIL_LINES
from stoker.web.openapi.operation import ANYTHING, Operation, Parameter, listing
from stoker.web.openapi.schemas import Both, Many, May, Said, Shape, one_of, optional, said, sent, taken
from stoker.web.orders import MOST_SECONDS

_STARTED = Both((EngineInfo, {"engine_ids": Many(str)}))
_STOPPED = Both((EngineInfo, {"deleted": May(bool)}))
_KEY = sent(ApiKey, besides=("digest",))
_TEXT = ("text/plain",)
_DRAIN: Shape = {
    "drain": May(bool),
    "drain_timeout_seconds": optional(said(float, minimum=0, maximum=MOST_SECONDS)),
}
_READY = {"wait": Parameter(one_of("ready"), "Answer when the engine is READY, or is not going to be.")}
_GONE = {"wait": Parameter(one_of("stopped"), "Answer when nothing of the engine is left.")}
_NOT_READY = (409, 502, 503)
_BACKEND = {
    "engine_id": str,
    "url": str,
    "model": str,
    "names": Many(str),
    "kind": str,
    "state": EngineState,
    "healthy": bool,
    "in_flight": int,
    "limit": int | None,
    "paths": Many(str),
    "renames": Mapping[str, str],
    "needs_key": bool,
}
_POLICY = {"name": str, "plugin": str, "in_service": bool, "models": Many(str), "failures": Failures}
_QUEUE = {"in_flight": int, "waiting": int, "size": int, "seconds": float}
_STATUS = {
    "version": str,
    "started_at": float,
    "uptime_seconds": float,
    "policy": str,
    "policies": Many(_POLICY),
    "queue": _QUEUE,
    "counters": Counters,
    "engines": Mapping[str, int],
    "shutting_down": bool,
}
_EXPLANATION = {"asked": str, "path": str, **sent(Explanation)}
_CONSIDERED = {**sent(Considered), "state": EngineState | None}

_ID = {
    "engine_id": {
        "description": "Else it is made of the label or the model.",
        "type": ["string", "null"],
    }
}
_ADDRESS = {
    "host": {"description": "With `port`, in place of `url`.", "type": ["string", "null"]},
    "port": {"description": "See `host`.", "type": ["integer", "null"], "minimum": 1, "maximum": 65535},
}


def for_managers(spec: Mapping[str, Any]) -> Mapping[str, Operation]:
    """The operations, by endpoint. ``spec`` is the JSON Schema of what describes an engine."""
    return {**_engines(spec), **_WHOLE}


def _engines(spec: Mapping[str, Any]) -> Mapping[str, Operation]:
    tended = Operation(answers={200: EngineInfo}, errors=[409, 502], body=ANYTHING)
    adapter = {"name": said(str, minLength=1), "path": said(str, minLength=1)}
    tail = Parameter(said(int, minimum=0, maximum=MOST_LINES, default=TAIL_LINES), "How many lines of its end.")
    follow = Parameter(one_of("0", "1", "true", "false"), "Whether to go on with what is added to it.")
    operations = {
        "listing": Operation(answers={200: listing(EngineInfo)}),
        "show": Operation(answers={200: EngineInfo}),
        "start": Operation(
            answers={200: _STARTED, 202: _STARTED},
            errors=_NOT_READY,
            query=_READY,
            body=_with(spec, _ID),
            needs_body=True,
        ),
        "register": Operation(
            answers={201: EngineInfo},
            errors=[409],
            body=_with(spec, _ID, _ADDRESS),
            needs_body=True,
        ),
        "start_again": Operation(answers={200: _STARTED, 202: _STARTED}, errors=_NOT_READY, query=_READY),
        "restart": Operation(answers={200: _STARTED, 202: _STARTED}, errors=_NOT_READY, query=_READY, body=_DRAIN),
        "stop": Operation(answers={200: _STOPPED, 202: _STOPPED}, query=_GONE, body=_DRAIN),
        "forget": Operation(answers={200: _STOPPED, 202: _STOPPED}, query=_GONE, body=_DRAIN),
        "logs": Operation(answers={200: str}, media=_TEXT, query={"tail": tail, "follow": follow}),
        "sleep": tended,
        "wake": tended,
        "adapters": Operation(answers={200: listing({"name": str})}),
        "load_adapter": Operation(answers={201: EngineInfo}, errors=[409, 502], body=adapter, needs_body=True),
        "unload_adapter": Operation(answers={200: EngineInfo}, errors=[409, 502]),
    }
    return {f"management.{name}": operation for name, operation in operations.items()}


def _with(spec: Mapping[str, Any], *more: Mapping[str, Any]) -> Shape:
    """The shape of a body that is a spec, and may have the members ``more`` besides."""
    properties = dict(spec.get("properties", {}))
    for members in more:
        properties |= members
    return Said(Any, {**spec, "properties": properties})


_ORDER = {
    "model": optional(str),
    "path": optional(str),
    "headers": optional(Mapping[str, str]),
    "body": optional(ANYTHING),
}
_TAIL = Parameter(said(int, minimum=0, maximum=audit.MOST_ENTRIES, default=USUAL), "How many entries, the last ones.")
_WHOLE: Mapping[str, Operation] = MappingProxyType(
    {
        f"management.{name}": operation
        for name, operation in {
            "backends": Operation(answers={200: listing(_BACKEND)}),
            "gpu": Operation(answers={200: GpuReport}),
            "gpu_ledger": Operation(answers={200: listing(ledger.Entry)}),
            "status": Operation(answers={200: said(_STATUS, additionalProperties=True)}),
            "events": Operation(answers={200: str}, media=("text/event-stream",)),
            "reload": Operation(answers={200: Difference}, errors=[409], body=ANYTHING),
            "strays": Operation(answers={200: listing(Stray)}),
            "prune": Operation(
                answers={200: {"forgotten": Many(str), "ended": Many(int), "remaining": Many(int)}},
                body={"keep_ended": May(bool)},
            ),
            "stop_gateway": Operation(
                answers={202: {"stopping": bool}},
                errors=[409],
                body={"keep_engines": May(bool), "now": May(bool)},
            ),
            "restart_gateway": Operation(
                answers={202: {"restarting": bool}}, errors=[409, 500], body={"now": May(bool)}
            ),
            "explain": Operation(
                answers={200: {**_EXPLANATION, "engines": Many(_CONSIDERED)}},
                errors=[404],
                body=_ORDER,
                needs_body=True,
            ),
            "keys": Operation(answers={200: listing(_KEY)}, errors=[503]),
            "create_key": Operation(
                answers={201: {**_KEY, "key": str}}, errors=[503], body=taken(KeyOrder), needs_body=True
            ),
            "revoke_key": Operation(answers={200: _KEY}, errors=[503], body=ANYTHING),
            "audit": Operation(answers={200: listing(audit.Entry)}, errors=[503], query={"tail": _TAIL}),
        }.items()
    }
)
