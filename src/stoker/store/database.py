"""One SQLite file under ``STOKER_HOME``, opened so that nothing wrong with it keeps Stoker from starting.

What is committed is on the disk (WAL, ``synchronous=FULL``): writes are few, and a key that was revoked must not come
back with the power. A file that SQLite can't make sense of is set aside, beside a new one.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import attrs
import trio

from stoker.errors import StokerError

log = logging.getLogger("stoker.store")

T = TypeVar("T")

BUSY_SECONDS = 5.0
COMPLAIN_EVERY_SECONDS = 60.0

Work = Callable[[sqlite3.Connection], T]
"""What is done with the file: called in a thread, in a transaction that is committed if it returns."""


class StoreError(StokerError):
    """The state file can't be read or written at this moment: a full disk, a folder that is gone."""


@attrs.define(eq=False)
class Database:
    """The file, once it is open. One thread works with it at a time."""

    path: Path
    _connection: sqlite3.Connection
    _thread: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _complained_at: float = float("-inf")

    async def run(self, work: Work[T]) -> T:
        """Do ``work`` in a thread. Raises :class:`StoreError` where the disk, or SQLite, will not have it.

        Cancelled before it begins, it is not done; begun, it is done to its end, and the cancellation comes after it.
        """
        return await trio.to_thread.run_sync(self.do, work, limiter=self._thread)

    async def try_to(self, work: Work[None], what: str) -> bool:
        """Do what Stoker can do without: a failure is logged, now and then, as ``what`` that was not kept."""
        try:
            await self.run(work)
        except StoreError as error:
            now = trio.current_time()
            if now - self._complained_at >= COMPLAIN_EVERY_SECONDS:
                self._complained_at = now
                log.error("%s not kept: %s", what, error)  # noqa: TRY400 - it says all there is to say
            return False
        return True

    def do(self, work: Work[T]) -> T:
        """Do ``work`` here. Blocks."""
        try:
            with transaction(self._connection):
                return work(self._connection)
        except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            raise StoreError(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Close the file. Blocks."""
        self._connection.close()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of the block, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def open_database(path: Path, migrations: Sequence[str], clock: Callable[[], float] = time.time) -> Database:
    """Open the file, or make it, and bring it to the version of the last of ``migrations``. Blocks.

    A file that is damaged is set aside, with a warning, and a new one begun. Raises :class:`StokerError` for one that
    a later Stoker has written, and :class:`StoreError` where there can be no file at all.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            return Database(path, _opened(path, migrations))
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and not _is_damage(error):
                raise
            aside = _set_aside(path, clock())
            log.error(  # noqa: TRY400 - it says all there is to say
                "the state file %s is damaged (%s): it is set aside as %s, and a new one is begun; keys, sessions and "
                "the engines that were started by hand, have to be made anew, or taken out of the old one",
                path,
                error,
                aside.name,
            )
            return Database(path, _opened(path, migrations))
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise StoreError(
            f"the state file {path} can't be used: {reason}; see that its folder can be written and its disk has room, "
            "or set STOKER_HOME to another folder"
        ) from error


def _is_damage(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def _opened(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    # SQLite gives the files beside it (-wal, -shm) the rights of this one.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _check(connection)
        _migrate(path, connection, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection) -> None:
    [wrong] = connection.execute("PRAGMA quick_check(1)").fetchone()
    if wrong != "ok":
        raise sqlite3.DatabaseError(wrong)


def _migrate(path: Path, connection: sqlite3.Connection, migrations: Sequence[str]) -> None:
    with transaction(connection):
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise StokerError(
                f"the state file {path} has version {version}, and this Stoker knows {len(migrations)}: a later one "
                "has written it; use that one, or give this one its own STOKER_HOME"
            )
        for number, migration in enumerate(migrations[version:], version + 1):
            for statement in filter(None, map(str.strip, migration.split(";"))):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


def _set_aside(path: Path, now: float) -> Path:
    """Move the file away, with what SQLite keeps beside it. Earlier ones are kept."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    aside = path.with_name(f"{path.name}.damaged-{stamp}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{path.name}.damaged-{stamp}-{number}")
    path.replace(aside)
    for end in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + end).replace(aside.with_name(aside.name + end))
    return aside
