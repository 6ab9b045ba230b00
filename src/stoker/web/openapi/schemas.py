"""JSON Schemas of what is sent and taken, made from records and type hints."""

from __future__ import annotations

import collections.abc
import enum
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

Shape = Any
"""A type hint, as the fields of records have them, or a mapping: the members of an object and their shapes.

``May`` stands around a member that may be missing. ``Many``, ``Either`` and ``Both`` are lists, choices and objects
with the members of several; ``Said`` adds words of JSON Schema to a shape.
"""


@attrs.frozen
class Many:
    """A list of those."""

    shape: Shape


@attrs.frozen
class May:
    """A member that may be missing."""

    shape: Shape


@attrs.frozen
class Either:
    """One of several."""

    shapes: Sequence[Shape]


@attrs.frozen
class Both:
    """An object that is of all these shapes."""

    shapes: Sequence[Shape]


@attrs.frozen
class Said:
    """A shape, and what else is said of it in words of JSON Schema."""

    shape: Shape
    words: Mapping[str, Any]


def said(shape: Shape, **words: object) -> Said:
    """``shape``, with ``words`` of JSON Schema."""
    return Said(shape, words)


def optional(shape: Shape) -> May:
    """A member that may be missing; null says the same."""
    return May(Either((shape, None)))


def one_of(*values: object) -> Said:
    """One of ``values``."""
    return Said(Any, {"enum": list(values)})


_PLAIN: Mapping[Any, Mapping[str, Any]] = types.MappingProxyType(
    {
        str: {"type": "string"},
        bool: {"type": "boolean"},
        int: {"type": "integer"},
        float: {"type": "number"},
        None: {"type": "null"},
        type(None): {"type": "null"},
        Any: {},
        object: {},
    }
)
_LISTS = (tuple, list, frozenset, collections.abc.Sequence)


@attrs.define
class Schemas:
    """The schemas of one document. A record, or an enum, is one of its ``components``, and referred to elsewhere.

    ``names`` are for records whose class has the name of another one's.
    """

    names: Mapping[type, str] = attrs.field(factory=dict)
    components: dict[str, dict[str, Any]] = attrs.field(factory=dict)
    _kinds: dict[str, type] = attrs.field(factory=dict)

    def of(self, shape: Shape) -> dict[str, Any]:
        """The schema of ``shape``. Raises TypeError for a hint that has none, and for a second record of one name."""
        match shape:
            case Mapping():
                return self._object(shape)
            case Many():
                return {"type": "array", "items": self.of(shape.shape)}
            case Either():
                return {"anyOf": [self.of(each) for each in shape.shapes]}
            case Both():
                return {"allOf": [self.of(each) for each in shape.shapes]}
            case Said():
                return {**self.of(shape.shape), **shape.words}
        if isinstance(shape, type) and (attrs.has(shape) or issubclass(shape, enum.Enum)):
            return self._component(shape)
        if isinstance(shape, collections.abc.Hashable) and shape in _PLAIN:
            return dict(_PLAIN[shape])
        return self._generic(shape, typing.get_origin(shape), typing.get_args(shape))

    def _generic(self, shape: Shape, origin: object, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if origin in (types.UnionType, typing.Union):
            return {"anyOf": [self.of(each) for each in arguments]}
        if origin in _LISTS:
            return {"type": "array", "items": self.of(arguments[0])}
        if origin is collections.abc.Mapping:
            return {"type": "object", "additionalProperties": self.of(arguments[1]) or True}
        raise TypeError(f"{shape!r} has no JSON Schema here")

    def _object(self, members: Mapping[str, Shape]) -> dict[str, Any]:
        schema = {
            "type": "object",
            "properties": {
                name: self.of(shape.shape if isinstance(shape, May) else shape) for name, shape in members.items()
            },
        }
        required = [name for name, shape in members.items() if not isinstance(shape, May)]
        return {**schema, "required": required} if required else schema

    def _component(self, kind: type) -> dict[str, Any]:
        name = self.names.get(kind, kind.__name__)
        if self._kinds.setdefault(name, kind) is not kind:
            raise TypeError(f"{kind!r} and {self._kinds[name]!r} are both called {name}")
        if name not in self.components:
            self.components[name] = {}  # a record may hold others of its kind
            about = {"description": prose(kind)}
            if issubclass(kind, enum.Enum):
                self.components[name] = {**about, "type": "string", "enum": [each.value for each in kind]}
            else:
                self.components[name] = {**about, **self._object(sent(kind))}
        return {"$ref": f"#/components/schemas/{name}"}


def sent(record: type, *, besides: tuple[str, ...] = ()) -> dict[str, Shape]:
    """The members of ``record`` in an answer, which has all of them, but for those named in ``besides``."""
    hints = typing.get_type_hints(record)
    return {field.name: hints[field.name] for field in attrs.fields(record) if field.name not in besides}


def taken(record: type) -> dict[str, Shape]:
    """The members of ``record`` in the body of a request: what has a default may be left out, or be null."""
    hints = typing.get_type_hints(record)
    return {
        field.name: hints[field.name] if field.default is attrs.NOTHING else optional(hints[field.name])
        for field in attrs.fields(record)
    }


def prose(thing: object) -> str:
    """A docstring as Markdown."""
    text = getattr(thing, "__doc__", None)  # a plugin's may be anything
    return inspect.cleandoc(text).replace("``", "`") if isinstance(text, str) else ""
