"""Docstrings, signatures, records and tables as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence

import attrs

from stoker.model import NOTHING


def prose(thing: object) -> str:
    """A docstring as Markdown."""
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    return re.sub(r":\w+:`[~.]?(?:[\w.]+\.)?(\w+)`", r"`\1`", text).replace("``", "`")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; what stands in a cell is brought into one line."""
    lines = (head, ["---"] * len(head), *([cell(text) for text in row] for row in rows))
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines)


def cell(text: str) -> str:
    """``text`` as it can stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


def signature(function: Callable[..., object]) -> str:
    """How a function is called, and what it returns."""
    names = [name for name in inspect.signature(function).parameters if name != "self"]
    return f"`{function.__name__}({', '.join(names)}) -> {annotation(function, 'return')}`"


def annotation(function: object, name: str) -> str:
    """What stands at a parameter, or at ``return``."""
    return str(getattr(function, "__annotations__", {}).get(name, ""))


def record(kind: type[attrs.AttrsInstance]) -> str:
    """A section about a record: what it is, its fields, and what is derived from them."""
    fields = [f"`{field.name}: {kind.__annotations__[field.name]}{_default(field)}`" for field in attrs.fields(kind)]
    derived = [
        f"- {signature(member)}: {prose(member)}" if inspect.isfunction(member) else f"- `{name}`: {prose(member)}"
        for name, member in vars(kind).items()
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
    ]
    return "\n\n".join(filter(None, [f"## {kind.__name__}", prose(kind), ", ".join(fields), "\n".join(derived)]))


def _default(field: attrs.Attribute[object]) -> str:
    if field.default is attrs.NOTHING:
        return ""
    if field.default is NOTHING:
        return " = {}"
    return f" = {field.default!r}"
