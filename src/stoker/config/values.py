"""Structures plain values (from TOML or JSON) into records, strictly: nothing is converted silently."""

from __future__ import annotations

import collections.abc
import datetime as dt
import math
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError
from cattrs.gen import make_dict_structure_fn, override

from stoker.config.rules import OLDER, RULES, Rule
from stoker.errors import Mistake
from stoker.suggesting import suggestion

T = TypeVar("T")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)
_DEEPEST = 64


class Unfit(ValueError):  # noqa: N818 - said of a value
    """A value is not of the type its setting has."""


class Wrong(ValueError):  # noqa: N818 - it is a collection of mistakes, not one error
    """Mistakes inside one value, with their paths below it (``[1]``, ``.key``)."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(map(str, mistakes)))
        self.mistakes = mistakes


class Reader:
    """Structures records one by one and collects every mistake on the way."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self._converter = make_converter()

    def record(self, cls: type[T], value: object, path: str, spelled: Mapping[str, str] | None = None) -> T | None:
        """``value`` as a ``cls``. Its mistakes are kept, with ``path`` before theirs.

        With mistakes the record has what is left without the wrong settings, so that the search for contradictions
        can go on; None when there can be no such record. ``spelled`` maps a field to the name its writer used.
        """
        if not isinstance(value, Mapping):
            self.mistakes.append(Mistake(path, f"must be a table, not {describe(value)}"))
            return None
        try:
            return self._converter.structure(value, cls)
        except ClassValidationError as error:
            self.mistakes += _mistakes(error, cls, path, spelled or {})
            wrong = {note.name for _, note in error.group_exceptions()[0]}
        rest = {key: item for key, item in value.items() if key in RULES[cls].keys() - wrong}
        try:
            return self._converter.structure(rest, cls)
        except ClassValidationError:  # a required setting is among the wrong ones
            return None

    def value(self, cls: type, field: str, value: Any) -> Any:
        """``value`` as the field ``field`` of ``cls`` wants it, or None when it has mistakes."""
        try:
            return _ruled(self._converter, typing.get_type_hints(cls)[field], RULES[cls][field])(value, None)
        except ValueError as error:
            self.mistakes.extend(_one(error, field))
            return None

    def options(self, value: object, path: str) -> Mapping[str, Any]:
        """``value`` as a table of anything; empty when it has mistakes."""
        try:
            options: Mapping[str, Any] = self._converter.structure(value, Mapping[str, Any])  # type: ignore[type-abstract]
        except ValueError as error:
            self.mistakes.extend(_one(error, path))
            return {}
        return options


def make_converter() -> cattrs.Converter:
    """A converter for the records of ``stoker.toml``. Its errors carry the path of each mistake."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bool, _truth)
    converter.register_structure_hook(int, _whole)
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Path, _path)
    converter.register_structure_hook_factory(_is(tuple), partial(_tuple_hook, converter))
    converter.register_structure_hook_factory(_is(collections.abc.Mapping), partial(_mapping_hook, converter))
    converter.register_structure_hook(Any, _anything)
    for cls, rules in RULES.items():
        converter.register_structure_hook(cls, _record_hook(cls, rules, converter))
    return converter


def _is(origin: type) -> Callable[[Any], bool]:
    return lambda hint: typing.get_origin(hint) is origin


def _record_hook(cls: type[T], rules: Mapping[str, Rule], converter: cattrs.Converter) -> Callable[[Any, Any], T]:
    hints = typing.get_type_hints(cls)
    fields = {name: override(struct_hook=_ruled(converter, hints[name], rule)) for name, rule in rules.items()}
    return make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
        **fields,  # type: ignore[arg-type]
    )


def _ruled(converter: cattrs.Converter, hint: Any, rule: Rule) -> Callable[[Any, Any], Any]:
    """Structure by type, then look at the range."""

    def structure(value: Any, _hint: Any) -> Any:
        structured = converter.structure(value, hint)
        if structured is not None:
            rule.apply(structured)
        return structured

    return structure


# Types


def describe(value: object) -> str:
    """``value`` for an error message: what kind of thing it is, and as much of it as is easily read."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return f"the number {value}" if abs(value) < 10**15 else "a huge number"
        case float():
            return f"the number {value}"
        case str():
            return f'the text "{value if len(value) <= 40 else value[:37] + "..."}"'
        case list():
            return "a list"
        case Mapping():
            return "a table"
        case dt.date() | dt.time():
            return "a date or time"
        case None:
            return "nothing"
    return f"a {type(value).__name__}"


