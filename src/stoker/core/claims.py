"""Who may have which name and which id, beside the engines that are there."""

from __future__ import annotations

from collections.abc import Collection

import attrs

from stoker.core.engine import Engine, Fleet
from stoker.core.naming import is_engine_id
from stoker.errors import ConfigError, ConflictError, Mistake
from stoker.model import EngineSpec, EngineState, Origin


def check_names(fleet: Fleet, spec: EngineSpec, besides: Collection[str] = ()) -> None:
    """Raise :class:`ConflictError` where clients know another model by one of its names, or it has another policy.

    Engines that are on their way out, and those ``besides``, give their names up.
    """
    for other in fleet.engines.values():
        leaves = other.state in (EngineState.DRAINING, EngineState.STOPPED) and not other.expected
        if leaves or other.engine_id in besides:
            continue
        theirs = other.next_spec or other.spec
        shared = set(spec.all_names) & {*theirs.all_names, *other.endpoint.adapters, *other.endpoint.held}
        if shared and theirs.model != spec.model:
            names = ", ".join(map(repr, sorted(shared)))
            raise ConflictError(
                f"clients know {theirs.model!r} (engine {other.engine_id!r}) as {names} already; "
                f"give {spec.model!r} other names"
            )
        if theirs.model == spec.model and spec.policy and theirs.policy and spec.policy != theirs.policy:
            raise ConflictError(
                f"{spec.model!r} goes by the policy {theirs.policy!r} (engine {other.engine_id!r}) already, and "
                f"not by {spec.policy!r}; one model has one policy"
            )


def check_adapter(fleet: Fleet, engine: Engine, name: str) -> None:
    """Raise :class:`ConflictError` where an adapter of that name would hide something."""
    if name in engine.spec.all_names:
        raise ConflictError(f"{name!r} is a name of the model itself; give the adapter another name")
    check_names(fleet, attrs.evolve(engine.spec, names=(name,)), besides=(engine.engine_id,))


def check_id(fleet: Fleet, engine_id: str, spec: EngineSpec) -> None:
    """Raise :class:`ConfigError` for what can't be an id, and :class:`ConflictError` for that of one that runs."""
    if not is_engine_id(engine_id):
        message = f"{engine_id!r} can't be an engine id: use lower case letters, digits and . _ -, at most 48"
        raise ConfigError(f"engine {spec.model!r}", [Mistake("engine_id", message)])
    engine = fleet.get(engine_id)
    if engine is not None and engine.runs:
        raise ConflictError(f"there is an engine {engine_id!r} already, and it is {engine.state}")


def check_url(fleet: Fleet, spec: EngineSpec) -> None:
    """Raise :class:`ConflictError` for a URL that is registered for the same model."""
    for other in fleet.engines.values():
        if other.origin is Origin.REGISTERED and (other.spec.url, other.spec.model) == (spec.url, spec.model):
            raise ConflictError(f"{spec.url} is registered for {spec.model!r} already, as {other.engine_id!r}")
