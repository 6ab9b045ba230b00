"""Sessions over HTTP: what is made, listed, shown and forgotten, and by whom."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

import httpx2
import pytest

from stoker.core.conversation import Turn
from stoker.settings import GatewaySettings
from stoker.store import sessions as store
from stoker.store.database import StoreError

from .conftest import BEARER, World, error_of

QUESTION = {"role": "user", "content": "What is 2 + 2?"}
ANSWER = {"role": "assistant", "content": "4", "reasoning_content": "Hm"}


async def begin(world: World, headers: dict[str, str] | None = None, **body: Any) -> str:
    answer = await world.anyone.post("/sessions", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["session_id"])


async def say(world: World, session_id: str, *messages: Any, **more: Any) -> None:
    assert world.desk.database is not None
    turn = Turn(messages=messages or (QUESTION, ANSWER), model="m", **more)
    await world.desk.database.run(store.addition(session_id, turn, 100.0))


async def test_one_is_begun_shown_renamed_cleared_and_deleted(world: World) -> None:
    client = world.anyone
    made = await client.post(
        "/sessions", json={"title": " A  talk\n", "instructions": "Be brief.", "metadata": {"of": ["me"]}}
    )
    assert made.status_code == 201
    session = made.json()
    path = f"/sessions/{session['session_id']}"
    assert session["created_at"] == session["updated_at"] > 1e9
    assert {name: session[name] for name in session.keys() - {"session_id", "created_at", "updated_at"}} == {
        "object": "session",
        "owner": "",
        "title": "A talk",
        "instructions": [{"role": "system", "content": "Be brief."}],
        "metadata": {"of": ["me"]},
        "message_count": 0,
    }
    assert (await client.get(path)).json() == session
    await say(world, session["session_id"])
    assert (await client.get(path)).json()["message_count"] == 2
    for method in ("PATCH", "PUT", "POST"):
        renamed = await client.request(method, f"{path}/title", json={"title": method})
        assert renamed.json()["title"] == method
    assert (await client.post(f"{path}/clear")).json()["message_count"] == 0
    assert (await client.get(f"{path}/messages")).json()["data"] == []
    deleted = await client.delete(path)
    assert deleted.json() == {"object": "session.deleted", "session_id": session["session_id"], "deleted": True}
    for gone in (await client.get(path), await client.delete(path), await client.get(f"{path}/messages")):
        assert gone.status_code == 404
        assert error_of(gone)["code"] == "session_not_found"


async def test_messages_are_as_they_were_said_and_say_when_and_by_whom(world: World) -> None:
    session_id = await begin(world)
    await say(world, session_id)
    await say(world, session_id, QUESTION, aborted=True)
    data = (await world.anyone.get(f"/sessions/{session_id}/messages")).json()["data"]
    about = {"at": 100.0, "model": "m"}
    assert data == [
        {**QUESTION, **about, "place": 1, "turn": 1, "aborted": False},
        {**ANSWER, **about, "place": 2, "turn": 1, "aborted": False},
        {**QUESTION, **about, "place": 3, "turn": 2, "aborted": True},
    ]


async def test_one_turn_is_forgotten_and_the_next_takes_its_place(world: World) -> None:
    session_id = await begin(world)
    for _ in range(2):
        await say(world, session_id)
    path = f"/sessions/{session_id}"
    left = await world.anyone.delete(f"{path}/turns/2")
    assert (left.status_code, left.json()["message_count"]) == (200, 2)
    for turn in ("2", "0", "9" * 40):
        gone = await world.anyone.delete(f"{path}/turns/{turn}")
        assert (gone.status_code, error_of(gone)["code"]) == (404, "not_found")
    unknown = await world.anyone.delete(f"/sessions/sess_{'0' * 32}/turns/1")
    assert (unknown.status_code, error_of(unknown)["code"]) == (404, "session_not_found")
    await say(world, session_id, QUESTION)
    data = (await world.anyone.get(f"{path}/messages")).json()["data"]
    assert [(each["place"], each["turn"]) for each in data] == [(1, 1), (2, 1), (3, 2)]


async def test_listings_come_in_pages(world: World) -> None:
    made = [await begin(world, title=str(number)) for number in range(5)]
    await say(world, made[0], *[{"role": "user", "content": str(number)} for number in range(5)])
    for path, key, expected in (
        ("/sessions", "session_id", [*reversed(made[1:]), made[0]]),
        (f"/sessions/{made[0]}/messages", "content", ["0", "1", "2", "3", "4"]),
    ):
        found: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            page = (await world.anyone.get(path, params=query)).json()
            found += [each[key] for each in page["data"]]
            assert page["has_more"] == (page["next"] is not None)
            if not page["has_more"]:
                break
            query["after"] = page["next"]
        assert sorted(found) == sorted(expected)
        assert found[-1] == expected[-1]
        for wrong in ({"limit": "x"}, {"limit": 1001}, {"after": "nonsense"}, {"before": "1"}):
            assert error_of(await world.anyone.get(path, params=wrong))["code"] == "bad_request"


async def test_an_export_can_be_imported_again(world: World) -> None:
    session_id = await begin(world, title="A talk", instructions="Be brief.", metadata={"a": 1})
    for _ in range(3):
        await say(world, session_id)
    await say(world, session_id, QUESTION, aborted=True)
    client = world.anyone
    exported = await client.get(f"/sessions/{session_id}/export")
    assert exported.headers["content-disposition"] == f'attachment; filename="{session_id}.json"'
    document = exported.json()
    taken = await client.post("/sessions/import", json=document)
    assert taken.status_code == 409
    await client.delete(f"/sessions/{session_id}")
    back = await client.post("/sessions/import", content=exported.content)
    assert back.status_code == 201, back.text
    assert back.json()["session_id"] == session_id
    again = (await client.get(f"/sessions/{session_id}/export")).json()
    assert {**again, "updated_at": 0} == {**document, "updated_at": 0}
    del document["session_id"]
    copy = await client.post("/sessions/import", json=document)
    assert copy.json()["session_id"] != session_id
    assert copy.json()["message_count"] == 7


async def test_a_long_export_comes_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stoker.web.sessions.MOST", 2)
    session_id = await begin(world)
    for _ in range(3):
        await say(world, session_id)
    exported = (await world.anyone.get(f"/sessions/{session_id}/export")).json()
    assert [each["place"] for each in exported["messages"]] == [1, 2, 3, 4, 5, 6]


async def test_the_messages_of_other_programs_can_be_imported(world: World) -> None:
    messages = [{"role": "system", "content": "Be brief."}, QUESTION, ANSWER, QUESTION, ANSWER]
    made = (await world.anyone.post("/sessions/import", json={"messages": messages})).json()
    assert made["instructions"] == messages[:1]
    listed = (await world.anyone.get(f"/sessions/{made['session_id']}/messages")).json()["data"]
    assert [(each["role"], each["turn"]) for each in listed] == [
        ("user", 1), ("assistant", 1), ("user", 2), ("assistant", 2),
    ]  # fmt: skip


async def test_an_import_may_be_large_and_nothing_else(world: World) -> None:
    messages = [{"role": "user", "content": "x" * 2_000_000}]
    assert (await world.anyone.post("/sessions/import", json={"messages": messages})).status_code == 201
    large = await world.anyone.post("/sessions", json={"title": "x" * 2_000_000})
    assert (large.status_code, error_of(large)["code"]) == (413, "request_too_large")


async def test_cleaning_up_takes_what_was_silent_for_long(world: World) -> None:
    old, new = await begin(world), await begin(world)
    await say(world, old)
    assert (await world.anyone.post("/sessions/cleanup", json={"older_than_days": 1})).json() == {"deleted": 1}
    listed = (await world.anyone.get("/sessions")).json()["data"]
    assert [each["session_id"] for each in listed] == [new]
    for wrong in ({}, {"older_than_days": -1}, {"older_than_days": "1"}, {"days": 1}):
        assert (await world.anyone.post("/sessions/cleanup", json=wrong)).status_code == 400
    assert (await world.anyone.post("/sessions/cleanup", json={"older_than_days": 0})).json() == {"deleted": 1}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("", {"titel": "x"}, "titel"),
        ("", {"titel": None}, "titel"),
        ("/import", {"titel": None}, "titel"),
        ("/cleanup", {"older_than_days": 0, "older": None}, "older"),
        ("", {"title": 7}, "title"),
        ("", {"title": "x" * 201}, "title"),
        ("", {"metadata": []}, "metadata"),
        ("", {"metadata": {"x": "y" * 20_000}}, "metadata"),
        ("", {"instructions": [QUESTION]}, "instructions"),
        ("", ["x"], "object"),
        ("/import", [], "object"),
        ("/import", {"object": "something else"}, "version"),
        ("/import", {"version": 2}, "version"),
        ("/import", {"session_id": "mine"}, "session_id"),
        ("/import", {"messages": "x"}, "messages"),
        ("/import", {"messages": [QUESTION, 7]}, "messages[1]"),
        ("/import", {"messages": [{"message": QUESTION}, QUESTION]}, "messages[1]"),
        ("/import", {"messages": [{"message": QUESTION, "at": "x"}]}, "messages[0]"),
        ("/import", {"messages": [{"message": QUESTION, "extra": 1}]}, "messages[0].extra"),
        ("/import", {"created_at": -1}, "created_at"),
    ],
)
async def test_what_is_wrong_is_named_and_makes_nothing(world: World, path: str, body: Any, says: str) -> None:
    answer = await world.anyone.post(f"/sessions{path}", json=body)
    assert answer.status_code == 400
    assert says in error_of(answer)["message"]
    assert (await world.anyone.get("/sessions")).json()["data"] == []


async def test_a_title_has_to_be_one(world: World) -> None:
    session_id = await begin(world)
    for wrong in ({}, {"title": None}, {"title": 1}, {"title": "x", "more": 1}):
        answer = await world.anyone.patch(f"/sessions/{session_id}/title", json=wrong)
        assert answer.status_code == 400


# Whose they are


async def test_each_key_sees_its_own_and_the_admin_all(world: World) -> None:
    alice, bob, admin = await world.key("sessions"), await world.key("sessions", "inference"), await world.key("admin")
    of_alice, of_bob = await begin(world, alice), await begin(world, bob)

    async def seen(headers: dict[str, str]) -> set[str]:
        listed = await world.anyone.get("/sessions", headers=headers)
        return {each["session_id"] for each in listed.json()["data"]}

    assert await seen(alice) == {of_alice}
    assert await seen(bob) == {of_bob}
    assert await seen(admin) == await seen(BEARER) == {of_alice, of_bob}
    document = (await world.anyone.get(f"/sessions/{of_bob}/export", headers=bob)).json()
    path = f"/sessions/{of_bob}"
    for refused in (
        await world.anyone.get(path, headers=alice),
        await world.anyone.delete(path, headers=alice),
        await world.anyone.get(f"{path}/messages", headers=alice),
        await world.anyone.get(f"{path}/export", headers=alice),
        await world.anyone.post(f"{path}/clear", headers=alice),
        await world.anyone.patch(f"{path}/title", json={"title": "mine"}, headers=alice),
    ):
        assert (refused.status_code, error_of(refused)["code"]) == (404, "session_not_found")
    everything = {"older_than_days": 0}
    assert (await world.anyone.post("/sessions/cleanup", json=everything, headers=alice)).json() == {"deleted": 1}
    assert await seen(BEARER) == {of_bob}
    del document["session_id"]
    assert (await world.anyone.post("/sessions/import", json=document, headers=alice)).status_code == 201
    assert len(await seen(alice)) == 1


async def test_it_takes_a_key_of_that_scope(world: World) -> None:
    inference = await world.key("inference")
    without = await world.anyone.get("/sessions")
    assert (without.status_code, error_of(without)["code"]) == (401, "invalid_api_key")
    other = await world.anyone.get("/sessions/x/messages", headers=inference)
    assert (other.status_code, error_of(other)["code"]) == (403, "insufficient_scope")


async def test_when_the_last_key_is_revoked_its_sessions_are_not_everybodys(world: World) -> None:
    mine = await begin(world)
    key = await world.key("sessions")
    theirs = await begin(world, key)
    [made] = (await world.api.get("/keys")).json()["data"]
    await world.api.delete(f"/keys/{made['key_id']}")
    listed = (await world.anyone.get("/sessions")).json()["data"]
    assert [each["session_id"] for each in listed] == [mine]
    assert (await world.anyone.get(f"/sessions/{theirs}")).status_code == 404
    assert (await world.anyone.get(f"/sessions/{theirs}", headers=BEARER)).status_code == 200


# What fails


async def test_a_disk_that_will_not_have_it_is_said_in_openais_shape(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = await begin(world)
    database = world.desk.database
    assert database is not None

    def full(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("stoker.store.sessions.creation", lambda *_: full)
    answer = await world.anyone.post("/sessions")
    assert (answer.status_code, error_of(answer)["code"]) == (503, "state_unavailable")
    assert "retry-after" in answer.headers
    assert (await world.anyone.get(f"/sessions/{session_id}")).status_code == 200
    with pytest.raises(StoreError):
        await database.run(full)


@pytest.mark.parametrize("settings", [GatewaySettings(require_keys=True)])
async def test_where_keys_are_required_the_token_begins_sessions_too(world: World) -> None:
    assert (await world.anyone.get("/sessions")).status_code == 401
    session_id = await begin(world, BEARER)
    assert (await world.anyone.get(f"/sessions/{session_id}", headers=BEARER)).json()["owner"] == ""


async def test_what_is_no_path_or_method_is_said(world: World) -> None:
    wrong: list[httpx2.Response] = [
        await world.anyone.put("/sessions"),
        await world.anyone.get("/sessions/a/b/c"),
        await world.anyone.post("/sessions/x"),
    ]
    assert [answer.status_code for answer in wrong] == [405, 404, 405]
    assert all(error_of(answer)["message"] for answer in wrong)


async def test_half_a_character_does_not_spoil_a_listing(world: World) -> None:
    session_id = await begin(world)
    await say(world, session_id, {"role": "user", "content": "\ud83d!"})
    listed = await world.anyone.get(f"/sessions/{session_id}/messages")
    assert listed.json()["data"][0]["content"] == "?!"
    assert json.loads((await world.anyone.get(f"/sessions/{session_id}/export")).content)
