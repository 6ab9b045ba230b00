"""Loads plugins one after the other. What is wrong with one of them leaves it out whole, and hurts no other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import attrs
import pluggy

from stoker import hookspecs
from stoker.builtin import policies, runtimes, schedulers
from stoker.containing import aside, contained, words
from stoker.contracts import EngineRuntime, GpuScheduler, RoutingPolicy
from stoker.errors import PluginError
from stoker.hookspecs import PROJECT
from stoker.plugins.checking import arguments_taken, check_hooks, check_kind, check_marked
from stoker.plugins.finding import Source
from stoker.plugins.registry import Implementation, PluginRecord, Registry
from stoker.vetting import check_contract

BUILTINS: Sequence[ModuleType] = (runtimes, policies, schedulers)
HOOKS: Mapping[str, Callable[..., object]] = MappingProxyType(
    {name: function for name, function in vars(hookspecs).items() if name.startswith(f"{PROJECT}_")}
)


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
    """Load ``sources`` in their order and ask each what it provides. The same one, found twice, counts once.

    A plugin that is broken is left out, with nothing of it remaining but its record. Raises :class:`PluginError` naming
    it instead where it is one of Stoker's own, or ``strict``. Hooks that register no contract objects are not called
    here, only kept: see :meth:`Registry.implementations`.
    """
    collected = _Collected()
    for source in sources:
        if not collected.is_new(source):
            continue
        try:
            with aside(), contained("it can't be looked at"):
                found = _take_in(source, collected)
        except PluginError as error:
            problem = words(error)
            if strict or source.builtin:
                raise PluginError(f"plugin {source.name!r} ({source.origin}): {problem}") from error
            collected.records.append(PluginRecord(name=source.name, origin=source.origin, problem=problem))
        else:
            collected.add(source, found)
    return collected.registry()


@attrs.frozen
class _Found:
    """One plugin that is right, and all that it provides."""

    plugin: object
    record: PluginRecord
    things: Mapping[str, Mapping[str, Any]]
    implementations: Mapping[str, Implementation]


@attrs.define
class _Collected:
    """What there is so far."""

    things: dict[str, dict[str, Any]] = attrs.field(factory=lambda: {hook: {} for hook in KINDS})
    owners: dict[tuple[str, str], str] = attrs.field(factory=dict)
    hooks: dict[str, list[Implementation]] = attrs.field(factory=dict)
    records: list[PluginRecord] = attrs.field(factory=list)
    plugins: dict[str, tuple[Source, object]] = attrs.field(factory=dict)
    _seen: set[tuple[str, str, Path | None]] = attrs.field(factory=set)

    def is_new(self, source: Source) -> bool:
        """Whether it was not found before, in this place or through another one."""
        identity = (source.name, source.target, source.file)
        new = identity not in self._seen
        self._seen.add(identity)
        return new

    def add(self, source: Source, found: _Found) -> None:
        self.plugins[source.name] = source, found.plugin
        self.records.append(found.record)
        for hook, things in found.things.items():
            self.things[hook].update(things)
            self.owners.update({(KINDS[hook].one, name): source.name for name in things})
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


def _take_in(source: Source, collected: _Collected) -> _Found:
    """Load, check and ask one plugin. Raises PluginError, or what the plugin raises, for whatever is wrong with it."""
    if source.name in collected.plugins:
        other, _ = collected.plugins[source.name]
        raise PluginError(
            f"there is another plugin of that name, {other.origin}, which is used; give one of them another name, or "
            "take one away"
        )
    with contained("it can't be loaded"):
        plugin = source.load()
    for other, known in collected.plugins.values():
        if known is plugin:
            raise PluginError(f"it is the plugin {other.name!r} ({other.origin}) under another name; that one is used")
    implementations = _implementations(plugin, source.name)
    things = {hook: _ask(implementations.pop(hook), hook, collected) for hook in KINDS if hook in implementations}
    provides = {KINDS[hook].many: tuple(found) for hook, found in things.items()}
    provides["hooks"] = tuple(implementations)
    record = PluginRecord(name=source.name, origin=source.origin, provides=provides)
    return _Found(plugin, record, things, implementations)


def _implementations(plugin: object, name: str) -> dict[str, Implementation]:
    """The hooks of a plugin. It has a manager of its own: so nothing of one that fails halfway is left anywhere."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hookspecs)
    check_marked(plugin, HOOKS)
    try:
        manager.register(plugin, name=name)
    except pluggy.PluginValidationError as error:
        raise PluginError(str(error).rpartition("\n")[2] or str(error)) from error
    check_hooks(plugin, manager, HOOKS)
    found = {}
    for hook, asked in HOOKS.items():
        for each in getattr(manager.hook, hook).get_hookimpls():
            check_kind(hook, each.function, wraps=each.wrapper or each.hookwrapper)
            found[hook] = Implementation(name, each.function, arguments_taken(each.function, asked))
    return found


def _ask(implementation: Implementation, hook: str, collected: _Collected) -> Mapping[str, Any]:
    """The things that a hook registers, by name, each of them right, and none with a name that is taken."""
    with contained(f"{hook} failed"):
        answer = implementation()
        if inspect.iscoroutine(answer):
            answer.close()  # or Python complains that nobody waited for it
        if not isinstance(answer, Iterable):
            raise PluginError(f"{hook} returned a {type(answer).__name__}; it must return a list")
        things = list(answer)
    with contained(f"what {hook} returned can't be looked at"):
        return _named(things, hook, implementation.plugin, collected)


def _named(things: Iterable[Any], hook: str, plugin: str, collected: _Collected) -> Mapping[str, Any]:
    kind, named = KINDS[hook], dict[str, Any]()
    for thing in things:
        check_contract(thing, kind.contract)
        name = thing.name
        owner = plugin if name in named else collected.owners.get((kind.one, name))
        if owner is not None:
            raise PluginError(f"there is a {kind.one} {name!r} already, of plugin {owner!r}")
        named[name] = thing
    return named


def _returning(module: ModuleType) -> Callable[[], object]:
    return lambda: module
