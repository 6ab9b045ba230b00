"""Giving a request's model the name by which its engine knows it."""

from __future__ import annotations

import json
from types import GenericAlias, ModuleType

from stoker.gateway.forms import field_values, is_form
from stoker.gateway.members import members


def rewrite_model(content_type: bytes, body: bytes, name: str, msgspec: ModuleType | None) -> bytes:
    """``body``, which a :class:`~stoker.gateway.asking.BodyReader` has accepted, asking for the model ``name``.

    Everything else in it means what it meant: forms and the values of other members stay as they are, byte for byte.
    Where ``msgspec`` is given, white space between the top level's members goes, and of several of one name all but
    the last.
    """
    if is_form(content_type):
        return _replaced(body, field_values(content_type, body, b"model"), name.encode())
    if msgspec is None:
        return _rewritten_json(body, name)
    try:
        members = msgspec.json.decode(body, type=GenericAlias(dict, (str, msgspec.Raw)))
    except msgspec.DecodeError:  # NaN, or half of a surrogate pair
        return _rewritten_json(body, name)
    members["model"] = name
    encoded: bytes = msgspec.json.encode(members)
    return encoded


def _rewritten_json(body: bytes, name: str) -> bytes:
    """With nothing but the values of ``model`` replaced."""
    text = body.decode()
    new = json.dumps(name)
    pieces: list[str] = []
    copied = 0
    for member, start, end in members(text):
        if member == "model":
            pieces += (text[copied:start], new)
            copied = end
    return "".join([*pieces, text[copied:]]).encode()


def _replaced(body: bytes, values: list[slice], new: bytes) -> bytes:
    pieces: list[bytes] = []
    copied = 0
    for value in values:
        pieces += (body[copied : value.start], new)
        copied = value.stop
    return b"".join([*pieces, body[copied:]])
