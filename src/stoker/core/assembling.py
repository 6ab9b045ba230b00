"""Puts the message of an assistant together from the chunks of a stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stoker.core.conversation import Message

# Said once and whole; some engines say them again with every piece.
_ONCE = frozenset({"role", "id", "type", "index", "name"})


class Assembly:
    """The first choice of a streamed answer, as it grows.

    ``spoke`` says that there was a chunk of it, ``failed`` that the engine told of an error in the stream.
    """

    def __init__(self) -> None:
        self.spoke = False
        self.failed = False
        self._message: dict[str, Any] = {}

    def add(self, chunk: object) -> None:
        """Take in the data of one event. What is no chunk of a chat is passed over."""
        if not isinstance(chunk, Mapping):
            return
        if chunk.get("error"):
            self.failed = True
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else []:
            if isinstance(choice, Mapping) and choice.get("index", 0) == 0 and isinstance(choice.get("delta"), Mapping):
                self.spoke = True
                _merge(self._message, choice["delta"])

    @property
    def message(self) -> Message | None:
        """All that was said so far; None if that is nothing."""
        built = {name: _built(value) for name, value in self._message.items()}
        if not any(value for name, value in built.items() if name != "role"):
            return None
        return {**built, "role": "assistant"}


class _Text(list[str]):
    """A text in pieces: joining them again and again would take long."""


class _Items(dict[int, dict[str, Any]]):
    """A list whose items grow, by their index."""


def _merge(into: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for name, value in delta.items():
        there = into.get(name)
        if isinstance(value, str) and name not in _ONCE:
            if not isinstance(there, _Text):
                there = into[name] = _Text()
            there.append(value)
        elif isinstance(value, Mapping):
            if not isinstance(there, dict) or isinstance(there, _Items):
                there = into[name] = {}
            _merge(there, value)
        elif isinstance(value, list):
            if not isinstance(there, _Items):
                there = into[name] = _Items()
            _merge_items(there, value)
        elif value or name not in into:
            into[name] = value


def _merge_items(into: _Items, items: list[Any]) -> None:
    for item in items:
        if isinstance(item, Mapping):
            index = item.get("index")
            place = index if isinstance(index, int) else max(into, default=-1) + 1
            _merge(into.setdefault(place, {}), item)


def _built(value: Any) -> Any:
    match value:
        case _Text():
            return "".join(value)
        case _Items():
            items = (value[index] for index in sorted(value))
            return [{name: _built(part) for name, part in item.items() if name != "index"} for item in items]
        case dict():
            return {name: _built(part) for name, part in value.items()}
    return value
