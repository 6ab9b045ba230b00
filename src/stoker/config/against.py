"""Settings held against what the plugins provide: the last question before anything is started."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

from stoker.config.policies import configured
from stoker.config.values import join, suggested
from stoker.containing import one_line, words
from stoker.contracts import EngineRuntime, GpuScheduler, RoutingPolicy
from stoker.errors import Mistake, PluginError
from stoker.model import EngineSpec
from stoker.settings import Settings
from stoker.vetting import check_runtime_on


class Provided(Protocol):
    """What of the plugin registry is looked at."""

    @property
    def runtimes(self) -> Mapping[str, EngineRuntime]:
        """The runtimes, by name."""
        ...

    @property
    def policies(self) -> Mapping[str, RoutingPolicy]:
        """The policies, by name."""
        ...

    @property
    def schedulers(self) -> Mapping[str, GpuScheduler]:
        """The schedulers, by name."""
        ...


def check_against(settings: Settings, provided: Provided) -> tuple[Mistake, ...]:
    """Every name in ``settings`` that no plugin provides, and all that runtimes and policies say of their settings."""
    return tuple(_mistakes(settings, provided))


def _mistakes(settings: Settings, provided: Provided) -> Iterator[Mistake]:
    yield from _name("gateway.policy", "policy", settings.gateway.policy, provided.policies)
    yield from _name("scheduler", "scheduler", settings.scheduler, provided.schedulers)
    for name in settings.runtimes:
        yield from _name(join("runtime", name), "runtime", name, provided.runtimes)
    yield from configured(settings.policies, provided.policies)[1]
    for index, spec in enumerate(settings.engines):
        path = f"engine[{index}]"
        if spec.policy is not None:
            yield from _name(join(path, "policy"), "policy", spec.policy, provided.policies)
        yield from _spec(spec, provided.runtimes, path)


def _spec(spec: EngineSpec, runtimes: Mapping[str, EngineRuntime], path: str) -> Iterator[Mistake]:
    if spec.runtime not in runtimes:
        yield from _name(join(path, "runtime"), "runtime", spec.runtime, runtimes)
        return
    try:
        complaints, _ = check_runtime_on(runtimes[spec.runtime], spec)
    except PluginError as error:
        yield Mistake(path, words(error))
    else:
        yield from (Mistake(path, one_line(complaint)) for complaint in complaints)


def _name(path: str, what: str, name: str, known: Collection[str]) -> Iterator[Mistake]:
    if name not in known:
        yield Mistake(path, f"there is no {what} {name!r}; {suggested(name, known)}")
