"""Holds what plugins bring against what is asked of them, before anything of it is used.

All complaints are :class:`PluginError`; they don't name the plugin, which the caller knows.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from difflib import get_close_matches

import pluggy

from stoker.contracts import NEEDS, RoutingPolicy
from stoker.errors import PluginError
from stoker.hookspecs import PROJECT

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
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


def check_contract(thing: object, contract: type) -> None:
    """Complain of what ``thing`` lacks to be a ``contract``: one of the Protocols of :mod:`stoker.contracts`."""
    what = f"{type(thing).__name__} is no {contract.__name__}"
    for name, asked in _members(contract):
        if not hasattr(thing, name):
            raise PluginError(f"{what}: it has no {name!r}")
        if inspect.isfunction(asked):
            _check_method(getattr(thing, name), asked, what)
    named = getattr(thing, "name", None)
    if not isinstance(named, str) or not NAME.fullmatch(named):
        raise PluginError(f"{what}: its name is {named!r}, and must be lower case letters, digits and hyphens")
    if contract is RoutingPolicy:
        _check_needs(getattr(thing, "needs", None), what)


def _members(contract: type) -> Iterator[tuple[str, object]]:
    return ((name, value) for name, value in vars(contract).items() if not name.startswith("_"))


def _check_method(method: object, asked: object, what: str) -> None:
    assert inspect.isfunction(asked)
    if not callable(method):
        raise PluginError(f"{what}: {asked.__name__!r} can't be called")
    if inspect.iscoroutinefunction(method):
        raise PluginError(f"{what}: {asked.__name__!r} is async; it must be a plain function that returns at once")
    wanted = list(inspect.signature(asked).parameters)[1:]
    try:
        inspect.signature(method).bind(*wanted)
    except ValueError:
        return  # one without a signature, as compiled code has them
    except TypeError:
        raise PluginError(f"{what}: {asked.__name__!r} must take ({', '.join(wanted)})") from None


def _check_needs(needs: object, what: str) -> None:
    if not isinstance(needs, frozenset | set):
        raise PluginError(f"{what}: its needs are {needs!r}, and must be a set of texts")
    if unknown := needs - NEEDS:
        known = ", ".join(sorted(NEEDS))
        raise PluginError(f"{what}: it needs {', '.join(map(repr, sorted(map(str, unknown))))}; there is only: {known}")


def _meant(name: str, hooks: Collection[str]) -> str:
    near = get_close_matches(name, hooks, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(hooks))}"
