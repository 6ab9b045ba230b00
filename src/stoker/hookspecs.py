"""The pluggy hooks. Each is called once, at start-up, and returns contract objects.

A plugin is a module or object with functions of these names, marked with :data:`hookimpl` and found through the entry
point group ``stoker``. No hook is called while a request is served.
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from stoker.contracts import EngineRuntime, GpuScheduler, RoutingPolicy

PROJECT = "stoker"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def stoker_register_runtimes() -> Sequence[EngineRuntime]:
    """Engine runtimes to make available under their names. A name taken twice is an error that names both plugins."""
    raise NotImplementedError


@hookspec
def stoker_register_policies() -> Sequence[RoutingPolicy]:
    """Routing policies to make available under their names."""
    raise NotImplementedError


@hookspec
def stoker_register_schedulers() -> Sequence[GpuScheduler]:
    """GPU schedulers to make available under their names."""
    raise NotImplementedError
