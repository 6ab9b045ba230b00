"""The tables of the state file. A change of them is one more migration at the end; those that were released stay."""

from __future__ import annotations

MIGRATIONS = (
    """
    CREATE TABLE engines (
        engine_id TEXT PRIMARY KEY,
        place INTEGER NOT NULL,
        origin TEXT NOT NULL,
        configured INTEGER NOT NULL,
        wanted INTEGER NOT NULL,
        spec TEXT NOT NULL,
        run TEXT
    ) STRICT;
    CREATE TABLE keys (
        key_id TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        name TEXT NOT NULL,
        scopes TEXT NOT NULL,
        models TEXT,
        requests_per_minute INTEGER,
        concurrent_requests INTEGER,
        created_at REAL NOT NULL,
        expires_at REAL,
        revoked_at REAL
    ) STRICT;
    CREATE TABLE audit (
        audit_id INTEGER PRIMARY KEY AUTOINCREMENT,
        at REAL NOT NULL,
        who TEXT NOT NULL,
        address TEXT NOT NULL,
        method TEXT NOT NULL,
        path TEXT NOT NULL,
        status INTEGER NOT NULL,
        request_id TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE sessions (
        session_id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        title TEXT NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE messages (
        session_id TEXT NOT NULL REFERENCES sessions ON DELETE CASCADE,
        place INTEGER NOT NULL,
        message TEXT NOT NULL,
        at REAL NOT NULL,
        PRIMARY KEY (session_id, place)
    ) STRICT, WITHOUT ROWID
    """,
    """
    ALTER TABLE sessions ADD COLUMN instructions TEXT NOT NULL DEFAULT '[]';
    ALTER TABLE sessions ADD COLUMN metadata TEXT NOT NULL DEFAULT '{}';
    ALTER TABLE messages ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN model TEXT NOT NULL DEFAULT '';
    ALTER TABLE messages ADD COLUMN tokens INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE messages ADD COLUMN aborted INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX sessions_by_owner ON sessions (owner, updated_at, session_id);
    CREATE INDEX sessions_by_time ON sessions (updated_at, session_id)
    """,
)
"""Each brings a file from the version of its place (0: an empty one) to the next. Statements are parted by ``;``."""
