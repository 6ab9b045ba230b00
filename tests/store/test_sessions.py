"""Conversations are kept as they were, in their order, and each is somebody's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.errors import NotFoundError
from stoker.store import sessions
from stoker.store.database import Database, open_database
from stoker.store.schema import MIGRATIONS
from stoker.store.sessions import Session

HELLO = {"role": "user", "content": "Grüß dich 😀 \ud800 \\ \"'"}
ANSWER = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"arguments": '{"a": [1.5]}'}}]}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "state.sqlite3", MIGRATIONS)
    yield opened
    opened.close()


def test_what_was_said_comes_back_as_it_was_and_in_its_order(database: Database) -> None:
    database.do(sessions.creation("a", "key-1", "Greetings", 10.0))
    database.do(sessions.addition("a", [HELLO, ANSWER], 11.0))
    database.do(sessions.addition("a", [HELLO], 12.0))
    assert database.do(sessions.messages("a")) == (HELLO, ANSWER, HELLO)
    expected = Session(session_id="a", owner="key-1", title="Greetings", created_at=10.0, updated_at=12.0, messages=3)
    assert database.do(sessions.one("a")) == expected


def test_each_is_listed_to_whom_it_belongs_the_latest_first(database: Database) -> None:
    for session_id, owner, at in (("a", "one", 1.0), ("b", "two", 2.0), ("c", "one", 3.0)):
        database.do(sessions.creation(session_id, owner, "", at))
    database.do(sessions.addition("a", [HELLO], 9.0))
    assert [each.session_id for each in database.do(sessions.listing("one"))] == ["a", "c"]
    assert [each.session_id for each in database.do(sessions.listing(None))] == ["a", "c", "b"]
    assert database.do(sessions.listing("")) == ()


def test_it_is_renamed_cleared_and_forgotten(database: Database) -> None:
    database.do(sessions.creation("a", "", "old", 1.0))
    database.do(sessions.addition("a", [HELLO], 2.0))
    assert database.do(sessions.renaming("a", "new", 3.0)).title == "new"
    cleared = database.do(sessions.clearing("a", 4.0))
    assert (cleared.messages, cleared.title, cleared.updated_at) == (0, "new", 4.0)
    database.do(sessions.addition("a", [ANSWER], 5.0))
    database.do(sessions.deletion("a"))
    database.do(sessions.creation("a", "", "", 6.0))
    assert database.do(sessions.messages("a")) == (), "nothing is left of what was said in the one before"


@pytest.mark.parametrize(
    "work",
    [
        sessions.one("x"),
        sessions.messages("x"),
        sessions.addition("x", [HELLO], 1.0),
        sessions.renaming("x", "", 1.0),
        sessions.clearing("x", 1.0),
        sessions.deletion("x"),
    ],
)
def test_one_that_is_not_there_is_an_error_that_names_it(database: Database, work: object) -> None:
    with pytest.raises(NotFoundError, match="there is no session 'x'"):
        database.do(work)  # type: ignore[arg-type]


def test_an_id_is_given_once(database: Database) -> None:
    database.do(sessions.creation("a", "", "", 1.0))
    with pytest.raises(sqlite3.IntegrityError):
        database.do(sessions.creation("a", "", "", 2.0))


def test_those_in_which_nothing_was_said_for_long_are_cleaned_up(database: Database) -> None:
    for session_id, at in (("old", 1.0), ("new", 5.0)):
        database.do(sessions.creation(session_id, "", "", at))
    assert database.do(sessions.cleanup(5.0)) == 1
    assert [each.session_id for each in database.do(sessions.listing(None))] == ["new"]


def test_a_state_file_of_before_there_were_sessions_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite3"
    open_database(path, MIGRATIONS[:1]).close()
    later = open_database(path, MIGRATIONS)
    later.do(sessions.creation("a", "", "", 1.0))
    later.close()
