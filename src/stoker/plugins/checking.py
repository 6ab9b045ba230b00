"""Holds what plugins bring against what is asked of them, before anything of it is used.

All complaints are :class:`PluginError`; they don't name the plugin, which the caller knows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches

import pluggy

from stoker.errors import PluginError
from stoker.hookspecs import PROJECT
from stoker.suggesting import suggestion

MARKER = f"{PROJECT}_impl"
REGISTER = f"{PROJECT}_register_"


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


def check_marked(plugin: object, hooks: Mapping[str, Callable[..., object]]) -> None:
    """Complain of what is marked as one of ``hooks`` and could not be called as such. Nothing need be registered."""
    for name, asked in hooks.items():
        function = getattr(plugin, name, None)
        if inspect.isroutine(function) and hasattr(function, MARKER):
            options = getattr(function, MARKER)
            check_kind(name, function, wraps=options["wrapper"] or options["hookwrapper"])
            _check_arguments(plugin, name, function, asked)


def check_kind(hook: str, function: Callable[..., object], *, wraps: bool) -> None:
    """Complain of an implementation that would never run, or do nothing if it was called."""
    if wraps:
        raise PluginError(f"{hook} is marked as a wrapper; every plugin is called by itself, and there is none to wrap")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise PluginError(f"{hook} is async; it must be a plain function")
    if not hook.startswith(REGISTER) and inspect.isgeneratorfunction(function):
        raise PluginError(f"{hook} has a 'yield' in it, so that calling it does nothing; it must be a plain function")


def arguments_taken(function: Callable[..., object], asked: Callable[..., object]) -> tuple[str, ...]:
    """Those of the arguments of the hook ``asked`` that ``function`` takes, by their names."""
    takes = inspect.signature(function).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in takes.values()):
        return tuple(inspect.signature(asked).parameters)
    return tuple(name for name in inspect.signature(asked).parameters if name in takes)


def _check_arguments(plugin: object, name: str, function: Callable[..., object], asked: Callable[..., object]) -> None:
    given = inspect.signature(asked).parameters
    takes = inspect.signature(function).parameters
    if inspect.isclass(plugin) and "self" in takes:
        raise PluginError(f"{plugin.__name__} is a class; let the plugin be an instance of it: {plugin.__name__}()")
    if wrong := [each for each, parameter in takes.items() if _is_not_given(parameter, given)]:
        may = f"it may take, by name: {', '.join(given)}" if given else "it takes no arguments"
        raise PluginError(f"{name} asks for {', '.join(map(repr, wrong))}, which it is not given; {may}")


def _is_not_given(parameter: inspect.Parameter, given: Collection[str]) -> bool:
    if parameter.default is not parameter.empty or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        return False
    return parameter.name not in given or parameter.kind is parameter.POSITIONAL_ONLY


def _meant(name: str, hooks: Collection[str]) -> str:
    return suggestion(name, sorted(hooks))
