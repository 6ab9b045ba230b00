"""Holds what plugins bring against what is asked of them, before anything of it is used.

All complaints are :class:`PluginError`; they don't name the plugin, which the caller knows.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection
from difflib import get_close_matches

import pluggy

from stoker.errors import PluginError
from stoker.hookspecs import PROJECT

MARKER = f"{PROJECT}_impl"


def check_hooks(plugin: object, manager: pluggy.PluginManager, hooks: Collection[str]) -> None:
    """Complain of hooks that don't exist, and of functions that look like one and are not marked.

    ``plugin`` is registered with ``manager``, which knows ``hooks``.
    """
    for caller in manager.get_hookcallers(plugin) or ():
        if not caller.has_spec():
            raise PluginError(f"there is no hook {caller.name!r}; {_meant(caller.name, hooks)}")
    for name in (name for name in dir(plugin) if name.startswith(f"{PROJECT}_")):
        value = getattr(plugin, name, None)
        if inspect.isroutine(value) and not hasattr(value, MARKER):
            if name in hooks:
                raise PluginError(f"{name} is not marked: put @hookimpl (of stoker.hookspecs) before it")
            if get_close_matches(name, hooks, cutoff=0.85):
                raise PluginError(f"{name} is no hook and not marked as one; {_meant(name, hooks)}")
    if not manager.get_hookcallers(plugin):
        raise PluginError(f"it has no hooks; a plugin has functions marked with @hookimpl: {', '.join(sorted(hooks))}")


def _meant(name: str, hooks: Collection[str]) -> str:
    near = get_close_matches(name, hooks, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(hooks))}"
