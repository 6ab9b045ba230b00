"""The audit trail in the state file: in order, bounded, and never in the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs
import pytest

from stoker.store.audit import AuditTrail, Entry, addition, latest
from stoker.store.database import Database, open_database
from stoker.store.schema import MIGRATIONS

ENTRY = Entry(
    at=1.5,
    who="key ab12",
    address="10.0.0.1",
    method="POST",
    path="/v1/management/reload",
    status=200,
    request_id="r",
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with closing(open_database(tmp_path / "state.sqlite3", MIGRATIONS)) as opened:
        yield opened


def paths(database: Database, count: int = 100) -> list[str]:
    return [entry.path for entry in database.do(latest(count))]


def test_entries_come_back_as_they_were_the_latest_last(database: Database) -> None:
    for number in range(5):
        database.do(addition(attrs.evolve(ENTRY, path=f"/{number}")))
    assert paths(database, 2) == ["/3", "/4"]
    assert database.do(latest(1)) == (attrs.evolve(ENTRY, path="/4"),)
    assert paths(database, 0) == []


def test_the_oldest_go_when_there_are_too_many(database: Database) -> None:
    for number in range(10):
        database.do(addition(attrs.evolve(ENTRY, path=f"/{number}"), most=3))
    assert paths(database) == ["/7", "/8", "/9"]


def test_whatever_a_path_holds_can_be_kept(database: Database) -> None:
    database.do(addition(attrs.evolve(ENTRY, path="/\udcff\x00" + "x" * 10_000)))
    [path] = paths(database)
    assert path.startswith("/?\x00x")
    assert len(path) == 500


async def test_a_trail_that_can_not_be_kept_costs_nothing_else(tmp_path: Path) -> None:
    await AuditTrail(None).note(ENTRY)
    assert await AuditTrail(None).latest(1) == ()
    database = open_database(tmp_path / "state.sqlite3", MIGRATIONS)
    database.do(lambda connection: connection.execute("DROP TABLE audit") and None)
    await AuditTrail(database).note(ENTRY)
    database.close()
