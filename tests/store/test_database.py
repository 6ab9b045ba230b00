"""The state file: whole or set aside, its owner's alone, and never a reason not to start."""

from __future__ import annotations

import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from stoker.errors import StokerError
from stoker.store.database import Database, StoreError, open_database

NOTES = ("CREATE TABLE notes (text TEXT NOT NULL UNIQUE)", "ALTER TABLE notes ADD COLUMN at REAL NOT NULL DEFAULT 0")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "state.sqlite3"


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    opened = open_database(path, NOTES)
    yield opened
    opened.close()


def add(database: Database, text: str) -> None:
    database.do(lambda connection: connection.execute("INSERT INTO notes (text) VALUES (?)", (text,)))


def notes(database: Database) -> list[str]:
    return database.do(lambda connection: [text for (text,) in connection.execute("SELECT text FROM notes")])


def test_what_was_written_is_there_the_next_time(path: Path) -> None:
    first = open_database(path, NOTES)
    add(first, "one")
    first.close()
    second = open_database(path, NOTES)
    assert notes(second) == ["one"]
    second.close()


def test_it_and_all_beside_it_are_their_owners_alone(path: Path, database: Database) -> None:
    add(database, "one")
    files = list(path.parent.iterdir())
    assert {file.name for file in files} == {"state.sqlite3", "state.sqlite3-wal", "state.sqlite3-shm"}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_file_of_an_earlier_version_is_brought_up_to_date(path: Path) -> None:
    old = open_database(path, NOTES[:1])
    add(old, "one")
    old.close()
    new = open_database(path, NOTES)
    assert new.do(lambda connection: list(connection.execute("SELECT text, at FROM notes"))) == [("one", 0.0)]
    new.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    old = open_database(path, NOTES[:1])
    add(old, "one")
    old.close()
    with pytest.raises(StoreError, match="near"):
        open_database(path, (NOTES[0], "CREATE TABLE more (a INTEGER); nonsense"))
    again = open_database(path, NOTES)
    assert notes(again) == ["one"]
    assert (
        again.do(lambda connection: list(connection.execute("SELECT name FROM sqlite_master WHERE name = 'more'")))
        == []
    )
    again.close()


def test_a_file_of_a_later_version_is_left_alone(path: Path) -> None:
    later = open_database(path, (*NOTES, "CREATE TABLE more (a INTEGER)"))
    add(later, "one")
    later.close()
    with pytest.raises(StokerError, match="has version 3, and this Stoker knows 2: a later one has written it"):
        open_database(path, NOTES)
    assert [file.name for file in path.parent.iterdir() if "damaged" in file.name] == []


def filled(path: Path) -> bytes:
    """A file of several pages, closed."""
    database = open_database(path, NOTES)
    for number in range(500):
        add(database, f"note {number} " + 40 * "x")
    database.close()
    return path.read_bytes()


@pytest.mark.parametrize("damage", ["cut", "empty page", "no header", "text", "a flipped bit in the schema"])
def test_a_damaged_file_is_set_aside_whole_and_a_new_one_begun(
    path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    whole = filled(path)
    broken = {
        "cut": whole[: len(whole) // 2 + 100],
        "empty page": whole[:8192] + bytes(4096) + whole[12288:],
        "no header": bytes(100) + whole[100:],
        "text": b"this is no database at all, whatever it may be\n" * 200,
        "a flipped bit in the schema": whole[:100] + bytes([whole[100] ^ 0x40]) + whole[101:],
    }[damage]
    path.write_bytes(broken)
    database = open_database(path, NOTES, clock=lambda: 0.0)
    assert notes(database) == []
    add(database, "new")
    database.close()
    aside = path.with_name("state.sqlite3.damaged-19700101-000000")
    assert aside.read_bytes() == broken
    assert "is set aside as state.sqlite3.damaged-19700101-000000" in caplog.text


def test_two_damaged_files_of_one_second_are_both_kept(path: Path) -> None:
    for content in (b"one", b"two"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content * 1000)
        open_database(path, NOTES, clock=lambda: 0.0).close()
    kept = sorted(file.read_bytes()[:3] for file in path.parent.iterdir() if "damaged" in file.name)
    assert kept == [b"one", b"two"]


def test_where_there_can_be_no_file_the_error_names_it(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("not a folder")
    with pytest.raises(StoreError, match=r"the state file \S+ can't be used"):
        open_database(tmp_path / "home" / "state.sqlite3", NOTES)
    (tmp_path / "folder" / "state.sqlite3").mkdir(parents=True)
    with pytest.raises(StoreError, match="can't be used"):
        open_database(tmp_path / "folder" / "state.sqlite3", NOTES)


def test_work_that_raises_is_taken_back(database: Database) -> None:
    def half(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes (text) VALUES ('half')")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.do(half)
    assert notes(database) == []


def test_a_defect_of_ours_is_no_trouble_of_the_disk(database: Database) -> None:
    add(database, "one")
    with pytest.raises(sqlite3.IntegrityError):
        add(database, "one")


async def test_a_full_disk_costs_what_was_to_be_written_and_nothing_else(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    add(database, "before")
    [pages] = database.do(lambda connection: connection.execute("PRAGMA page_count").fetchone())
    database._connection.execute(f"PRAGMA max_page_count = {pages}")

    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes (text) VALUES (?)", (100_000 * "x",))

    with pytest.raises(StoreError, match=r"state\.sqlite3: database or disk is full"):
        await database.run(fill)
    for _ in range(3):
        assert not await database.try_to(fill, "a note was")
    assert [record.message for record in caplog.records if "a note was not kept" in record.message] == [
        f"a note was not kept: {database.path}: database or disk is full"
    ], "said once, not each time"
    assert notes(database) == ["before"]
    database._connection.execute("PRAGMA max_page_count = 1000000")
    assert await database.try_to(fill, "a note was")


async def test_one_thread_at_a_time_works_with_it(database: Database) -> None:
    at_once: list[int] = [0, 0]

    def work(connection: sqlite3.Connection) -> None:
        at_once[0] += 1
        at_once[1] = max(at_once)
        connection.execute("INSERT INTO notes (text) VALUES (?)", (os.urandom(8).hex(),))
        at_once[0] -= 1

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(database.run, work)
    assert at_once[1] == 1
    assert len(notes(database)) == 20


KILLS = 500 if os.environ.get("STOKER_SOAK") else 50
WRITER = """
import sys
from pathlib import Path
from stoker.store.database import open_database
database = open_database(Path(sys.argv[1]), ("CREATE TABLE notes (text TEXT NOT NULL UNIQUE)",))
[count] = database.do(lambda connection: connection.execute("SELECT count(*) FROM notes").fetchone())
while True:
    count += 1
    database.do(lambda connection: connection.execute("INSERT INTO notes (text) VALUES (?)", (str(count),)))
    print(count, flush=True)
"""


def test_what_a_killed_writer_had_committed_is_there(path: Path) -> None:
    """Killed during writes, again and again, each time at another moment."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    said = 0
    for kill in range(KILLS):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], env=env, stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(3 + 7 * kill % 50):
            said = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().split()
        said = int(rest[-1]) if rest else said
        writer.wait()
        writer.stdout.close()
        database = open_database(path, NOTES[:1])
        assert len(notes(database)) in (said, said + 1), "the last one may have been committed before it was said"
        database.close()
    assert [file.name for file in path.parent.iterdir() if "damaged" in file.name] == []
