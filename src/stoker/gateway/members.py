"""Walks over the members of a JSON object with the standard library, without losing the text they were written as."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

_BETWEEN = re.compile(r"[ \t\n\r]*[{:,]?[ \t\n\r]*")


def members(text: str) -> Iterator[tuple[str, int, int]]:
    """Each member of the object that ``text`` is: its name, and where its value begins and ends.

    ``text`` is valid: a :class:`~stoker.gateway.asking.BodyReader` has accepted it.
    """
    decode = json.JSONDecoder(parse_int=len).raw_decode  # int refuses a number of thousands of digits
    place = _behind(text, 0)
    while text[place] != "}":
        name, place = decode(text, place)
        start = _behind(text, place)
        _, end = decode(text, start)
        yield name, start, end
        place = _behind(text, end)


def _behind(text: str, place: int) -> int:
    """Where the next name or value begins: behind the mark that stands here, and the white space around it."""
    found = _BETWEEN.match(text, place)
    assert found is not None
    return found.end()
