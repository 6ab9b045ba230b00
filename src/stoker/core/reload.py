"""What a changed configuration means for the engines that run: which are started, stopped, restarted or left alone."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from stoker.model import EngineSpec

# A running engine takes these as they come: they say how it is watched and used, not how it was started.
_WITHOUT_RESTART = frozenset(
    {
        "label",
        "max_concurrency",
        "metadata",
        "policy",
        "startup_timeout_seconds",
        "drain_timeout_seconds",
        "stop_grace_seconds",
        "stall_seconds",
        "probe_interval_seconds",
        "probe_timeout_seconds",
        "probe_failures",
        "restart_limit",
        "restart_base_seconds",
        "restart_cap_seconds",
        "healthy_seconds",
    }
)

# A managed engine is started with its names and its kind. To one that is only a URL they are nothing but our labels.
_WITHOUT_RESTART_OF_A_URL = _WITHOUT_RESTART | {"names", "kind"}


@attrs.frozen(kw_only=True)
class Difference:
    """What a reload did, as engine ids: ``changed`` are restarted, ``updated`` took their change while running.

    ``at_next_start`` are the paths of other settings that changed too, such as ``gateway.policy``: Stoker has read them
    when it started, and will again when it is started again.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    at_next_start: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class ReloadPlan:
    """What to do to come from the current engines to the wanted ones. Each engine is in exactly one of the five."""

    start: Mapping[str, EngineSpec]
    stop: tuple[str, ...]
    restart: Mapping[str, EngineSpec]
    update: Mapping[str, EngineSpec]
    keep: tuple[str, ...]

    @property
    def difference(self) -> Difference:
        """The plan as the answer to whoever asked for the reload."""
        return Difference(
            added=tuple(self.start),
            removed=self.stop,
            changed=tuple(self.restart),
            updated=tuple(self.update),
            unchanged=self.keep,
        )


def plan_reload(current: Mapping[str, EngineSpec], wanted: Mapping[str, EngineSpec]) -> ReloadPlan:
    """Compare the engines there are with those there should be, both by engine id."""
    restart: dict[str, EngineSpec] = {}
    update: dict[str, EngineSpec] = {}
    keep: list[str] = []
    for engine_id, spec in wanted.items():
        before = current.get(engine_id)
        if before is None:
            continue
        if before == spec:
            keep.append(engine_id)
        elif needs_restart(before, spec):
            restart[engine_id] = spec
        else:
            update[engine_id] = spec
    return ReloadPlan(
        start={engine_id: spec for engine_id, spec in wanted.items() if engine_id not in current},
        stop=tuple(engine_id for engine_id in current if engine_id not in wanted),
        restart=restart,
        update=update,
        keep=tuple(keep),
    )


def needs_restart(before: EngineSpec, after: EngineSpec) -> bool:
    """Whether an engine that was started as ``before`` has to be started anew to be as ``after`` says."""
    is_url = before.url is not None and after.url is not None
    harmless = _WITHOUT_RESTART_OF_A_URL if is_url else _WITHOUT_RESTART
    return any(
        getattr(before, field.name) != getattr(after, field.name)
        for field in attrs.fields(EngineSpec)
        if field.name not in harmless
    )