def _text(value: object, _hint: Any = None) -> str:
    if not isinstance(value, str):
        raise Unfit(f"must be a text in quotes, not {describe(value)}")
    if "\0" in value:
        raise ValueError("must not hold a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair, which is no character") from None
    return value


def _truth(value: object, _hint: Any) -> bool:
    if not isinstance(value, bool):
        raise Unfit(f"must be true or false, not {describe(value)}")
    return value


def _whole(value: object, _hint: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise Unfit(f"must be a whole number, not {describe(value)}")
    return value


def _number(value: object, _hint: Any = None) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit(f"must be a number, not {describe(value)}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError("must be a number of ordinary size, not a huge one") from None
    if not math.isfinite(number):
        raise Unfit(f"must be a finite number, not {number}")
    return number


def _path(value: object, _hint: Any) -> Path:
    text = _text(value)
    if not text:
        raise ValueError("must be a path, not an empty text")
    return Path(text)


def _anything(value: object, _hint: Any = None, depth: int = 0) -> Any:
    """Whatever JSON can say too, since it is shown as JSON again."""
    match value:
        case bool() | None:
            return value
        case str():
            return _text(value)
        case int():
            if abs(value) >= 2**63:
                raise ValueError("must fit into 64 bits")
            return value
        case float():
            return _number(value)
        case list() | Mapping() if depth == _DEEPEST:
            raise ValueError(f"must not be nested deeper than {_DEEPEST} levels")
        case list():
            return [_anything(item, depth=depth + 1) for item in value]
        case Mapping():
            return {_text(key): _anything(item, depth=depth + 1) for key, item in value.items()}
    raise Unfit(f"must be something JSON knows, not {describe(value)}")


def _tuple_hook(converter: cattrs.Converter, hint: Any) -> Callable[[Any, Any], tuple[Any, ...]]:
    inner = typing.get_args(hint)[0]

    def structure(value: object, _hint: Any) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise Unfit(f"must be a list, not {describe(value)}")
        return tuple(_each(((f"[{index}]", item) for index, item in enumerate(value)), converter, inner))

    return structure


def _mapping_hook(converter: cattrs.Converter, hint: Any) -> Callable[[Any, Any], Mapping[str, Any]]:
    inner = typing.get_args(hint)[1]

    def structure(value: object, _hint: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise Unfit(f"must be a table, not {describe(value)}")
        values = _each(((f".{quoted(key)}", item) for key, item in value.items()), converter, inner)
        return {_text(key): item for key, item in zip(value, values, strict=True)}

    return structure


def _each(items: Iterator[tuple[str, Any]], converter: cattrs.Converter, hint: Any) -> list[Any]:
    structured, mistakes = [], []
    for path, item in items:
        try:
            structured.append(converter.structure(item, hint))
        except ValueError as error:
            mistakes.extend(_one(error, path))
    if mistakes:
        raise Wrong(mistakes)
    return structured


# From exceptions to mistakes


def quoted(key: object) -> str:
    """A key as it stands in a path: bare where TOML would allow that."""
    text = str(key)
    return text if _BARE_KEY.fullmatch(text) else '"' + text.encode("unicode_escape").decode() + '"'


def join(path: str, key: str) -> str:
    """The path of ``key`` in the table at ``path``."""
    return f"{path}.{quoted(key)}" if path else quoted(key)


def suggested(name: str, known: Collection[str]) -> str:
    """The end of a sentence about a name that is not ``known``: the one that was probably meant, or all there are."""
    if OLDER.get(name) in known:
        return f"did you mean {OLDER[name]}?"
    return suggestion(name, sorted(known))


def unknown_key(key: str, path: str, known: Collection[str]) -> Mistake:
    """The mistake of a setting that does not exist."""
    return Mistake(join(path, key), f"is not a setting; {suggested(key, known)}")


def _mistakes(error: ClassValidationError, cls: type, path: str, spelled: Mapping[str, str]) -> Iterator[Mistake]:
    with_notes, without = error.group_exceptions()
    for inner, note in with_notes:
        where = join(path, spelled.get(note.name, note.name))
        if isinstance(inner, KeyError):
            yield Mistake(where, f"is missing. {RULES[cls][note.name].meaning}")
        else:
            yield from _one(inner, where)
    for inner in without:
        if not isinstance(inner, ForbiddenExtraKeysError):
            raise inner
        for key in sorted(inner.extra_fields):
            yield unknown_key(key, path, RULES[cls])


def _one(error: Exception, path: str) -> list[Mistake]:
    match error:
        case Wrong():
            return [attrs.evolve(mistake, path=path + mistake.path) for mistake in error.mistakes]
        case ValueError():
            return [Mistake(path, str(error))]
    raise error
