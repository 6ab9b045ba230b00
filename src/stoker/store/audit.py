"""The audit trail: who changed what, the last hundred thousand times."""

from __future__ import annotations

import sqlite3

import attrs

from stoker.store.database import Database, Work

MOST_ENTRIES = 100_000
_LONGEST = 500
_FIELDS = "at, who, address, method, path, status, request_id"


@attrs.frozen(kw_only=True)
class Entry:
    """One management call. ``at`` is in seconds since the Unix epoch, ``address`` empty where there was no connection.

    ``status`` is what it was answered with, 499 if its client left before that.
    """

    at: float
    who: str
    address: str
    method: str
    path: str
    status: int
    request_id: str


def addition(entry: Entry, most: int = MOST_ENTRIES) -> Work[None]:
    """What adds ``entry`` and takes off the oldest beyond ``most``."""
    row = tuple(_fit(value) if isinstance(value, str) else value for value in attrs.astuple(entry))

    def add(connection: sqlite3.Connection) -> None:
        marks = ", ".join("?" * len(row))
        added = connection.execute(f"INSERT INTO audit ({_FIELDS}) VALUES ({marks})", row).lastrowid  # noqa: S608
        connection.execute("DELETE FROM audit WHERE audit_id <= ?", ((added or 0) - most,))

    return add


def latest(count: int) -> Work[tuple[Entry, ...]]:
    """What reads the last ``count`` entries, the latest last."""

    def read(connection: sqlite3.Connection) -> tuple[Entry, ...]:
        query = f"SELECT {_FIELDS} FROM audit ORDER BY audit_id DESC LIMIT ?"  # noqa: S608
        names = [field.name for field in attrs.fields(Entry)]
        rows = connection.execute(query, (count,)).fetchall()
        return tuple(Entry(**dict(zip(names, row, strict=True))) for row in reversed(rows))

    return read


@attrs.frozen
class AuditTrail:
    """The trail of a gateway. ``database`` is None where the state file can't be used: then there is none."""

    database: Database | None

    async def note(self, entry: Entry) -> None:
        """Keep ``entry``, if the disk will have it: what it is about has happened already."""
        if self.database is not None:
            await self.database.try_to(addition(entry), "an entry of the audit trail was")

    async def latest(self, count: int) -> tuple[Entry, ...]:
        """The last ``count`` entries, the latest last. Raises StoreError."""
        return () if self.database is None else await self.database.run(latest(count))


def _fit(text: str) -> str:
    """As SQLite can keep it, and not longer than anybody wants to read."""
    return text.encode(errors="replace").decode()[:_LONGEST]
