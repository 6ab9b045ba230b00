"""Stored conversations: what clients sent and got, word for word and in its order, and whose it is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from stoker.errors import NotFoundError
from stoker.store.database import Work

_INSERT = "INSERT INTO sessions (session_id, owner, title, created_at, updated_at) VALUES (?, ?, ?, ?, ?)"


@attrs.frozen(kw_only=True)
class Session:
    """One conversation. ``owner`` is the key that began it, empty where none was asked for. Times are Unix seconds."""

    session_id: str
    owner: str
    title: str
    created_at: float
    updated_at: float
    messages: int = 0


def creation(session_id: str, owner: str, title: str, now: float) -> Work[Session]:
    """Begins a conversation. Raises sqlite3.IntegrityError for an id that is taken."""

    def create(connection: sqlite3.Connection) -> Session:
        connection.execute(_INSERT, (session_id, owner, title, now, now))
        return Session(session_id=session_id, owner=owner, title=title, created_at=now, updated_at=now)

    return create


def listing(owner: str | None) -> Work[tuple[Session, ...]]:
    """The conversations of ``owner`` (None: of all), the latest first."""

    def read(connection: sqlite3.Connection) -> tuple[Session, ...]:
        return tuple(
            map(_session, connection.execute(f"{_COUNTED} WHERE ? IS NULL OR owner = ? {_LATEST}", (owner, owner)))
        )

    return read


def one(session_id: str) -> Work[Session]:
    """That conversation. Raises NotFoundError."""
    return lambda connection: _one(connection, session_id)


def messages(session_id: str) -> Work[tuple[Mapping[str, Any], ...]]:
    """What was said in it, the first first, as it was sent. Raises NotFoundError."""

    def read(connection: sqlite3.Connection) -> tuple[Mapping[str, Any], ...]:
        _one(connection, session_id)
        rows = connection.execute("SELECT message FROM messages WHERE session_id = ? ORDER BY place", (session_id,))
        return tuple(json.loads(message) for (message,) in rows)

    return read


def addition(session_id: str, said: Sequence[Mapping[str, Any]], now: float) -> Work[None]:
    """Adds to the end of it, all of ``said`` or nothing. Raises NotFoundError."""

    def add(connection: sqlite3.Connection) -> None:
        _one(connection, session_id)
        [last] = connection.execute(
            "SELECT coalesce(max(place), 0) FROM messages WHERE session_id = ?", (session_id,)
        ).fetchone()
        rows = [(session_id, place, json.dumps(message), now) for place, message in enumerate(said, last + 1)]
        connection.executemany("INSERT INTO messages (session_id, place, message, at) VALUES (?, ?, ?, ?)", rows)
        connection.execute("UPDATE sessions SET updated_at = ? WHERE session_id = ?", (now, session_id))

    return add


def renaming(session_id: str, title: str, now: float) -> Work[Session]:
    """Gives it another title. Raises NotFoundError."""

    def rename(connection: sqlite3.Connection) -> Session:
        connection.execute(
            "UPDATE sessions SET title = ?, updated_at = ? WHERE session_id = ?", (title, now, session_id)
        )
        return _one(connection, session_id)

    return rename


def clearing(session_id: str, now: float) -> Work[Session]:
    """Forgets what was said in it, and keeps it. Raises NotFoundError."""

    def clear(connection: sqlite3.Connection) -> Session:
        connection.execute("DELETE FROM messages WHERE session_id = ?", (session_id,))
        connection.execute("UPDATE sessions SET updated_at = ? WHERE session_id = ?", (now, session_id))
        return _one(connection, session_id)

    return clear


def deletion(session_id: str) -> Work[None]:
    """Forgets it. Raises NotFoundError."""

    def delete(connection: sqlite3.Connection) -> None:
        _one(connection, session_id)
        connection.execute("DELETE FROM sessions WHERE session_id = ?", (session_id,))

    return delete


def cleanup(before: float) -> Work[int]:
    """Forgets all in which nothing was said since ``before``; how many."""
    return lambda connection: connection.execute("DELETE FROM sessions WHERE updated_at < ?", (before,)).rowcount


_COUNTED = (
    "SELECT session_id, owner, title, created_at, updated_at, "
    "(SELECT count(*) FROM messages WHERE messages.session_id = sessions.session_id) FROM sessions"
)
_LATEST = "ORDER BY updated_at DESC, session_id"


def _one(connection: sqlite3.Connection, session_id: str) -> Session:
    row = connection.execute(f"{_COUNTED} WHERE session_id = ?", (session_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no session {session_id!r}")
    return _session(row)


def _session(row: tuple[Any, ...]) -> Session:
    session_id, owner, title, created_at, updated_at, count = row
    return Session(
        session_id=session_id,
        owner=owner,
        title=title,
        created_at=created_at,
        updated_at=updated_at,
        messages=count,
    )
