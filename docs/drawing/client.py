"""The Python client: its classes, records and errors."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import get_overloads

import attrs

from drawing.marks import Parts
from drawing.prose import annotation, prose, record
from stoker import client

_THINGS: list[type] = [getattr(client, name) for name in client.__all__]
_ERRORS = [thing for thing in _THINGS if issubclass(thing, Exception)]
_FIRST = (client.UnifiedInferenceClient, client.AsyncUnifiedInferenceClient)


def _classes() -> str:
    others = [thing for thing in _THINGS if thing not in _ERRORS and thing not in _FIRST]
    return "\n\n".join(map(_class, (*_FIRST, *others)))


def _errors() -> str:
    tree = inspect.cleandoc(client.errors.__doc__ or "").partition("::\n\n")[2]
    sections = [f"## {each.__name__}\n\n{prose(each)}" for each in _ERRORS]
    return "\n\n".join(["```\n{}\n```".format(inspect.cleandoc(tree).replace("``", "")), *sections])


def _class(kind: type) -> str:
    if attrs.has(kind):
        return record(kind)
    parts = [f"## {kind.__name__}", _with_examples(kind)]
    for base in [base for base in kind.__mro__ if base.__module__.startswith("stoker.client")]:
        for name, member in vars(base).items():
            plain = member.__func__ if isinstance(member, classmethod) else member
            if name.startswith("_"):
                continue
            if isinstance(plain, property):
                parts += [f"**`{name}`**: `{annotation(plain.fget, 'return')}`", _with_examples(plain)]
            elif inspect.isfunction(plain):
                parts += [f"**{_call(plain)}**", _with_examples(plain)]
    return "\n\n".join(parts)


def _call(function: Callable[..., object]) -> str:
    """How a method is called, and what it returns: all it may return, where that depends on how it is called."""
    overloads = get_overloads(function)
    shown = overloads[0] if overloads else function
    words: list[str] = []
    for parameter in inspect.signature(shown).parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        words += [star + parameter.name] if parameter.name not in ("self", "cls") else []
    returned = [annotation(each, "return") for each in overloads or [function]]
    results = " | ".join(each for each in dict.fromkeys(returned) if each != "Any" or len(returned) == 1)
    kind = "async " if inspect.iscoroutinefunction(function) else ""
    return f"`{kind}{function.__name__}({', '.join(words)}) -> {results}`"


def _with_examples(thing: object) -> str:
    """A docstring as Markdown, its examples fenced."""
    fenced = re.sub(
        r"^>>>.*\n?(?:.+\n?)*", lambda found: f"```pycon\n{found[0].rstrip()}\n```\n", prose(thing), flags=re.MULTILINE
    )
    return fenced.rstrip()


PARTS: Parts = {"classes": _classes, "errors": _errors}
