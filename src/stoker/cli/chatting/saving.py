"""What ``/save`` writes. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from stoker.cli.chatting.conversation import Conversation, Ending, Message, spoken
from stoker.cli.chatting.plain_text import escaped, harmless, one_line

MARKDOWN = frozenset({".md", ".markdown"})
SUFFIXES = MARKDOWN | {".json"}
_NAMES = {"system": "System", "user": "You", "assistant": "Answer"}


@attrs.frozen(kw_only=True)
class Line:
    """One message, who gave it if it is an answer, and whether it is not whole."""

    message: Message
    turn: int = 0
    model: str = ""
    aborted: bool = False


@attrs.frozen(kw_only=True)
class Record:
    """All there is to be written."""

    title: str = ""
    instructions: Sequence[Message] = ()
    lines: Sequence[Line] = ()


def record_of(conversation: Conversation) -> Record:
    """A conversation that nobody else keeps."""
    instructions = [{"role": "system", "content": conversation.system}] if conversation.system else []
    lines = [
        Line(message=message, turn=number, model=turn.model, aborted=turn.ending is not Ending.WHOLE)
        for number, turn in enumerate(conversation.turns, 1)
        for message in spoken(turn)
    ]
    return Record(instructions=instructions, lines=lines)


def record_of_session(session: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Record:
    """A session as the gateway shows it, and its messages."""
    about = ("place", "turn", "at", "model", "aborted")
    lines = [
        Line(
            message={name: value for name, value in each.items() if name not in about},
            turn=int(each.get("turn", 0)),
            model=str(each.get("model", "")),
            aborted=bool(each.get("aborted")),
        )
        for each in messages
    ]
    return Record(title=str(session.get("title", "")), instructions=session.get("instructions", ()), lines=lines)


def written(record: Record, path: Path) -> str | None:
    """The text of the file of that name; None where its suffix says nothing."""
    suffix = path.suffix.lower()
    if suffix == ".json":
        return as_json(record)
    return as_markdown(record) if suffix in MARKDOWN else None


def as_json(record: Record) -> str:
    """A document that ``stoker session import`` takes."""
    messages = [
        {"turn": line.turn, "model": line.model, "aborted": line.aborted, "message": dict(line.message)}
        for line in record.lines
    ]
    document = {
        "object": "session",
        "version": 1,
        "title": record.title,
        "instructions": list(record.instructions),
        "messages": messages,
    }
    return escaped(json.dumps(document, ensure_ascii=False, indent=2)) + "\n"


def as_markdown(record: Record) -> str:
    """The conversation for people: a heading for each message, and its text as it was said."""
    parts = [f"# {one_line(record.title) or 'Conversation'}"]
    for line in (*(Line(message=each) for each in record.instructions), *record.lines):
        role = str(line.message.get("role", ""))
        about = [one_line(line.model)] if role == "assistant" and line.model else []
        about += ["not whole"] if role == "assistant" and line.aborted else []
        parts.append(f"## {_NAMES.get(role, one_line(role))}" + (f" ({', '.join(about)})" if about else ""))
        parts.append(_text_of(line.message))
    return "\n\n".join(part for part in parts if part) + "\n"


def _text_of(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return harmless(content).strip("\n")
    rest = {name: value for name, value in message.items() if name != "role" and value is not None}
    return f"```json\n{json.dumps(rest, ensure_ascii=True, indent=2)}\n```" if rest else ""
