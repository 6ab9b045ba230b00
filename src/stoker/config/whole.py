"""What no single setting can be wrong about: settings that contradict each other."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from stoker.config.listen import parse_listen
from stoker.errors import Mistake
from stoker.model import EngineSpec
from stoker.settings import GatewaySettings

Engines = Sequence[tuple[str, EngineSpec]]
T = TypeVar("T", bound=Hashable)


def contradictions(engines: Engines, gateway: GatewaySettings | None) -> Iterator[Mistake]:
    """Every contradiction among ``engines``, each given with its path, and with the gateway's address."""
    for path, spec in engines:
        yield from within(path, spec)
    yield from _labels(engines)
    yield from _names(engines)
    yield from _policies(engines)
    yield from _ports(engines, gateway)
    if gateway is not None and gateway.keyfile is not None and gateway.certfile is None:
        yield Mistake("gateway.keyfile", "is the key of a certificate; name that in certfile")


def within(path: str, spec: EngineSpec) -> Iterator[Mistake]:
    """Contradictions inside one spec."""
    prefix = f"{path}." if path else ""
    if spec.port is not None and spec.replicas > 1:
        yield Mistake(
            f"{prefix}port", f"can't be fixed for {spec.replicas} replicas, which need one each; leave it out"
        )
    if spec.url is not None and spec.replicas > 1:
        yield Mistake(f"{prefix}replicas", "can't be more than one at one URL; give each URL an [[engine]] of its own")


def _labels(engines: Engines) -> Iterator[Mistake]:
    labels = ((path, spec.label.casefold()) for path, spec in engines if spec.label is not None)
    for path, label, first in _repeated(labels):
        yield Mistake(f"{path}.label", f"{label!r} is already the label of {first}; labels must differ")


def _names(engines: Engines) -> Iterator[Mistake]:
    owners: dict[str, tuple[str, str]] = {}
    for path, spec in engines:
        for index, name in enumerate((spec.model, *spec.names)):
            model, first = owners.setdefault(name, (spec.model, path))
            if model != spec.model:
                where = f"{path}.names[{index - 1}]" if index else f"{path}.model"
                yield Mistake(
                    where,
                    f"{name!r} already means the model {model!r} of {first}; one name can't mean two models "
                    "(replicas have the same model)",
                )


def _policies(engines: Engines) -> Iterator[Mistake]:
    said: dict[str, tuple[str, str]] = {}
    for path, spec in engines:
        if spec.policy is None:
            continue
        policy, first = said.setdefault(spec.model, (spec.policy, path))
        if policy != spec.policy:
            yield Mistake(
                f"{path}.policy",
                f"{spec.policy!r} is not {policy!r}, by which {first} says that {spec.model!r} goes; one model has one "
                "policy",
            )


def _ports(engines: Engines, gateway: GatewaySettings | None) -> Iterator[Mistake]:
    ports = [(path, spec.port) for path, spec in engines if spec.port is not None and spec.url is None]
    for path, port, first in _repeated(ports):
        yield Mistake(f"{path}.port", f"{port} is already the port of {first}")
    if gateway is not None:
        taken = parse_listen(gateway.listen).port
        for path, port in ports:
            if port == taken:
                yield Mistake(f"{path}.port", f"{port} is where the gateway listens; choose another, or leave it out")


def _repeated(items: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T, str]]:
    """Those whose value was there before: path, value, path of the first."""
    first: dict[T, str] = {}
    for path, value in items:
        if value in first:
            yield path, value, first[value]
        else:
            first[value] = path
