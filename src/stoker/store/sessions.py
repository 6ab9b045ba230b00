"""Stored conversations: what clients sent and got, in its order, and whose it is.

``owner`` is everywhere the key of whoever asks, empty for one who came without; None sees all. What is not theirs is
for them not there. Nothing is ever rewritten but the row of a conversation: what is said is added behind it, and
forgotten a turn at a time or all at once.
"""

from __future__ import annotations

import itertools
import json
import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import attrs

from stoker.core.conversation import (
    Budget,
    History,
    Message,
    Said,
    Turn,
    estimated_tokens,
    title_of,
    within,
)
from stoker.errors import ConflictError, NoSessionError, NotFoundError
from stoker.model import NOTHING
from stoker.store.database import Work

PAGE_BYTES = 4 * 1024 * 1024
"""Of messages, from which on a page of them has no more."""

_ID_BYTES = 16
_SHOWN = 200
_MESSAGE = "session_id, place, message, at, turn, model, tokens, aborted"
Item = TypeVar("Item")


@attrs.frozen(kw_only=True)
class Session:
    """One conversation. ``owner`` is the key that began it, empty where none was asked for. Times are Unix seconds.

    ``instructions`` are the system messages that stand before all else, ``metadata`` is whatever its owner likes.
    """

    session_id: str
    owner: str = ""
    title: str = ""
    instructions: tuple[Message, ...] = ()
    metadata: Mapping[str, Any] = NOTHING
    created_at: float
    updated_at: float
    message_count: int = 0


@attrs.frozen(kw_only=True)
class Kept:
    """One message, the ``place``th of its session, said ``at`` in its ``turn``; ``model`` answered in that one."""

    place: int
    turn: int
    at: float
    model: str
    aborted: bool
    message: Message


@attrs.frozen
class Page(Generic[Item]):
    """Some of a listing, and where the next page begins, if there is more."""

    items: tuple[Item, ...]
    next: str | None


def new_id() -> str:
    """An id that nobody has."""
    return f"sess_{secrets.token_hex(_ID_BYTES)}"


def creation(session: Session, turns: Sequence[tuple[Turn, float]] = ()) -> Work[Session]:
    """Begins a conversation, with what was said in it and when, if it comes from elsewhere. Raises ConflictError."""

    def create(connection: sqlite3.Connection) -> Session:
        if connection.execute("SELECT 1 FROM sessions WHERE session_id = ?", (session.session_id,)).fetchone():
            raise ConflictError(f"there is a session {session.session_id!r} already; leave out the id to get a new one")
        row = (
            *(session.session_id, session.owner, session.title, session.created_at, session.updated_at),
            *(json.dumps(session.instructions), json.dumps(dict(session.metadata))),
        )
        connection.execute(
            "INSERT INTO sessions (session_id, owner, title, created_at, updated_at, instructions, metadata) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            row,
        )
        for turn, at in turns:
            _add(connection, session.session_id, turn, at)
        return _one(connection, session.session_id, None)

    return create


def listing(owner: str | None, limit: int, after: tuple[float, str] | None = None) -> Work[Page[Session]]:
    """The conversations of ``owner``, the latest first: ``limit`` of those behind ``after`` (see :func:`place_in`)."""

    def read(connection: sqlite3.Connection) -> Page[Session]:
        conditions, values = [], list[object]()
        if owner is not None:
            conditions.append("owner = ?")
            values.append(owner)
        if after is not None:
            conditions.append("(updated_at, session_id) < (?, ?)")
            values += after
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        query = f"{_COUNTED} {where} ORDER BY updated_at DESC, session_id DESC LIMIT ?"
        found = [_session(row) for row in connection.execute(query, (*values, limit + 1))]
        last = found[limit - 1] if len(found) > limit else None
        return Page(tuple(found[:limit]), None if last is None else f"{last.updated_at!r}~{last.session_id}")

    return read


