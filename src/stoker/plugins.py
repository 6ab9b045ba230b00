"""Finds plugins and collects what they provide. The only place besides ``app`` that sees the built-ins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from types import MappingProxyType, ModuleType
from typing import Protocol, TypeVar

import attrs
import pluggy

from stoker import hookspecs
from stoker.builtin import policies, runtimes, schedulers
from stoker.contracts import EngineRuntime, GpuScheduler, RoutingPolicy
from stoker.errors import NotFoundError, PluginError
from stoker.hookspecs import PROJECT

BUILTINS: Sequence[ModuleType] = (runtimes, policies, schedulers)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


@attrs.frozen
class Registry:
    """Everything that plugins provide, by name."""

    runtimes: Mapping[str, EngineRuntime]
    policies: Mapping[str, RoutingPolicy]
    schedulers: Mapping[str, GpuScheduler]
    plugins: tuple[str, ...] = ()

    def runtime(self, name: str) -> EngineRuntime:
        """The runtime of that name. Raises :class:`NotFoundError` that lists those there are."""
        return _pick("runtime", name, self.runtimes)

    def policy(self, name: str) -> RoutingPolicy:
        """The policy of that name. Raises :class:`NotFoundError` that lists those there are."""
        return _pick("policy", name, self.policies)

    def scheduler(self, name: str) -> GpuScheduler:
        """The scheduler of that name. Raises :class:`NotFoundError` that lists those there are."""
        return _pick("scheduler", name, self.schedulers)


def _pick(what: str, name: str, known: Mapping[str, T]) -> T:
    try:
        return known[name]
    except KeyError:
        there_are = ", ".join(sorted(known)) or "none"
        raise NotFoundError(f"there is no {what} {name!r}; there are: {there_are}") from None


def build_plugin_manager(*, load_entry_points: bool = True) -> pluggy.PluginManager:
    """The built-ins, then whatever the entry-point group ``stoker`` names in the running interpreter.

    Raises :class:`PluginError` for a plugin that can't be imported or has a hook that does not exist.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    for module in BUILTINS:
        manager.register(module, name=module.__name__.removeprefix("stoker."))
    if load_entry_points:
        for entry in entry_points(group=PROJECT):
            if not manager.has_plugin(entry.name):
                _load(manager, entry.name, entry.load)
    try:
        manager.check_pending()
    except pluggy.PluginValidationError as error:
        raise PluginError(f"plugin {manager.get_name(error.plugin)!r}: {error}") from error
    return manager


def _load(manager: pluggy.PluginManager, name: str, load: Callable[[], object]) -> None:
    try:
        manager.register(load(), name=name)
    except Exception as error:  # the plugin boundary: whatever a stranger's import raises, say whose it is
        raise PluginError(f"plugin {name!r} can't be loaded: {type(error).__name__}: {error}") from error


def build_registry(manager: pluggy.PluginManager) -> Registry:
    """Ask every plugin what it provides. Raises :class:`PluginError` naming the plugin that raises or collides."""
    return Registry(
        runtimes=_collect(manager, "stoker_register_runtimes"),
        policies=_collect(manager, "stoker_register_policies"),
        schedulers=_collect(manager, "stoker_register_schedulers"),
        plugins=tuple(name for name, _ in manager.list_name_plugin()),
    )


def _collect(manager: pluggy.PluginManager, hook_name: str) -> Mapping[str, T]:
    found: dict[str, T] = {}
    owners: dict[str, str] = {}
    for implementation in getattr(manager.hook, hook_name).get_hookimpls():
        owner = implementation.plugin_name
        for thing in _ask(owner, hook_name, implementation.function):
            if thing.name in found:
                raise PluginError(f"plugins {owners[thing.name]!r} and {owner!r} both provide {thing.name!r}")
            found[thing.name] = thing
            owners[thing.name] = owner
    return MappingProxyType(found)


def _ask(owner: str, hook_name: str, function: Callable[[], Iterable[T]]) -> Sequence[T]:
    try:
        return list(function())
    except Exception as error:  # the plugin boundary: contained, and the plugin named
        raise PluginError(f"plugin {owner!r}: {hook_name} raised {type(error).__name__}: {error}") from error
