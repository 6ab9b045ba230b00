"""What some policies must see of a body besides its model: the prompt, and whose conversation it belongs to.

A second reading, for the models of such policies alone. As with :mod:`~stoker.gateway.asking`, there are two readers,
and what msgspec does not take is left to the standard library.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from operator import attrgetter
from types import ModuleType
from typing import Any

import attrs

from stoker.gateway.forms import FormError, field_values, is_form
from stoker.gateway.members import members

PROMPT = ("instructions", "system", "tools", "messages", "prompt", "input")
SESSION = ("session_id", "prompt_cache_key", "user")
_WANTED = frozenset({*PROMPT, *SESSION})


@attrs.define
class Said:
    """What :attr:`stoker.model.RouteRequest.prompt` and ``session`` are."""

    prompt: bytes = b""
    session: str = ""


SayingReader = Callable[[bytes, bytes], Said]
"""Reads a body that a :class:`~stoker.gateway.asking.BodyReader` has accepted, given its content type and the body."""


def read_plainly(content_type: bytes, body: bytes) -> Said:
    """The reader that is always there."""
    if is_form(content_type):
        return _of_form(content_type, body)
    text = body.decode()
    found = {name: text[start:end] for name, start, end in members(text) if name in _WANTED}
    prompt = "".join([found.get(name, "") for name in PROMPT]).encode()
    return Said(prompt, _first_text(found.get(name, "").encode() for name in SESSION))


def best_saying_reader(msgspec: ModuleType | None) -> SayingReader:
    """The fastest reader there is, given the module or None where it could not be loaded."""
    if msgspec is None:
        return read_plainly
    nothing = msgspec.Raw(b"")
    said = msgspec.defstruct("Said", [(name, msgspec.Raw, nothing) for name in (*PROMPT, *SESSION)], gc=False)
    decode: Callable[[bytes], Any] = msgspec.json.Decoder(said).decode
    prompt_of, session_of = attrgetter(*PROMPT), attrgetter(*SESSION)

    def read(content_type: bytes, body: bytes) -> Said:
        if is_form(content_type):
            return _of_form(content_type, body)
        try:
            found = decode(body)
        except msgspec.DecodeError:  # NaN, or half of a surrogate pair
            return read_plainly(content_type, body)
        return Said(b"".join(prompt_of(found)), _first_text(map(bytes, session_of(found))))

    return read


def _first_text(values: Iterable[bytes]) -> str:
    """The first of some JSON values that is a text with something in it."""
    for value in values:
        if value.startswith(b'"') and (text := _text(value.decode())):
            return text
    return ""


def _text(value: str) -> str:
    """The text that a JSON value is, or an empty one where half of a surrogate pair makes it none."""
    text: str = json.loads(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        return ""
    return text


def _of_form(content_type: bytes, body: bytes) -> Said:
    for name in SESSION:
        try:
            values = field_values(content_type, body, name.encode())
            text = body[values[-1]].decode() if values else ""
        except (FormError, UnicodeDecodeError):
            continue
        if text:
            return Said(session=text)
    return Said()