def place_in(cursor: str) -> tuple[float, str]:
    """What :class:`Page` calls ``next``, of a listing of sessions, as :func:`listing` takes it. Raises ValueError."""
    at, mark, session_id = cursor.partition("~")
    if not mark:
        raise ValueError(cursor)
    return float(at), session_id


def one(session_id: str, owner: str | None) -> Work[Session]:
    """That conversation. Raises NoSessionError."""
    return lambda connection: _one(connection, session_id, owner)


def check(session_id: str, owner: str | None) -> Work[None]:
    """Raises NoSessionError where ``owner`` has no such conversation."""

    def look(connection: sqlite3.Connection) -> None:
        _owned(connection, session_id, owner)

    return look


def messages(session_id: str, owner: str | None, limit: int, after: int = 0) -> Work[Page[Kept]]:
    """What was said in it, the first first: up to ``limit`` messages behind the place ``after``. Raises NoSessionError.

    A page has fewer where they are large.
    """

    def read(connection: sqlite3.Connection) -> Page[Kept]:
        _owned(connection, session_id, owner)
        query = (
            "SELECT place, turn, at, model, aborted, message FROM messages "
            "WHERE session_id = ? AND place > ? ORDER BY place LIMIT ?"
        )
        found, size = list[Kept](), 0
        for place, turn, at, model, aborted, message in connection.execute(query, (session_id, after, limit + 1)):
            if len(found) == limit or size > PAGE_BYTES:
                return Page(tuple(found), str(found[-1].place))
            size += len(message)
            said = json.loads(message)
            found.append(Kept(place=place, turn=turn, at=at, model=model, aborted=bool(aborted), message=said))
        return Page(tuple(found), None)

    return read


def recall(session_id: str, owner: str | None, budget: Budget) -> Work[History]:
    """What of it is sent again, within ``budget``; turns that were aborted are not. Raises NoSessionError."""

    def read(connection: sqlite3.Connection) -> History:
        _, instructions = _owned(connection, session_id, owner)
        query = "SELECT turn, message, tokens FROM messages WHERE session_id = ? AND NOT aborted ORDER BY place DESC"
        rows = connection.execute(query, (session_id,))
        turns = (_said(list(group)) for _, group in itertools.groupby(rows, key=lambda row: row[0]))
        return History(instructions=instructions, turns=within(turns, budget))

    return read


def addition(session_id: str, turn: Turn, now: float) -> Work[None]:
    """Adds a turn to the end of it, whole or not at all. One without a title gets one. Raises NoSessionError."""

    def add(connection: sqlite3.Connection) -> None:
        title, instructions = _owned(connection, session_id, None)
        _add(connection, session_id, turn, now)
        title = title or title_of(turn.messages)
        if turn.instructions is not None and not turn.aborted:
            instructions = turn.instructions
        connection.execute(
            "UPDATE sessions SET updated_at = ?, title = ?, instructions = ? WHERE session_id = ?",
            (now, _written(title), json.dumps(instructions), session_id),
        )

    return add


def renaming(session_id: str, owner: str | None, title: str, now: float) -> Work[Session]:
    """Gives it another title. Raises NoSessionError."""

    def rename(connection: sqlite3.Connection) -> Session:
        _owned(connection, session_id, owner)
        connection.execute(
            "UPDATE sessions SET title = ?, updated_at = ? WHERE session_id = ?", (title, now, session_id)
        )
        return _one(connection, session_id, owner)

    return rename


def clearing(session_id: str, owner: str | None, now: float) -> Work[Session]:
    """Forgets what was said in it, and keeps it, with its title and instructions. Raises NoSessionError."""

    def clear(connection: sqlite3.Connection) -> Session:
        _owned(connection, session_id, owner)
        connection.execute("DELETE FROM messages WHERE session_id = ?", (session_id,))
        connection.execute("UPDATE sessions SET updated_at = ? WHERE session_id = ?", (now, session_id))
        return _one(connection, session_id, owner)

    return clear


