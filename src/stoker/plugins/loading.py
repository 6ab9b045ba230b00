"""Loads plugins one after the other. What is wrong with one of them leaves it out whole, and hurts no other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType, ModuleType
from typing import Any

import attrs
import pluggy

from stoker import hookspecs
from stoker.builtin import policies, runtimes, schedulers
from stoker.contracts import EngineRuntime, GpuScheduler, RoutingPolicy
from stoker.errors import PluginError
from stoker.hookspecs import PROJECT
from stoker.plugins.checking import check_contract, check_hooks
from stoker.plugins.finding import Source
from stoker.plugins.registry import Implementation, PluginRecord, Registry

BUILTINS: Sequence[ModuleType] = (runtimes, policies, schedulers)
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith(f"{PROJECT}_"))


@attrs.frozen
class _Kind:
    """A kind of thing that a hook registers: what it is called, and the contract that it keeps."""

    one: str
    many: str
    contract: type


KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "stoker_register_runtimes": _Kind("runtime", "runtimes", EngineRuntime),
        "stoker_register_policies": _Kind("policy", "policies", RoutingPolicy),
        "stoker_register_schedulers": _Kind("scheduler", "schedulers", GpuScheduler),
    }
)


def builtin() -> Iterator[Source]:
    """The plugins that are part of Stoker."""
    for module in BUILTINS:
        name = module.__name__.removeprefix("stoker.")
        yield Source(name, "built-in", module.__name__, _returning(module), builtin=True)


def build_registry(sources: Iterable[Source], *, strict: bool = False) -> Registry:
    """Load ``sources`` in their order and ask each what it provides. One that was found twice counts once.

    A plugin that is broken is left out, with nothing of it remaining but its record. Raises :class:`PluginError` naming
    it instead where it is one of Stoker's own, or ``strict``. Hooks that register no contract objects are not called
    here, only kept: see :meth:`Registry.implementations`.
    """
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    collected = _Collected()
    for source in sources:
        if collected.targets.get(source.name) == source.target:
            continue
        try:
            found = _take_in(manager, source, collected)
        except PluginError as error:
            message = f"plugin {source.name!r} ({source.origin}): {error}"
            if strict or source.builtin:
                raise PluginError(message) from error
            collected.records.append(PluginRecord(name=source.name, origin=source.origin, problem=str(error)))
        else:
            collected.add(found)
            collected.targets[source.name] = source.target
    return collected.registry()


@attrs.frozen
class _Found:
    """One plugin that is right, and all that it provides."""

    record: PluginRecord
    things: Mapping[str, Sequence[Any]]
    implementations: Mapping[str, Implementation]


@attrs.define
class _Collected:
    """What there is so far."""

    things: dict[str, dict[str, Any]] = attrs.field(factory=lambda: {hook: {} for hook in KINDS})
    owners: dict[tuple[str, str], str] = attrs.field(factory=dict)
    hooks: dict[str, list[Implementation]] = attrs.field(factory=dict)
    records: list[PluginRecord] = attrs.field(factory=list)
    targets: dict[str, str] = attrs.field(factory=dict)

    def add(self, found: _Found) -> None:
        self.records.append(found.record)
        for hook, things in found.things.items():
            for thing in things:
                self.things[hook][thing.name] = thing
                self.owners[KINDS[hook].one, thing.name] = found.record.name
        for hook, implementation in found.implementations.items():
            self.hooks.setdefault(hook, []).append(implementation)

    def registry(self) -> Registry:
        known = {kind.many: MappingProxyType(self.things[hook]) for hook, kind in KINDS.items()}
        hooks = {hook: tuple(implementations) for hook, implementations in self.hooks.items()}
        return Registry(
            **known,
            owners=MappingProxyType(self.owners),
            records=tuple(self.records),
            hooks=MappingProxyType(hooks),
        )


def _take_in(manager: pluggy.PluginManager, source: Source, collected: _Collected) -> _Found:
    """Load, check and ask one plugin. Raises PluginError for whatever is wrong with it."""
    if source.name in collected.targets:
        raise PluginError("there is another plugin of that name; give it another one in its entry point")
    plugin = _call(source.load, "it can't be loaded")
    try:
        manager.register(plugin, name=source.name)
    except (pluggy.PluginValidationError, ValueError) as error:
        raise PluginError(str(error).rpartition("\n")[2] or str(error)) from error
    try:
        check_hooks(plugin, manager, HOOKS)
        implementations = {hook: _implementation(manager, hook, source.name) for hook in HOOKS}
        mine = {hook: found for hook, found in implementations.items() if found is not None}
        things = {hook: _ask(mine[hook], hook, collected) for hook in KINDS if hook in mine}
    except PluginError:
        manager.unregister(plugin)
        raise
    provides = {KINDS[hook].many: tuple(thing.name for thing in found) for hook, found in things.items()}
    others = {hook: found for hook, found in mine.items() if hook not in KINDS}
    record = PluginRecord(name=source.name, origin=source.origin, provides={**provides, "hooks": tuple(others)})
    return _Found(record, things, others)


def _implementation(manager: pluggy.PluginManager, hook: str, plugin: str) -> Implementation | None:
    for each in getattr(manager.hook, hook).get_hookimpls():
        if each.plugin_name == plugin:
            return Implementation(plugin, each.function, tuple(each.argnames))
    return None


def _ask(implementation: Implementation, hook: str, collected: _Collected) -> Sequence[Any]:
    """The things that a hook registers, each of them right, and none with a name that is taken."""
    answer = _call(implementation, f"{hook} failed")
    if not isinstance(answer, Iterable):
        raise PluginError(f"{hook} returned a {type(answer).__name__}; it must return a list")
    things = list(_call(lambda: list(answer), f"{hook} failed"))
    kind, names = KINDS[hook], set[str]()
    for thing in things:
        _call(partial(check_contract, thing, kind.contract), f"what {hook} returned can't be looked at")
        owner = implementation.plugin if thing.name in names else collected.owners.get((kind.one, thing.name))
        if owner is not None:
            raise PluginError(f"there is a {kind.one} {thing.name!r} already, of plugin {owner!r}")
        names.add(thing.name)
    return things


def _call(function: Callable[[], Any], what: str) -> Any:
    """``function()``, with whatever a stranger's code raises as a PluginError. Only Ctrl-C passes."""
    try:
        return function()
    except (PluginError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the plugin boundary: SystemExit too is the plugin's own affair
        raise PluginError(f"{what}: {type(error).__name__}: {error}") from error


def _returning(module: ModuleType) -> Callable[[], object]:
    return lambda: module
