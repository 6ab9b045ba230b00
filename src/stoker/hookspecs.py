"""The pluggy hooks. Those that register are called once, at start-up; those that observe run on a thread of their own.

A plugin is a module or object with functions of these names, marked with :data:`hookimpl` and found through the entry
point group ``stoker``. No hook is called while a request is served. An implementation may leave out arguments that it
does not want.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pluggy

from stoker.contracts import EngineRuntime, GpuScheduler, RoutingPolicy
from stoker.model import EngineInfo, RequestRecord

if TYPE_CHECKING:  # the gateway's own libraries: a plugin that has no routes and no commands does not wait for them
    from cyclopts import App
    from quart import Blueprint, Quart

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


@hookspec
def stoker_register_routes(app: Quart) -> Sequence[Blueprint]:
    """Quart blueprints with further HTTP endpoints, all of whose handlers are ``async``.

    They stand behind the gateway's checks of ``Host`` and ``Origin``. Below ``/v1/management/`` they need the admin
    token as well; anywhere else everybody who reaches the gateway may call them. ``app`` is the app they will be part
    of. A path that is taken, by Stoker, its engines or another plugin, is an error that names the plugin; so is one
    that begins with a variable part (after ``/`` or ``/v1/``), and whatever would act on requests that are not for its
    blueprints. What a handler raises, ``sys.exit`` too, is answered with 500, logged with the plugin's name, and
    counted. After an error nothing of the plugin is left in
    ``app``.
    """
    raise NotImplementedError


@hookspec
def stoker_register_commands(cli: App) -> Sequence[App]:
    """Cyclopts apps, each a further command (or group of commands) of ``stoker`` under its own name.

    ``cli`` is the app they will be part of. A name that is taken is an error that names the plugin.
    """
    raise NotImplementedError


@hookspec
def stoker_engine_changed(before: EngineInfo | None, after: EngineInfo | None) -> None:
    """An engine changed. ``before`` is None for a new engine, ``after`` for one that is forgotten.

    An observer: called on a thread of the plugin's own, from a bounded queue, in order. What it raises is logged once
    and counted; when it falls behind by more than the queue holds, what comes then is dropped, and counted.
    """
    raise NotImplementedError


@hookspec
def stoker_request_finished(record: RequestRecord) -> None:
    """A request is over. An observer, as :func:`stoker_engine_changed`, on the same thread of its plugin."""
    raise NotImplementedError


@hookspec
def stoker_ending() -> None:
    """Stoker ends, or makes room for its successor in the same process: the last thing that a plugin is told.

    An observer, as :func:`stoker_engine_changed`, on the same thread of its plugin, after everything else. Whatever a
    plugin has not sent or written by then is to go now: all plugins together have two seconds, ``atexit`` is not run
    before a restart, and neither is told where Stoker is killed.
    """
    raise NotImplementedError
