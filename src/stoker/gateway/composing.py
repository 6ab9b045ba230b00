"""Bodies of chat requests in a conversation: what they say, and what is sent with it of what was before."""

from __future__ import annotations

import json
from typing import NoReturn

from stoker.core.codes import Code
from stoker.core.conversation import History, Message
from stoker.gateway.answers import Answer, error
from stoker.gateway.members import members

_SHAPE = "'messages' must be a list of messages, each an object with a 'role', and have at least one: the new ones"


def own_messages(body: bytes) -> tuple[Message, ...] | Answer:
    """The messages of ``body``, which a :class:`~stoker.gateway.asking.BodyReader` has accepted, or what is wrong."""
    text = body.decode()
    written = "null"
    for name, start, end in members(text):
        if name == "messages":
            written = text[start:end]
    try:
        messages = json.loads(written, parse_constant=_refuse)
        json.dumps(messages, allow_nan=False)  # 1e999 is read as infinity
    except ValueError as wrong:
        return error(Code.INVALID_BODY, f"'messages' can't be kept: {wrong}", param="messages")
    if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
        return error(Code.INVALID_TYPE, _SHAPE, param="messages")
    return tuple(messages)


def composed(body: bytes, history: History, own: tuple[Message, ...]) -> bytes:
    """``body`` with all that was said before, and without ``session_id``; other members stay as they were written."""
    text = body.decode()
    parts: dict[int, str] = {}
    at = 0
    for number, (name, start, end) in enumerate(members(text)):
        if name == "messages":
            at = number
        elif name != "session_id":
            parts[number] = f"{json.dumps(name)}: {text[start:end]}"
    parts[at] = f'"messages": {json.dumps(history.before(own), ensure_ascii=False)}'
    try:
        return f"{{{', '.join(parts[number] for number in sorted(parts))}}}".encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which has to stay an escape
        parts[at] = f'"messages": {json.dumps(history.before(own))}'
        return f"{{{', '.join(parts[number] for number in sorted(parts))}}}".encode()


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")
