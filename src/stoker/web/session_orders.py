"""What the bodies of requests about sessions say, checked: every mistake is told at once."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import attrs

from stoker.core.conversation import Turn, split_instructions, turns_of
from stoker.errors import ConfigError, Mistake
from stoker.model import NOTHING
from stoker.store.sessions import Session, new_id

LONGEST_TITLE = 200
LONGEST_INSTRUCTIONS = 256 * 1024
LONGEST_METADATA = 16 * 1024
MOST_DAYS = 36_600.0
EXPORT = "session"
VERSION = 1

_ID = re.compile(r"sess_[0-9a-f]{32}", re.ASCII)
_OF_AN_EXPORT = ("object", "version", "session_id", "owner", "created_at", "updated_at", "message_count", "messages")
_OF_A_MESSAGE = ("place", "turn", "at", "model", "aborted", "message")
_LATEST = 253402300799.0  # the last second of the year 9999


def session_order(body: Mapping[str, Any], owner: str, now: float) -> Session:
    """The session that somebody wants to begin. null means "not given". Raises ConfigError."""
    given = _given(body, tuple(_RULES))
    _check(_mistakes(given, tuple(_RULES)))
    return _session(given, new_id(), owner, now, now)


def title_order(body: Mapping[str, Any]) -> str:
    """The title that somebody wants a session to have. Raises ConfigError."""
    given = _given(body, ("title",))
    missing = [] if "title" in given else [Mistake("title", "is missing; it is the new title, a text")]
    _check([*missing, *_mistakes(given, ("title",))])
    return _one_line(given["title"])


def cleanup_order(body: Mapping[str, Any], usual_days: float | None) -> float:
    """After how many days of silence sessions are to go: ``usual_days`` if nothing is said. Raises ConfigError."""
    given = _given(body, ("older_than_days",))
    mistakes = _unknown(given, ("older_than_days",))
    days: Any = given.get("older_than_days", usual_days)
    if not _is_number(days, MOST_DAYS):
        unset = " (sessions.keep_days, which would say so, is not set)" if days is None else ""
        message = f"must say after how many days, a number from 0 to {MOST_DAYS:.0f}{unset}"
        mistakes.append(Mistake("older_than_days", message))
    _check(mistakes)
    return float(days)


def imported(document: Mapping[str, Any], owner: str, now: float) -> tuple[Session, list[tuple[Turn, float]]]:
    """The session that an export is of, and when its turns were. Raises ConfigError.

    ``messages`` may also be those of a chat request, as other programs keep them.
    """
    known = (*_OF_AN_EXPORT, *_RULES)
    given = _given(document, known)
    mistakes = _mistakes(given, known)
    if given.get("object", EXPORT) != EXPORT or given.get("version", VERSION) != VERSION:
        mistakes.append(Mistake("version", f"is of an export that this Stoker does not know; it knows {VERSION}"))
    if "session_id" in given and not (isinstance(given["session_id"], str) and _ID.fullmatch(given["session_id"])):
        mistakes.append(Mistake("session_id", "is none that Stoker makes; leave it out to get a new one"))
    created_at = given.get("created_at", now)
    if not _is_number(created_at, _LATEST):
        mistakes.append(Mistake("created_at", "must be a number of seconds since 1970"))
    messages = given.get("messages", [])
    mistakes += _mistakes_in_messages(messages)
    _check(mistakes)
    plain = [message for message in messages if "message" not in message]
    if plain:
        leading, rest = split_instructions(plain)
        turns = [(Turn(messages=said), now) for said in turns_of(rest)]
        given = {"instructions": list(leading), **given}
    else:
        turns = _turns(messages, now)
    return _session(given, given.get("session_id") or new_id(), owner, created_at, now), turns


def _session(given: Mapping[str, Any], session_id: str, owner: str, created_at: float, now: float) -> Session:
    instructions = given.get("instructions", [])
    if isinstance(instructions, str):
        instructions = [{"role": "system", "content": instructions}] if instructions else []
    return Session(
        session_id=session_id,
        owner=owner,
        title=_one_line(given.get("title", "")),
        instructions=tuple(instructions),
        metadata=given.get("metadata", NOTHING),
        created_at=created_at,
        updated_at=now,
    )


def _turns(messages: Sequence[Mapping[str, Any]], now: float) -> list[tuple[Turn, float]]:
    """Those of an export, in which each message says which turn it belongs to."""
    turns: list[tuple[Turn, float]] = []
    number: object = None
    for each in messages:
        turn = Turn(messages=(each["message"],), model=each.get("model", ""), aborted=each.get("aborted", False))
        if turns and each.get("turn") == number:
            before, at = turns[-1]
            turns[-1] = (attrs.evolve(before, messages=(*before.messages, *turn.messages)), at)
        else:
            turns.append((turn, each.get("at", now)))
        number = each.get("turn", object())
    return turns


def _mistakes_in_messages(messages: object) -> Iterator[Mistake]:
    if not isinstance(messages, list):
        yield Mistake("messages", "must be a list")
        return
    exported = bool(messages) and isinstance(messages[0], dict) and "message" in messages[0]
    for index, each in enumerate(messages):
        path = f"messages[{index}]"
        message = each.get("message") if exported and isinstance(each, dict) else each
        if not _is_message(message):
            yield Mistake(path, "must be a message, an object with a 'role'" if not exported else "lacks its 'message'")
        elif exported:
            yield from (Mistake(f"{path}.{wrong.path}", wrong.message) for wrong in _unknown(each, _OF_A_MESSAGE))
            well = isinstance(each.get("model", ""), str) and isinstance(each.get("aborted", False), bool)
            if not well or not _is_number(each.get("at", 0), _LATEST):
                yield Mistake(
                    path, "has an 'at' that is no time, a 'model' that is no text, or 'aborted' not true or false"
                )


# What a session may be given

_Check = Callable[[Any], bool]


def _is_title(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TITLE


def _are_instructions(value: object) -> bool:
    leading = isinstance(value, list) and all(
        _is_message(each) and each["role"] in ("system", "developer") for each in value
    )
    return (leading or isinstance(value, str)) and len(json.dumps(value)) <= LONGEST_INSTRUCTIONS


def _is_metadata(value: object) -> bool:
    return isinstance(value, dict) and len(json.dumps(value)) <= LONGEST_METADATA


_RULES: Mapping[str, tuple[_Check, str]] = {
    "title": (_is_title, f"must be a text of at most {LONGEST_TITLE} characters"),
    "instructions": (
        _are_instructions,
        f"must be a text, or a list of messages of the role system, of at most {LONGEST_INSTRUCTIONS // 1024} KiB",
    ),
    "metadata": (_is_metadata, f"must be an object of at most {LONGEST_METADATA // 1024} KiB"),
}


def _mistakes(given: Mapping[str, Any], known: Sequence[str]) -> list[Mistake]:
    wrong = [Mistake(name, rule) for name, (fits, rule) in _RULES.items() if name in given and not fits(given[name])]
    return [*_unknown(given, known), *wrong]


def _unknown(given: Mapping[str, Any], known: Sequence[str]) -> list[Mistake]:
    return [Mistake(name, f"is not known here; there are: {', '.join(known)}") for name in given if name not in known]


def _check(mistakes: Sequence[Mistake]) -> None:
    if mistakes:
        raise ConfigError("the request", mistakes)


def _given(body: Mapping[str, Any], known: Sequence[str]) -> dict[str, Any]:
    """Without what is null; what nobody knows stays, and is a mistake."""
    return {name: value for name, value in body.items() if value is not None or name not in known}


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def _is_number(value: object, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _one_line(title: str) -> str:
    return " ".join(title.split())
