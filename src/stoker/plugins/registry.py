"""What plugins provide, by name, and what became of each plugin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

import attrs

from stoker.contracts import EngineRuntime, GpuScheduler, RoutingPolicy
from stoker.errors import NotFoundError
from stoker.suggesting import suggestion


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


@attrs.frozen
class Implementation:
    """One plugin's implementation of one hook. Called with the hook's arguments, it leaves out those it does not take.

    It raises whatever the plugin raises.
    """

    plugin: str
    function: Callable[..., Any]
    takes: tuple[str, ...]

    def __call__(self, **arguments: object) -> Any:
        """What the plugin returns."""
        return self.function(**{name: arguments[name] for name in self.takes})


@attrs.frozen(kw_only=True)
class PluginRecord:
    """A plugin that was found: where, what it provides, and why it was left out if it was.

    ``provides`` holds names for ``runtimes``, ``policies`` and ``schedulers``, and the names of all other hooks that it
    implements under ``hooks``.
    """

    name: str
    origin: str
    provides: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    problem: str | None = None


@attrs.frozen
class Registry:
    """Everything that plugins provide, by name.

    ``owners`` tells which plugin something came from, by what it is (``policy``, …) and its name. ``records`` has all
    plugins that were found, also those that were left out.
    """

    runtimes: Mapping[str, EngineRuntime]
    policies: Mapping[str, RoutingPolicy]
    schedulers: Mapping[str, GpuScheduler]
    owners: Mapping[tuple[str, str], str] = MappingProxyType({})
    records: tuple[PluginRecord, ...] = ()
    hooks: Mapping[str, tuple[Implementation, ...]] = MappingProxyType({})

    @property
    def plugins(self) -> tuple[str, ...]:
        """The names of the plugins that take part."""
        return tuple(record.name for record in self.records if record.problem is None)

    @property
    def left_out(self) -> Mapping[str, str]:
        """What was wrong with each plugin that was left out, by its name."""
        return {record.name: record.problem for record in self.records if record.problem is not None}

    def implementations(self, hook: str) -> Sequence[Implementation]:
        """Those of one of the hooks that register no contract objects, in the order of the plugins."""
        return self.hooks.get(hook, ())

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
        raise NotFoundError(f"there is no {what} {name!r}; {suggestion(name, sorted(known))}") from None
