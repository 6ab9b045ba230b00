"""Requests that go on with a stored conversation: what was said before goes with them, and they are kept."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from stoker.builtin.policies import SessionAffinity
from stoker.core.conversation import Turn
from stoker.core.keys import PREFIX, KeyOrder, Scope, digest_of
from stoker.gateway import hearing
from stoker.gateway.keyring import KeyRing
from stoker.model import RequestRecord
from stoker.settings import GatewaySettings, SessionSettings
from stoker.store import sessions as store
from stoker.store.archive import SessionArchive
from stoker.store.database import Database, open_database
from stoker.store.looking import look
from stoker.store.schema import MIGRATIONS
from stoker.store.sessions import Session

from .conftest import CHAT, Lane, World, in_one_lane, running
from .scripted import HANG_GUARD_SECONDS, Answer, Exchange, Headers, until

ID = "sess_1"
SYSTEM = {"role": "system", "content": "Be brief."}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def says(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def asks(*messages: object, **more: object) -> dict[str, object]:
    return {"model": "m", "session_id": ID, "messages": list(messages), **more}


def chunk(**delta: object) -> str:
    return json.dumps({"choices": [{"index": 0, "delta": delta}]})


async def echo(exchange: Exchange) -> None:
    """Says how many messages it got, streamed or not."""
    asked = json.loads(exchange.body)
    text = f"{len(asked['messages'])} messages"
    if asked.get("stream"):
        await exchange.events(chunk(role="assistant", content=""), *(chunk(content=word) for word in text.split(" ")))
        await exchange.data(b"data: [DONE]\n\n")
        await exchange.end()
    else:
        await exchange.reply(200, {"choices": [{"index": 0, "message": says(text)}]})


@attrs.frozen
class Kept:
    """A gateway with one session, and what is in its state file."""

    world: World
    database: Database

    def messages(self, session_id: str = ID) -> list[Mapping[str, Any]]:
        return [each.message for each in self.rows(session_id)]

    def rows(self, session_id: str = ID) -> tuple[store.Kept, ...]:
        """Over a connection of its own, as a thread may be in the middle of something on the other."""
        messages = store.messages(session_id, None, 1000)
        return look(self.database.path, "messages", lambda connection: messages(connection).items, ())

    def begin(self, session_id: str, owner: str = "", **more: Any) -> None:
        session = Session(session_id=session_id, owner=owner, created_at=1.0, updated_at=1.0, **more)
        self.database.do(store.creation(session))

    def turns(self) -> tuple[int, int, int]:
        counters = self.world.table.counters
        return counters.turns_kept, counters.turns_aborted, counters.turns_lost


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "state.sqlite3", MIGRATIONS)
    yield opened
    opened.close()


@pytest.fixture
async def kept(database: Database, lane: Lane) -> AsyncIterator[Kept]:
    async with running(archive=SessionArchive(database), lane=lane) as world:
        kept = Kept(world, database)
        kept.begin(ID)
        yield kept


def sent(exchange: Exchange) -> Any:
    return json.loads(exchange.body)["messages"]


# What is sent, and what is kept


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_goes_with_what_was_said_before_and_is_kept(kept: Kept, stream: bool) -> None:
    engine = await kept.world.engine("one", echo)
    for number in range(3):
        answer = await kept.world.ask(asks(user(f"question {number}"), stream=stream, temperature=0.5))
        assert answer.status == 200
        assert answer.headers["x-stoker-session"] == ID
        assert answer.complete
        assert answer.body.endswith(b"data: [DONE]\n\n") == stream
    last = json.loads(engine.exchanges[-1].body)
    assert last == {
        "model": "m",
        "temperature": 0.5,
        "stream": stream,
        "messages": [
            user("question 0"),
            says("1messages" if stream else "1 messages"),
            user("question 1"),
            says("3messages" if stream else "3 messages"),
            user("question 2"),
        ],
    }
    assert len(kept.messages()) == 6
    assert [each.turn for each in kept.rows()] == [1, 1, 2, 2, 3, 3]
    assert {(each.model, each.aborted) for each in kept.rows()} == {("m", False)}
    assert kept.turns() == (3, 0, 0)


async def test_an_answer_is_kept_before_its_end_is_there(kept: Kept) -> None:
    finish = trio.Event()

    async def dawdle(exchange: Exchange) -> None:
        await exchange.events(chunk(content="all of it"), "[DONE]")
        await finish.wait()
        await exchange.end()

    await kept.world.engine("one", dawdle)
    async with kept.world.client() as client:
        await client.send(CHAT, asks(user("x"), stream=True))
        await client.head()
        said = b""
        while not said.endswith(b"[DONE]\n\n"):
            said += await client.chunk()
        assert kept.messages() == [user("x"), says("all of it")]
        finish.set()
        assert await client.chunk() == b""


async def test_all_of_a_streamed_answer_is_kept_but_only_its_first_choice(kept: Kept) -> None:
    other = json.dumps({"choices": [{"index": 1, "delta": {"content": "another"}}]})
    pieces = [
        chunk(role="assistant", reasoning_content="Hm"),
        chunk(reasoning_content="m."),
        other,
        chunk(tool_calls=[{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": '{"x"'}}]),
        chunk(tool_calls=[{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]),
        chunk(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]),
        json.dumps({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
        "[DONE]",
    ]
    text = "".join(f"data: {piece}\r\n\r\n" for piece in pieces).encode()

    async def call_tools(exchange: Exchange) -> None:
        await exchange.head(200, [("content-type", "text/event-stream")])
        for start in range(0, len(text), 37):
            await exchange.data(text[start : start + 37])
            await trio.lowlevel.checkpoint()
        await exchange.end()

    engine = await kept.world.engine("one", call_tools)
    assert (await kept.world.ask(asks(user("x"), stream=True))).body == text
    calls = [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]
    assert kept.messages()[1] == {"role": "assistant", "reasoning_content": "Hmm.", "tool_calls": calls}
    engine.script = echo
    results = [{"role": "tool", "tool_call_id": call, "content": "1"} for call in "ab"]
    await kept.world.ask(asks(*results))
    assert sent(engine.exchanges[-1]) == [
        user("x"),
        {"role": "assistant", "content": None, "tool_calls": calls},
        *results,
    ]


async def test_instructions_stand_before_all_else_until_others_come(kept: Kept) -> None:
    engine = await kept.world.engine("one", echo)
    await kept.world.ask(asks(SYSTEM, user("a")))
    await kept.world.ask(asks(user("b")))
    assert sent(engine.exchanges[-1]) == [SYSTEM, user("a"), says("2 messages"), user("b")]
    other = {"role": "developer", "content": "Be long."}
    await kept.world.ask(asks(other, user("c")))
    assert [message["role"] for message in sent(engine.exchanges[-1])] == [
        "developer", "user", "assistant", "user", "assistant", "user",
    ]  # fmt: skip
    assert kept.database.do(store.one(ID, None)).instructions == (other,)
    assert {message["role"] for message in kept.messages()} == {"user", "assistant"}


@in_one_lane
@pytest.mark.parametrize(
    ("settings", "expected"),
    [({}, 7), ({"max_turns": 1}, 3), ({"max_turns": 0}, 1), ({"max_tokens": 30}, 5), ({"max_tokens": 1}, 1)],
)
async def test_the_beginning_is_left_out_of_what_is_too_long(
    database: Database, settings: dict[str, Any], expected: int, lane: Lane
) -> None:
    async with running(archive=SessionArchive(database), sessions=SessionSettings(**settings)) as world:
        Kept(world, database).begin(ID, instructions=(SYSTEM,))
        engine = await world.engine("one", echo)
        for number in range(4):
            await world.ask(asks(user(f"{number}")))
        messages = sent(engine.exchanges[-1])
        assert messages[0] == SYSTEM
        assert messages[-1] == user("3")
        assert len(messages) == 1 + expected


@in_one_lane
async def test_history_never_makes_a_body_larger_than_one_may_be(kept: Kept, database: Database) -> None:
    async with running(GatewaySettings(max_body_bytes=1500), archive=SessionArchive(database)) as world:
        engine = await world.engine("one", echo)
        for letter in "abcd":
            assert (await world.ask(asks(user(letter * 500)))).status == 200
        assert [message["content"][0] for message in sent(engine.exchanges[-1])] == ["c", "3", "d"]


@in_one_lane
async def test_other_members_stay_as_they_were_written(kept: Kept) -> None:
    engine = await kept.world.engine("one", echo)
    body = (
        rb'{"messages": "the last counts", "x": [1.50, 12345678901234567890, "\ud800"], "session_id": 7, "model": "m",'
        rb' "messages":[{"role":"user","content":"\ud83d"}], "session_id":"sess_1" , "y" :null}'
    )
    assert (await kept.world.ask(body)).status == 200
    assert engine.exchanges[0].body == (
        rb'{"x": [1.50, 12345678901234567890, "\ud800"], "model": "m", '
        rb'"messages": [{"role": "user", "content": "\ud83d"}], "y": null}'
    )
    assert kept.messages()[0] == user("\ud83d")


@in_one_lane
async def test_the_engine_is_asked_for_an_answer_that_can_be_read(kept: Kept) -> None:
    engine = await kept.world.engine("one", echo)
    await kept.world.ask(asks(user("x")), [("accept-encoding", "gzip, br")])
    assert engine.exchanges[0].header("accept-encoding") == "identity"


async def test_a_long_answer_that_does_not_stream_is_kept_as_well(kept: Kept) -> None:
    text = "long " * 100_000

    async def tell(exchange: Exchange) -> None:
        await exchange.reply(200, {"choices": [{"message": says(text)}]})

    await kept.world.engine("one", tell)
    assert (await kept.world.ask(asks(user("x")))).json()["choices"][0]["message"]["content"] == text
    assert kept.messages()[1] == says(text)


@in_one_lane
async def test_of_an_endless_answer_the_beginning_is_kept(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "MOST_BYTES", 1000)

    async def go_on(exchange: Exchange) -> None:
        await exchange.events(*(chunk(content="x" * 100) for _ in range(20)), "[DONE]")
        await exchange.end()

    await kept.world.engine("one", go_on)
    assert (await kept.world.ask(asks(user("x"), stream=True))).complete
    question, answer = kept.rows()
    assert question.aborted
    assert answer.aborted
    assert 0 < len(answer.message["content"]) < 2000


async def test_a_model_of_another_name_and_a_session_get_on(kept: Kept) -> None:
    engine = await kept.world.engine("one", echo, names=("m", "alias"), renames={"alias": "inside"})
    assert (await kept.world.ask({**asks(user("x")), "model": "alias"})).status == 200
    assert json.loads(engine.exchanges[0].body)["model"] == "inside"
    assert kept.rows()[1].model == "alias"


# Answers that are none, or break off


@pytest.mark.parametrize("stream", [False, True])
async def test_of_an_engines_error_nothing_is_kept(kept: Kept, stream: bool) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.reply(400, {"error": {"message": "too long"}})

    await kept.world.engine("one", refuse)
    answer = await kept.world.ask(asks(SYSTEM, user("x"), stream=stream))
    assert answer.status == 400
    assert answer.headers["x-stoker-session"] == ID
    assert kept.messages() == []
    assert kept.database.do(store.one(ID, None)).instructions == ()
    assert kept.turns() == (0, 0, 0)


async def test_an_engine_that_dies_leaves_what_it_said_marked_and_it_is_not_sent_again(kept: Kept) -> None:
    async def die(exchange: Exchange) -> None:
        await exchange.events(chunk(content="I am "), chunk(content="dy"))
        await exchange.reset()

    engine = await kept.world.engine("one", die)
    answer = await kept.world.ask(asks(user("x"), stream=True))
    assert b'"code": "engine_failed"' in answer.body
    assert not answer.complete
    await until(lambda: len(kept.rows()) == 2)
    assert kept.messages() == [user("x"), says("I am dy")]
    assert all(each.aborted for each in kept.rows())
    assert kept.turns() == (0, 1, 0)
    kept.world.answered.add("one")
    engine.script = echo
    await kept.world.ask(asks(user("y")))
    assert sent(engine.exchanges[-1]) == [user("y")]


async def test_an_error_event_is_no_whole_answer_though_done_follows(kept: Kept) -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.events(chunk(content="half"), '{"error": {"message": "dead", "code": 500}}', "[DONE]")
        await exchange.end()

    await kept.world.engine("one", fail)
    await kept.world.ask(asks(user("x"), stream=True))
    assert [(each.message, each.aborted) for each in kept.rows()] == [(user("x"), True), (says("half"), True)]


@pytest.mark.parametrize("stream", [False, True])
async def test_of_a_client_that_leaves_is_kept_what_it_was_told(kept: Kept, stream: bool) -> None:
    async def talk(exchange: Exchange) -> None:
        if stream:
            await exchange.events(chunk(content="Once upon"))
        await exchange.gone()

    engine = await kept.world.engine("one", talk)
    async with kept.world.client() as client:
        await client.send(CHAT, asks(user("x"), stream=stream))
        await until(lambda: engine.exchanges)
        if stream:
            await client.head()
            await client.chunk()
    await until(kept.rows)
    assert kept.messages() == [user("x"), says("Once upon")][: 1 + stream]
    assert all(each.aborted for each in kept.rows())
    engine.script = echo
    assert (await kept.world.ask(asks(user("again")))).status == 200
    assert sent(engine.exchanges[-1]) == [user("again")]


async def test_a_shutdown_keeps_what_was_said_until_then(kept: Kept) -> None:
    async def talk(exchange: Exchange) -> None:
        await exchange.events(chunk(content="Once upon"))
        await exchange.gone()

    await kept.world.engine("one", talk)
    async with kept.world.client() as client:
        await client.send(CHAT, asks(user("x"), stream=True))
        await client.head()
        await client.chunk()
        kept.world.plane.forwarder.cut_short()
        assert b'"code": "shutting_down"' in await client.chunk()
    assert [each.aborted for each in kept.rows()] == [True, True]


@in_one_lane
async def test_what_is_no_answer_of_a_chat_is_passed_on_and_not_kept(kept: Kept) -> None:
    async def babble(exchange: Exchange) -> None:
        await exchange.reply(200, {"hello": "there"})

    await kept.world.engine("one", babble)
    assert (await kept.world.ask(asks(user("x")))).json() == {"hello": "there"}
    assert kept.messages() == []
    assert kept.turns() == (0, 0, 1)


@in_one_lane
async def test_a_request_that_fails_on_one_engine_goes_on_at_another(kept: Kept) -> None:
    async def die(exchange: Exchange) -> None:
        await exchange.reset()

    await kept.world.engine("a", die)
    other = await kept.world.engine("b", echo)
    await kept.world.ask(asks(user("x")))
    assert [sent(exchange) for exchange in other.exchanges] == [[user("x")]]
    assert kept.messages() == [user("x"), says("1 messages")]


@attrs.define
class Failing:
    """An archive whose disk is full, or that is away altogether."""

    inner: SessionArchive
    readable: bool = True

    async def check(self, *asked: Any) -> None:
        await (self.inner if self.readable else SessionArchive(None)).check(*asked)

    async def recall(self, *asked: Any) -> Any:
        return await self.inner.recall(*asked)

    async def keep(self, session_id: str, turn: Turn) -> bool:
        return await SessionArchive(None).keep(session_id, turn)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_disk_costs_the_turn_and_not_the_answer(database: Database, lane: Lane, stream: bool) -> None:
    async with running(archive=Failing(SessionArchive(database)), lane=lane) as world:
        kept = Kept(world, database)
        kept.begin(ID)
        await world.engine("one", echo)
        answer = await world.ask(asks(user("x"), stream=stream))
        assert (answer.status, answer.complete) == (200, True)
        assert kept.turns() == (0, 0, 1)


async def test_without_a_state_file_only_sessions_are_refused(database: Database, lane: Lane) -> None:
    async with running(archive=Failing(SessionArchive(database), readable=False), lane=lane) as world:
        await world.engine("one", echo)
        refused = await world.ask(asks(user("x")))
        assert (refused.status, refused.error["code"]) == (503, "state_unavailable")
        assert (await world.ask({"model": "m", "messages": [user("x")]})).status == 200


@attrs.define
class Slow:
    """An archive that takes its time."""

    inner: SessionArchive
    keeps: trio.Event = attrs.field(factory=trio.Event)
    may_keep: trio.Event = attrs.field(factory=trio.Event)

    async def check(self, *asked: Any) -> None:
        await self.inner.check(*asked)

    async def recall(self, *asked: Any) -> Any:
        return await self.inner.recall(*asked)

    async def keep(self, session_id: str, turn: Turn) -> bool:
        self.keeps.set()
        await self.may_keep.wait()
        return await self.inner.keep(session_id, turn)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_its_turn_is_kept_loses_nothing(
    database: Database, lane: Lane, stream: bool
) -> None:
    archive = Slow(SessionArchive(database))
    async with running(archive=archive, lane=lane) as world:
        kept = Kept(world, database)
        kept.begin(ID)
        await world.engine("one", echo)
        async with world.client() as client:
            await client.send(CHAT, asks(user("x"), stream=stream))
            await archive.keeps.wait()
        for _ in range(5):  # when these are answered, the gateway has seen it leave
            await world.ask({"model": "m", "messages": []})
        archive.may_keep.set()
        await until(kept.rows)
        assert [each.aborted for each in kept.rows()] == [False, False]


# Requests that are wrong


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        ({**asks(user("x")), "session_id": "sess_2"}, 404, "session_not_found", "session_id"),
        ({**asks(user("x")), "session_id": "\ud800" + "é" * 100_000}, 404, "session_not_found", "session_id"),
        ({**asks(user("x")), "session_id": ""}, 400, "invalid_type", "session_id"),
        ({**asks(user("x")), "session_id": {"a": [1e400]}}, 400, "invalid_type", "session_id"),
        (b'{"model": "m", "session_id": 1%b}' % (b"0" * 5000), 400, "invalid_type", "session_id"),
        (asks(), 400, "invalid_type", "messages"),
        ({"model": "m", "session_id": ID}, 400, "invalid_type", "messages"),
        (asks("x"), 400, "invalid_type", "messages"),
        (asks({"content": "x"}), 400, "invalid_type", "messages"),
        (asks(user("x"), {"role": "user", "content": float("nan")}), 400, "invalid_body", "messages"),
        (b'{"model": "m", "session_id": "sess_1", "messages": [1e400]}', 400, "invalid_body", "messages"),
    ],
)
async def test_what_can_not_be_kept_is_refused(kept: Kept, body: Any, status: int, code: str, param: str) -> None:
    engine = await kept.world.engine("one", echo)
    answer = await kept.world.ask(body)
    assert (answer.status, answer.error["code"], answer.error["param"]) == (status, code, param)
    assert "x-request-id" in answer.headers
    assert len(answer.body) < 2000
    assert engine.exchanges == []
    assert kept.world.table.counters.refused == 1


async def test_elsewhere_and_as_null_a_session_is_the_engines_affair(kept: Kept) -> None:
    async def answer(exchange: Exchange) -> None:
        await exchange.reply(200, {})

    paths = frozenset({CHAT, "/v1/completions"})
    engine = await kept.world.engine("one", answer, paths=paths)
    for path, body in (("/v1/completions", asks(user("x"))), (CHAT, {**asks(user("x")), "session_id": None})):
        asked = json.dumps(body).encode()
        assert (await kept.world.ask(asked, path=path)).status == 200
        assert engine.exchanges[-1].body == asked


@in_one_lane
async def test_where_sessions_are_switched_off_it_is_the_engines_affair_too(lane: Lane) -> None:
    async with running() as world:
        engine = await world.engine("one", echo)
        await world.ask(asks(user("x")))
        assert json.loads(engine.exchanges[0].body) == asks(user("x"))


# One after the other


async def test_two_at_once_are_answered_in_their_order(kept: Kept) -> None:
    first_may_end = trio.Event()

    async def answer(exchange: Exchange) -> None:
        if sent(exchange)[-1] == user("first"):
            await first_may_end.wait()
        await echo(exchange)

    engine = await kept.world.engine("one", answer)
    kept.begin("sess_2")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.world.ask, asks(user("first")))
        await until(lambda: len(engine.exchanges) == 1)
        for text in ("second", "third"):
            nursery.start_soon(kept.world.ask, asks(user(text)))
            await until(lambda: _waiting(kept.world) == ("second", "third").index(text) + 1)  # noqa: B023
        other = {**asks(user("elsewhere")), "session_id": "sess_2"}
        assert (await kept.world.ask(other)).status == 200, "another session has to wait for nobody"
        assert len(engine.exchanges) == 2
        first_may_end.set()
    assert [message["content"] for message in kept.messages()] == [
        "first", "1 messages", "second", "3 messages", "third", "5 messages",
    ]  # fmt: skip
    assert _lines(kept.world) == {}


async def test_one_that_leaves_while_it_waits_loses_its_turn_alone(kept: Kept) -> None:
    first_may_end = trio.Event()

    async def answer(exchange: Exchange) -> None:
        if sent(exchange)[-1] == user("first"):
            await first_may_end.wait()
        await echo(exchange)

    engine = await kept.world.engine("one", answer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kept.world.ask, asks(user("first")))
        await until(lambda: len(engine.exchanges) == 1)
        async with kept.world.client() as client:
            await client.send(CHAT, asks(user("second")))
            await until(lambda: _waiting(kept.world) == 1)
        await until(lambda: _waiting(kept.world) == 0)
        nursery.start_soon(kept.world.ask, asks(user("third")))
        await until(lambda: _waiting(kept.world) == 1)
        first_may_end.set()
    assert [message["content"] for message in kept.messages()][::2] == ["first", "third"]


async def test_waiting_has_its_limits(database: Database, lane: Lane) -> None:
    async def think(exchange: Exchange) -> None:
        await exchange.gone()

    settings = GatewaySettings(queue_size=1, queue_seconds=0.2)
    async with running(settings, archive=SessionArchive(database), lane=lane) as world:
        Kept(world, database).begin(ID)
        engine = await world.engine("one", think)
        answers: list[Answer] = []

        async def ask() -> None:
            answers.append(await world.ask(asks(user("x"))))

        async with world.client() as client, trio.open_nursery() as nursery:
            await client.send(CHAT, asks(user("x")))
            await until(lambda: engine.exchanges)
            nursery.start_soon(ask)
            await until(lambda: _waiting(world) == 1)
            full = await world.ask(asks(user("x")))
            assert (full.status, full.error["code"]) == (429, "queue_full")
        [late] = answers
        assert (late.status, late.error["code"]) == (503, "queue_timeout")
        assert ID in late.error["message"]
        assert "retry-after" in late.headers
        await until(lambda: _lines(world) == {})


def _lines(world: World) -> dict[str, Any]:
    conversations = world.plane.forwarder._conversations
    assert conversations is not None
    return conversations._turns._lines


def _waiting(world: World) -> int:
    return sum(line.waiting for line in _lines(world).values())


# Whose it is


def bearer(key_id: str) -> Headers:
    return [("authorization", f"Bearer {PREFIX}{key_id}-{key_id:x<43}")]


@pytest.fixture
def ring() -> KeyRing:
    ring = KeyRing("the-admin-token".__eq__, trio.current_time)
    both = frozenset({Scope.INFERENCE, Scope.SESSIONS})
    scopes = {"alice": both, "bobby": both, "carol": frozenset({Scope.INFERENCE}), "admin": frozenset({Scope.ADMIN})}
    ring.replace(
        KeyOrder(name=name, scopes=theirs).key(name, digest_of(bearer(name)[0][1].removeprefix("Bearer ")), 0.0)
        for name, theirs in scopes.items()
    )
    return ring


async def test_a_session_belongs_to_the_key_that_made_it(database: Database, lane: Lane, ring: KeyRing) -> None:
    async with running(archive=SessionArchive(database), keys=ring, lane=lane) as world:
        Kept(world, database).begin(ID, owner="alice")
        await world.engine("one", echo)
        for name, status, code in (("bobby", 404, "session_not_found"), ("carol", 403, "insufficient_scope")):
            refused = await world.ask(asks(user("x")), bearer(name))
            assert (refused.status, refused.error["code"]) == (status, code)
        for name in ("alice", "admin"):
            assert (await world.ask(asks(user("x")), bearer(name))).status == 200
        by_token = await world.ask(asks(user("x")), [("authorization", "Bearer the-admin-token")])
        assert by_token.status == 200


async def test_without_keys_one_sees_what_nobodys_key_began(database: Database, lane: Lane) -> None:
    ring = KeyRing("the-admin-token".__eq__, trio.current_time)
    async with running(archive=SessionArchive(database), keys=ring, lane=lane) as world:
        kept = Kept(world, database)
        kept.begin(ID, owner="a-key-of-old")
        kept.begin("sess_2")
        await world.engine("one", echo)
        assert (await world.ask(asks(user("x")))).status == 404
        assert (await world.ask({**asks(user("x")), "session_id": "sess_2"})).status == 200
        by_token = await world.ask(asks(user("x")), [("authorization", "Bearer the-admin-token")])
        assert by_token.status == 200


async def test_a_model_that_a_key_may_not_use_is_refused_before_anything(database: Database, lane: Lane) -> None:
    ring = KeyRing(lambda _: False, trio.current_time)
    order = KeyOrder(name="x", scopes=frozenset({Scope.INFERENCE, Scope.SESSIONS}), models=("other",))
    ring.replace([order.key("alice", digest_of(bearer("alice")[0][1].removeprefix("Bearer ")), 0.0)])
    async with running(archive=SessionArchive(database), keys=ring, lane=lane) as world:
        refused = await world.ask(asks(user("x")), bearer("alice"))
        assert (refused.status, refused.error["code"]) == (403, "model_not_allowed")


# What others see of it


async def test_a_session_stays_at_its_engine_and_is_in_the_record(database: Database, lane: Lane) -> None:
    records: list[RequestRecord] = []
    archive, policy = SessionArchive(database), SessionAffinity()
    async with running(archive=archive, policy=policy, finished=records.append, lane=lane) as world:
        kept = Kept(world, database)
        engines = [await world.engine(f"engine-{number}", echo) for number in range(4)]
        for number in range(6):
            session_id = f"sess_{number}"
            kept.begin(session_id)
            body = {**asks(user("x")), "session_id": session_id, "user": "everybody is the same"}
            served = {(await world.ask(body)).headers["x-stoker-engine"] for _ in range(3)}
            assert len(served) == 1
        assert sum(bool(engine.exchanges) for engine in engines) > 1
        assert [record.session_id for record in records[:4]] == ["sess_0"] * 3 + ["sess_1"]
        first, second = records[:2]
        assert first.received_bytes == second.received_bytes, "what was said before did not come from the client"


async def test_nothing_is_held_up_by_a_conversation_in_which_much_happened(kept: Kept) -> None:
    """Bodies over half a megabyte are composed in a thread, with the same result."""
    engine = await kept.world.engine("one", echo)
    with trio.fail_after(HANG_GUARD_SECONDS):
        for _ in range(3):
            assert (await kept.world.ask(asks(user("x" * 300_000)))).status == 200
    assert [len(message["content"]) for message in sent(engine.exchanges[-1])] == [300_000, 10, 300_000, 10, 300_000]
