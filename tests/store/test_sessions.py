"""Conversations are kept as they were, in their order, and each is somebody's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from stoker.core.conversation import Budget, Turn
from stoker.errors import ConflictError, NoSessionError
from stoker.store import sessions
from stoker.store.archive import DAY_SECONDS, SessionArchive
from stoker.store.database import Database, StoreError, open_database
from stoker.store.schema import MIGRATIONS
from stoker.store.sessions import Session

HELLO = {"role": "user", "content": "Grüß dich 😀 \ud800 \\ \"'"}
ANSWER = {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"arguments": '{"a": [1.5]}'}}]}
SYSTEM = {"role": "system", "content": "Be brief."}
EVERYTHING = Budget(turns=1000, size=10**9)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "state.sqlite3", MIGRATIONS)
    yield opened
    opened.close()


def begun(session_id: str, at: float = 1.0, owner: str = "", **more: Any) -> Session:
    return Session(session_id=session_id, owner=owner, created_at=at, updated_at=at, **more)


def said(database: Database, session_id: str) -> list[Any]:
    return [dict(each.message) for each in database.do(sessions.messages(session_id, None, 1000)).items]


def test_what_was_said_comes_back_as_it_was_and_in_its_order(database: Database) -> None:
    database.do(sessions.creation(begun("a", 10.0, "key-1", title="Greetings", metadata={"x": [1]})))
    database.do(sessions.addition("a", Turn(messages=(HELLO, ANSWER), model="m"), 11.0))
    database.do(sessions.addition("a", Turn(messages=(HELLO,), aborted=True), 12.0))
    assert said(database, "a") == [HELLO, ANSWER, HELLO]
    expected = Session(
        session_id="a",
        owner="key-1",
        title="Greetings",
        metadata={"x": [1]},
        created_at=10.0,
        updated_at=12.0,
        message_count=3,
    )
    assert database.do(sessions.one("a", "key-1")) == expected
    kept = database.do(sessions.messages("a", "key-1", 1000)).items
    assert [(each.place, each.turn, each.at, each.model, each.aborted) for each in kept] == [
        (1, 1, 11.0, "m", False),
        (2, 1, 11.0, "m", False),
        (3, 2, 12.0, "", True),
    ]


def test_each_is_listed_to_whom_it_belongs_the_latest_first_page_by_page(database: Database) -> None:
    for session_id, owner, at in (("a", "one", 1.0), ("b", "two", 2.0), ("c", "one", 3.0), ("d", "one", 3.0)):
        database.do(sessions.creation(begun(session_id, at, owner)))
    database.do(sessions.addition("a", Turn(messages=(HELLO,)), 9.0))

    def pages(owner: str | None, limit: int) -> list[list[str]]:
        found: list[list[str]] = []
        cursor: str | None = None
        while True:
            after = None if cursor is None else sessions.place_in(cursor)
            page = database.do(sessions.listing(owner, limit, after))
            found.append([each.session_id for each in page.items])
            cursor = page.next
            if cursor is None:
                return found

    assert pages("one", 1) == [["a"], ["d"], ["c"]]
    assert pages(None, 3) == [["a", "d", "c"], ["b"]]
    assert pages(None, 4) == [["a", "d", "c", "b"]]
    assert pages("", 1) == [[]]


def test_messages_come_in_pages_which_are_shorter_where_they_are_large(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.do(sessions.creation(begun("a")))
    for number in range(5):
        database.do(sessions.addition("a", Turn(messages=({"role": "user", "content": str(number)},)), 2.0))
    first = database.do(sessions.messages("a", None, 3))
    assert ([each.place for each in first.items], first.next) == ([1, 2, 3], "3")
    rest = database.do(sessions.messages("a", None, 3, 3))
    assert ([each.place for each in rest.items], rest.next) == ([4, 5], None)
    monkeypatch.setattr(sessions, "PAGE_BYTES", 40)
    assert len(database.do(sessions.messages("a", None, 3)).items) == 2


def test_it_is_renamed_cleared_and_forgotten(database: Database) -> None:
    database.do(sessions.creation(begun("a", title="old", instructions=(SYSTEM,))))
    database.do(sessions.addition("a", Turn(messages=(HELLO,)), 2.0))
    assert database.do(sessions.renaming("a", "", "new", 3.0)).title == "new"
    cleared = database.do(sessions.clearing("a", "", 4.0))
    assert (cleared.message_count, cleared.title, cleared.updated_at) == (0, "new", 4.0)
    assert cleared.instructions == (SYSTEM,)
    database.do(sessions.addition("a", Turn(messages=(ANSWER,)), 5.0))
    database.do(sessions.deletion("a", ""))
    database.do(sessions.creation(begun("a", 6.0)))
    assert said(database, "a") == [], "nothing is left of what was said in the one before"


@pytest.mark.parametrize("owner", ["", "somebody else"])
@pytest.mark.parametrize(
    "work",
    [
        lambda owner: sessions.one("x", owner),
        lambda owner: sessions.messages("x", owner, 10),
        lambda owner: sessions.recall("x", owner, EVERYTHING),
        lambda owner: sessions.renaming("x", owner, "", 1.0),
        lambda owner: sessions.clearing("x", owner, 1.0),
        lambda owner: sessions.deletion("x", owner),
    ],
)
def test_what_is_not_there_or_somebody_elses_is_an_error_that_names_it(
    database: Database, work: Any, owner: str
) -> None:
    if owner:
        database.do(sessions.creation(begun("x", owner="its owner")))
    with pytest.raises(NoSessionError, match="there is no session 'x' of yours"):
        database.do(work(owner))
    assert database.do(sessions.cleanup(100.0, owner, 10)) == 0
    if owner:
        database.do(work("its owner"))


def test_nothing_is_added_to_what_is_not_there(database: Database) -> None:
    with pytest.raises(NoSessionError):
        database.do(sessions.addition("x", Turn(messages=(HELLO,)), 1.0))


def test_an_id_is_given_once(database: Database) -> None:
    database.do(sessions.creation(begun("a")))
    with pytest.raises(ConflictError, match="'a'"):
        database.do(sessions.creation(begun("a")))


def test_one_comes_from_elsewhere_with_its_turns_or_not_at_all(database: Database) -> None:
    came = sessions.creation(begun("a", 5.0), [(Turn(messages=(HELLO, ANSWER)), 2.0), (Turn(messages=(HELLO,)), 3.0)])
    assert database.do(came).message_count == 3
    assert [each.at for each in database.do(sessions.messages("a", "", 10)).items] == [2.0, 2.0, 3.0]
    with pytest.raises(TypeError):
        database.do(sessions.creation(begun("b"), [(Turn(messages=({"role": object()},)), 2.0)]))
    with pytest.raises(NoSessionError):
        database.do(sessions.one("b", ""))


def test_what_is_sent_again_is_what_was_answered_within_the_budget(database: Database) -> None:
    database.do(sessions.creation(begun("a", instructions=(SYSTEM,))))
    for number in range(4):
        messages = ({"role": "user", "content": f"{number}"}, {"role": "assistant", "content": "x" * 40})
        database.do(sessions.addition("a", Turn(messages=messages, aborted=number == 2), 2.0))

    def recalled(**budget: Any) -> list[str]:
        history = database.do(sessions.recall("a", "", Budget(**{"turns": 9, "size": 10**6, **budget})))
        assert history.instructions == (SYSTEM,)
        return [turn.messages[0]["content"] for turn in history.turns]

    assert recalled() == ["0", "1", "3"]
    assert recalled(turns=2) == ["1", "3"]
    assert recalled(turns=0) == []
    assert recalled(tokens=19 * 2) == ["1", "3"]
    assert recalled(tokens=19 * 2 - 1) == ["3"]
    assert recalled(size=1) == []


def test_the_first_words_become_the_title_and_later_instructions_replace_earlier_ones(database: Database) -> None:
    database.do(sessions.creation(begun("a", instructions=(SYSTEM,))))
    later = {"role": "system", "content": "Be long."}
    database.do(sessions.addition("a", Turn(messages=(HELLO,), instructions=(later,), aborted=True), 2.0))
    session = database.do(sessions.one("a", ""))
    assert session.title.startswith("Grüß dich 😀 ?")
    assert session.instructions == (SYSTEM,), "those of an answer that did not come are not kept"
    database.do(sessions.addition("a", Turn(messages=({"role": "user", "content": "b"},), instructions=(later,)), 2.0))
    assert database.do(sessions.one("a", "")).instructions == (later,)
    database.do(sessions.addition("a", Turn(messages=(ANSWER,)), 2.0))
    assert database.do(sessions.one("a", "")).instructions == (later,)


async def test_those_in_which_nothing_was_said_for_long_are_cleaned_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stoker.store.archive.SWEPT_AT_ONCE", 2)
    for number in range(5):
        database.do(sessions.creation(begun(f"old-{number}", 1.0, owner="a" if number else "b")))
    database.do(sessions.creation(begun("new", 5.0, owner="a")))
    archive = SessionArchive(database, clock=lambda: 5.0)
    assert await archive.clean_up(5.0, "a") == 4
    assert [each.session_id for each in database.do(sessions.listing(None, 10)).items] == ["new", "old-0"]
    assert await archive.clean_up(5.0, None) == 1


async def test_old_ones_go_by_themselves_again_and_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stoker.store.archive.SWEEP_SECONDS", 0.001)
    nursery.start_soon(SessionArchive(database, clock=lambda: 2.5 * DAY_SECONDS).keep_clean, 1.0)
    nursery.start_soon(SessionArchive(None).keep_clean, 1.0)
    for number in range(3):
        await database.run(sessions.creation(begun(f"new-{number}", 2 * DAY_SECONDS)))
        await database.run(sessions.creation(begun(f"old-{number}", DAY_SECONDS)))
        with trio.fail_after(20):
            while len((await database.run(sessions.listing(None, 10))).items) > number + 1:
                await trio.sleep(0.002)
    assert "old sessions are not forgotten: the state file can't be used" in caplog.text


async def test_without_a_state_file_there_is_a_reason(database: Database) -> None:
    archive = SessionArchive(None)
    with pytest.raises(StoreError, match="state file"):
        await archive.recall("a", None, EVERYTHING)
    assert not await archive.keep("a", Turn(messages=()))


async def test_a_turn_of_what_was_forgotten_meanwhile_is_lost(database: Database) -> None:
    assert not await SessionArchive(database).keep("a", Turn(messages=(HELLO,)))


@pytest.mark.parametrize("version", [1, 2])
def test_an_older_state_file_gets_what_it_lacks(tmp_path: Path, version: int) -> None:
    path = tmp_path / "state.sqlite3"
    open_database(path, MIGRATIONS[:version]).close()
    later = open_database(path, MIGRATIONS)
    later.do(sessions.creation(begun("a")))
    later.do(sessions.addition("a", Turn(messages=(HELLO,)), 2.0))
    assert said(later, "a") == [HELLO]
    later.close()
