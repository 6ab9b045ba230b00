"""What the gateway reads of a request's body: the model it asks for, and whether it asks for a stream.

Two readers do it. They give the same for every body: what msgspec does not take is decided by the standard library.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from types import ModuleType
from typing import Any, Protocol

import attrs

from stoker.core.codes import Code
from stoker.gateway.answers import Answer, error
from stoker.gateway.forms import FormError, field_values, is_form
from stoker.gateway.nesting import DEPTH, is_deep


@attrs.define
class Asked:
    """What a request asks for. ``session_id`` is what it names as its conversation, whatever that is."""

    model: str
    stream: bool = False
    session_id: object = None


class BodyReader(Protocol):
    """Reads bodies: JSON, or a form where the content type says so."""

    large_body: int
    """Bytes from which on reading belongs into a thread.

    One call of a C function holds the interpreter from its begin to its end, in whichever thread it runs. So a thread
    helps only between several long ones, and what is read within a few milliseconds is read faster without.
    """

    def read(self, content_type: bytes, body: bytes) -> Asked | Answer:
        """What ``body`` asks for, or the error that says what is wrong. ``content_type`` is empty where none is given.

        Of several members (or fields) of one name the last counts, as in the engines. The body is not changed.
        """
        ...


class JsonReader:
    """The one that is always there."""

    large_body = 512 * 1024

    def __init__(self) -> None:
        # The value of a number is of no interest, and int refuses one of thousands of digits.
        self._decode = json.JSONDecoder(parse_int=len).decode

    def read(self, content_type: bytes, body: bytes) -> Asked | Answer:
        """See :class:`BodyReader`."""
        return _read_form(content_type, body) if is_form(content_type) else self.read_json(body)

    def read_json(self, body: bytes) -> Asked | Answer:
        """Read a body that is no form."""
        try:
            asked = self._decode(body.decode())
        except UnicodeDecodeError as wrong:
            return _malformed(f"the body is not UTF-8: {wrong.reason} at byte {wrong.start}")
        except json.JSONDecodeError as wrong:
            if body.startswith(codecs.BOM_UTF8):
                return _malformed("the body is not JSON: it begins with a byte order mark; leave that out")
            return _malformed(f"the body is not JSON: {wrong.msg} at line {wrong.lineno}, column {wrong.colno}")
        except RecursionError:
            return _too_deep()
        if is_deep(body):
            return _too_deep()
        if not isinstance(asked, dict):
            return _malformed("the body must be a JSON object with the member 'model'")
        model = asked.get("model")
        if model is None:
            message = "the body does not say which model: add the member 'model'"
            return error(Code.MISSING, message, param="model")
        return _asked(model, stream=asked.get("stream") is True, session_id=asked.get("session_id"))


class MsgspecReader:
    """The fast one: it decodes three members and steps over the rest. ``msgspec`` is the module."""

    large_body = 512 * 1024

    def __init__(self, msgspec: ModuleType) -> None:
        self._no_session = msgspec.Raw(b"")
        members = [("model", str), ("stream", bool | None, None), ("session_id", msgspec.Raw, self._no_session)]
        glance = msgspec.defstruct("Glance", members, gc=False)
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(glance).decode
        self._refusals = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
        self._referee = JsonReader().read_json

    def read(self, content_type: bytes, body: bytes) -> Asked | Answer:
        """See :class:`BodyReader`."""
        if is_form(content_type):
            return _read_form(content_type, body)
        try:
            if not body.isascii():
                body.decode()  # msgspec does not look at the bytes of a string that it steps over
            asked = self._decode(body)
        except self._refusals:
            return self._referee(body)
        if not asked.model or is_deep(body):
            return self._referee(body)
        if asked.session_id is not self._no_session:
            return self._referee(body)
        return Asked(asked.model, asked.stream is True)


def best_reader(msgspec: ModuleType | None) -> BodyReader:
    """The fastest reader there is, given the module or None where it could not be loaded."""
    return JsonReader() if msgspec is None else MsgspecReader(msgspec)


def _read_form(content_type: bytes, body: bytes) -> Asked | Answer:
    try:
        values = field_values(content_type, body, b"model")
    except FormError as wrong:
        return _malformed(str(wrong))
    if not values:
        message = "the form does not say which model: add the field 'model', and end it with a boundary"
        return error(Code.MISSING, message, param="model")
    try:
        model = body[values[-1]].decode()
    except UnicodeDecodeError:
        return _malformed("the form's field 'model' is not UTF-8")
    return _asked(model, stream=False)


def _asked(model: object, *, stream: bool, session_id: object = None) -> Asked | Answer:
    if not isinstance(model, str):
        return error(Code.INVALID_TYPE, f"'model' must be a string, not {type(model).__name__}", param="model")
    if not model:
        return error(Code.MISSING, "'model' is empty: it must name a model", param="model")
    try:
        model.encode()
    except UnicodeEncodeError:
        return _malformed("'model' holds half of a surrogate pair, which is no character")
    return Asked(model, stream, session_id)


def _too_deep() -> Answer:
    return _malformed(f"the body is nested too deeply: more than {DEPTH} levels")


def _malformed(message: str) -> Answer:
    return error(Code.INVALID_BODY, message)
