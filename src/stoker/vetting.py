"""Holds what plugins bring, and what they answer when they are asked, against the contracts.

All complaints are :class:`PluginError`. Those of :func:`check_contract` don't name the plugin, which the caller knows.
"""

from __future__ import annotations

import collections.abc
import inspect
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Union, get_args, get_origin, get_type_hints

import attrs

from stoker.containing import contained, described, is_text
from stoker.contracts import NEEDS, Configurable, EngineRuntime, Explaining, Narrating, RoutingPolicy
from stoker.errors import PluginError
from stoker.model import EngineSpec

NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


def check_contract(thing: object, contract: type) -> None:
    """Complain of what ``thing`` lacks to be a ``contract``: one of the Protocols of :mod:`stoker.contracts`."""
    if inspect.isclass(thing):
        raise PluginError(f"{thing.__name__} is a class; give an instance of it: {thing.__name__}()")
    what = f"{type(thing).__name__} is no {contract.__name__}"
    for name, asked in _members(contract):
        if not hasattr(thing, name):
            raise PluginError(f"{what}: it has no {name!r}")
        if inspect.isfunction(asked):
            _check_method(getattr(thing, name), asked, what)
        elif isinstance(asked, property) and name not in ("name", "needs"):
            _check_value(getattr(thing, name), name, get_type_hints(asked.fget)["return"], what)
    named = getattr(thing, "name", None)
    if not isinstance(named, str) or not NAME.fullmatch(named):
        raise PluginError(f"{what}: its name is {named!r}, and must be lower case letters, digits and hyphens")
    if contract is RoutingPolicy:
        _check_needs(getattr(thing, "needs", None), what)
    for method in _need_not_have(contract):
        if hasattr(thing, method.__name__):
            _check_method(getattr(thing, method.__name__), method, what)


def check_runtime_on(runtime: EngineRuntime, spec: EngineSpec) -> tuple[Sequence[str], frozenset[str]]:
    """What ``runtime`` has against ``spec``, and the paths that an engine of it will serve if that is nothing.

    Raises :class:`PluginError` that names the runtime where it breaks, or answers what is neither.
    """
    with contained(f"runtime {spec.runtime!r} broke when it was asked about {spec.model!r}"):
        complaints = _texts(runtime.check(spec), "check", "a list of texts")
        if complaints:
            return complaints, frozenset()
        paths = runtime.paths(spec)
        for path in _texts(paths, "paths", "a set of texts"):
            if not path.startswith("/"):
                raise TypeError(f"paths gave {path!r}, which does not begin with /")
        return (), frozenset(paths)


def _texts(answer: object, method: str, wanted: str) -> tuple[str, ...]:
    texts = tuple(answer) if isinstance(answer, Iterable) and not is_text(answer) else (None,)
    if not all(map(is_text, texts)):
        raise TypeError(f"{method} must return {wanted}, not {described(answer)}")
    return texts


def _need_not_have(contract: type) -> Sequence[Callable[..., object]]:
    """The methods that a thing of that contract may have besides."""
    if contract is RoutingPolicy:
        return (Explaining.explain, Configurable.configured)
    return (Narrating.start_progress,) if contract is EngineRuntime else ()


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
        raise PluginError(f"{what}: its needs are {described(needs)}, and must be a set of texts")
    if unknown := needs - NEEDS:
        known = ", ".join(sorted(NEEDS))
        raise PluginError(f"{what}: it needs {', '.join(map(repr, sorted(map(str, unknown))))}; there is only: {known}")


def _check_value(value: object, name: str, kind: Any, what: str) -> None:
    """Complain of a value that is not of the ``kind`` that its annotation says, or of what in it is not."""
    if misfit := next(_misfits(value, name, kind), None):
        raise PluginError(f"{what}: {misfit}")


def _misfits(value: object, name: str, kind: Any) -> Iterator[str]:
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        if not any(_is_of(value, each) for each in inner):
            yield f"its {name} is {described(value)}, and must be {' or '.join(map(_called, inner))}"
            return
        kind = type(value)
    elif not _is_of(value, kind):
        yield f"its {name} is {described(value)}, and must be {_called(kind)}"
        return
    if attrs.has(kind):
        for field, its_kind in get_type_hints(kind).items():
            yield from _misfits(getattr(value, field), f"{name}.{field}", its_kind)


def _is_of(value: object, kind: Any) -> bool:
    """Whether it is: a record, a plain value, a tuple of such or a mapping of such. A list will do for a tuple."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is tuple:
        return isinstance(value, tuple | list) and all(_is_of(each, inner[0]) for each in value)
    if origin is collections.abc.Mapping:
        return isinstance(value, Mapping) and all(
            _is_of(key, inner[0]) and _is_of(each, inner[1]) for key, each in value.items()
        )
    return isinstance(value, kind)


def _called(kind: Any) -> str:
    """What people call it."""
    if kind is types.NoneType:
        return "None"
    if get_origin(kind) is tuple:
        return "a tuple of texts"
    if get_origin(kind) is collections.abc.Mapping:
        return "a mapping of texts"
    return "a text" if kind is str else f"an {kind.__name__}"
