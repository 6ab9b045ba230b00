"""The API keys in the state file. Their texts are not in it: they are shown once, when they are made."""

from __future__ import annotations

import json
import secrets
import sqlite3
from pathlib import Path
from typing import Any

from stoker.core.keys import PREFIX, ApiKey, KeyOrder, Scope, digest_of
from stoker.errors import NotFoundError
from stoker.store.database import Work
from stoker.store.looking import look

_COLUMNS = (
    "key_id, digest, name, scopes, models, requests_per_minute, concurrent_requests, created_at, expires_at, revoked_at"
)
_ID_BYTES = 4
_SECRET_BYTES = 32


def creation(order: KeyOrder, now: float) -> Work[tuple[ApiKey, str]]:
    """What makes a key: gives it back, and its text, which can't be had again. ``now`` is since the Unix epoch."""

    def create(connection: sqlite3.Connection) -> tuple[ApiKey, str]:
        taken = {key_id for (key_id,) in connection.execute("SELECT key_id FROM keys")}
        key_id = next(free for free in iter(lambda: secrets.token_hex(_ID_BYTES), "") if free not in taken)
        text = f"{PREFIX}{key_id}-{secrets.token_urlsafe(_SECRET_BYTES)}"
        key = order.key(key_id, digest_of(text), now)
        row = (
            *(key.key_id, key.digest, key.name, json.dumps(sorted(key.scopes))),
            None if key.models is None else json.dumps(key.models),
            *(key.requests_per_minute, key.concurrent_requests, key.created_at, key.expires_at, key.revoked_at),
        )
        connection.execute(f"INSERT INTO keys ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
        return key, text

    return create


def listing(connection: sqlite3.Connection) -> tuple[ApiKey, ...]:
    """All keys there ever were, in the order they were made."""
    rows = connection.execute(f"SELECT {_COLUMNS} FROM keys ORDER BY created_at, rowid")  # noqa: S608
    return tuple(map(_key, rows))


def peek(path: Path) -> tuple[ApiKey, ...]:
    """All keys in the state file ``path``, which is left as it is; none if it is missing. Blocks. Raises StoreError."""
    return look(path, "keys", listing, ())


def there_is_one(path: Path, now: float) -> bool:
    """Whether a key in the state file ``path`` opens anything at ``now``. Blocks. Raises StoreError."""
    return any(key.is_active(now) for key in peek(path))


def revocation(key_id: str, now: float) -> Work[ApiKey]:
    """What revokes a key, for good; one that is revoked stays as it is. Raises NotFoundError where there is none."""

    def revoke(connection: sqlite3.Connection) -> ApiKey:
        connection.execute("UPDATE keys SET revoked_at = ? WHERE key_id = ? AND revoked_at IS NULL", (now, key_id))
        for row in connection.execute(f"SELECT {_COLUMNS} FROM keys WHERE key_id = ?", (key_id,)):  # noqa: S608
            return _key(row)
        raise NotFoundError(f"there is no key {key_id!r}; `stoker key list` has them")

    return revoke


def _key(row: tuple[Any, ...]) -> ApiKey:
    key_id, digest, name, scopes, models, per_minute, concurrent, created_at, expires_at, revoked_at = row
    return ApiKey(
        key_id=key_id,
        digest=digest,
        name=name,
        scopes=frozenset(map(Scope, json.loads(scopes))),
        models=None if models is None else tuple(json.loads(models)),
        requests_per_minute=per_minute,
        concurrent_requests=concurrent,
        created_at=created_at,
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