def retraction(session_id: str, owner: str | None, turn: int, now: float) -> Work[Session]:
    """Forgets one turn of it. Raises NoSessionError, and NotFoundError where it has no such turn."""

    def retract(connection: sqlite3.Connection) -> Session:
        _owned(connection, session_id, owner)
        query = "DELETE FROM messages WHERE session_id = ? AND turn = ?"
        if not connection.execute(query, (session_id, turn)).rowcount:
            raise NotFoundError(f"the session {session_id!r} has no turn {turn}; its messages say which there are")
        connection.execute("UPDATE sessions SET updated_at = ? WHERE session_id = ?", (now, session_id))
        return _one(connection, session_id, owner)

    return retract


def deletion(session_id: str, owner: str | None) -> Work[None]:
    """Forgets it. Raises NoSessionError."""

    def delete(connection: sqlite3.Connection) -> None:
        _owned(connection, session_id, owner)
        connection.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))

    return delete


def cleanup(before: float, owner: str | None, most: int) -> Work[int]:
    """Forgets those of ``owner`` in which nothing happened since ``before``, up to ``most`` of them; how many."""
    query = (
        "DELETE FROM sessions WHERE session_id IN "
        "(SELECT session_id FROM sessions WHERE updated_at < ? AND (? IS NULL OR owner = ?) LIMIT ?)"
    )
    return lambda connection: connection.execute(query, (before, owner, owner, most)).rowcount


_COUNTED = (
    "SELECT session_id, owner, title, created_at, updated_at, instructions, metadata, "
    "(SELECT count(*) FROM messages WHERE messages.session_id = sessions.session_id) FROM sessions"
)


def _owned(connection: sqlite3.Connection, session_id: str, owner: str | None) -> tuple[str, tuple[Message, ...]]:
    """Its title and its instructions, if ``owner`` has it."""
    query = "SELECT title, instructions FROM sessions WHERE session_id = ? AND (? IS NULL OR owner = ?)"
    row = connection.execute(query, (_written(session_id), owner, owner)).fetchone()
    if row is None:
        raise NoSessionError(f"there is no session {session_id[:_SHOWN]!r} of yours; POST /sessions makes one")
    title, instructions = row
    return title, tuple(json.loads(instructions))


def _one(connection: sqlite3.Connection, session_id: str, owner: str | None) -> Session:
    _owned(connection, session_id, owner)
    return _session(connection.execute(f"{_COUNTED} WHERE session_id = ?", (session_id,)).fetchone())


def _session(row: tuple[Any, ...]) -> Session:
    session_id, owner, title, created_at, updated_at, instructions, metadata, count = row
    return Session(
        session_id=session_id,
        owner=owner,
        title=title,
        instructions=tuple(json.loads(instructions)),
        metadata=json.loads(metadata),
        created_at=created_at,
        updated_at=updated_at,
        message_count=count,
    )


def _add(connection: sqlite3.Connection, session_id: str, turn: Turn, at: float) -> None:
    query = "SELECT coalesce(max(place), 0), coalesce(max(turn), 0) FROM messages WHERE session_id = ?"
    [place, number] = connection.execute(query, (session_id,)).fetchone()
    rows = [
        (
            *(session_id, place + index, _json(message), at, number + 1),
            *(turn.model, estimated_tokens(message), turn.aborted),
        )
        for index, message in enumerate(turn.messages, 1)
    ]
    marks = ", ".join("?" * 8)
    connection.executemany(f"INSERT INTO messages ({_MESSAGE}) VALUES ({marks})", rows)  # noqa: S608


def _said(latest_first: Iterable[tuple[int, str, int]]) -> Said:
    rows = list(latest_first)
    return Said(
        messages=tuple(json.loads(message) for _, message, _ in reversed(rows)),
        tokens=sum(tokens for _, _, tokens in rows),
        size=sum(len(message.encode()) for _, message, _ in rows),
    )


def _json(message: Message) -> str:
    text = json.dumps(message, ensure_ascii=False)
    return text if _written(text) == text else json.dumps(message)


def _written(text: str) -> str:
    """As SQLite can keep it: half of a surrogate pair is no character."""
    return text.encode(errors="replace").decode()
