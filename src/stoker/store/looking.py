"""Looks into the state file without opening it for good: for commands that run while no gateway does."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from stoker.store.database import StoreError, T, Work


def look(path: Path, table: str, work: Work[T], otherwise: T) -> T:
    """What ``work`` reads of ``table`` in the state file ``path``; ``otherwise`` where that is not there. Blocks.

    The file is left as it is, also one that is damaged. Raises StoreError where it can't be read.
    """
    if not path.exists():
        return otherwise
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            there = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
            return work(connection) if there else otherwise
    except sqlite3.Error as error:
        raise StoreError(f"{path}: {error}") from error
