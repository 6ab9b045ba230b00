"""An engine as others see it: to the management interface, and to the data plane."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from stoker.core.engine import Engine
from stoker.model import NOTHING, Activity, Backend, EngineInfo, EngineState, StartProgress


def describe(engine: Engine, activity: Activity, epoch: float) -> EngineInfo:
    """The public record. ``epoch`` is the Unix time at which the monotonic clock stood at zero."""

    def wall(seconds: float | None) -> float | None:
        return None if seconds is None else round(epoch + seconds, 3)

    return EngineInfo(
        engine_id=engine.engine_id,
        model=engine.spec.model,
        names=engine.spec.all_names,
        runtime=engine.spec.runtime,
        kind=engine.spec.kind,
        origin=engine.origin,
        state=engine.state,
        reason=_reason(engine),
        host=engine.endpoint.host,
        port=engine.endpoint.port,
        base_url=engine.endpoint.base_url,
        pid=engine.endpoint.pid,
        gpus=engine.endpoint.gpus,
        created_at=round(epoch + engine.created_at, 3),
        state_since=wall(engine.state_since),
        ready_at=wall(engine.ready_at),
        last_heartbeat=wall(engine.last_heartbeat),
        consecutive_failures=engine.consecutive_failures,
        restarts=engine.restarts,
        restart_at=wall(engine.restart_at),
        active_requests=activity.active_requests,
        max_concurrency=engine.spec.max_concurrency,
        last_error=engine.last_error,
        last_exit=engine.last_exit,
        metadata=dict(engine.spec.metadata),
        policy=engine.spec.policy,
        load=activity.load,
        asleep=engine.endpoint.asleep,
        adapters=engine.endpoint.adapters,
        progress=_progress(engine),
    )


def _reason(engine: Engine) -> str:
    """Why it is as it is, or, while it starts, how far it is."""
    progress = _progress(engine)
    if progress is None:
        return engine.reason or _rest(engine)
    return str(progress) if engine.reason in ("", "starting") else f"{engine.reason}: {progress}"


def _progress(engine: Engine) -> StartProgress | None:
    return engine.progress if engine.state is EngineState.STARTING else None


def backend_of(engine: Engine, paths: frozenset[str], api_key: str | None) -> Backend:
    """What the data plane needs to know of the engine."""
    return Backend(
        engine_id=engine.engine_id,
        incarnation=engine.incarnation,
        base_url=engine.endpoint.base_url or "",
        model=engine.spec.model,
        names=(*engine.spec.all_names, *engine.endpoint.adapters),
        kind=engine.spec.kind,
        runtime=engine.spec.runtime,
        paths=paths,
        max_concurrency=engine.spec.max_concurrency,
        renames=_renames(engine),
        policy=engine.spec.policy,
        api_key=api_key,
        accepting=engine.accepting,
        expected=engine.expected,
        detail=_detail(engine),
    )


def _renames(engine: Engine) -> Mapping[str, str]:
    known = engine.endpoint.names
    if not known:
        return NOTHING
    return MappingProxyType({name: known[0] for name in engine.spec.all_names if name not in known})


def _rest(engine: Engine) -> str:
    """Why a READY engine is given no requests."""
    if engine.endpoint.asleep:
        return "asleep"
    return "about to sleep" if engine.endpoint.withheld else ""


def _detail(engine: Engine) -> str:
    """Why it takes no requests, in one line: what happened, and the last of its log, not a page of it."""
    if engine.state is EngineState.READY:
        wake = f"; wake it with: stoker engine wake {engine.engine_id}" if engine.endpoint.asleep else ""
        return _rest(engine) + wake
    lines = (engine.last_error or "").splitlines()
    words = [engine.state.value, _reason(engine), " ".join(dict.fromkeys(lines[:1] + lines[-1:]))]
    return "; ".join(word for word in words if word)
