"""``/v1/models``: what a client may ask for."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.web.conftest import World, error_of

from stoker.model import Backend
from stoker.web.openai import models


async def listed(world: World) -> dict[str, Any]:
    """The models that anyone sees, by id."""
    body = (await world.anyone.get("/v1/models")).json()
    assert body["object"] == "list"
    return {model["id"]: model for model in body["data"]}


async def test_a_model_is_listed_under_each_of_its_names(world: World) -> None:
    before = int(time.time())
    await world.start("a", model="org/chat", names=["chat", "gpt"], kind="llm")
    known = await listed(world)
    assert list(known) == ["org/chat", "chat", "gpt"]
    chat = known["chat"]
    assert before - 1 <= chat.pop("created") <= time.time() + 1
    assert chat == {
        "id": "chat",
        "object": "model",
        "owned_by": "stoker",
        "root": "org/chat",
        "kind": "llm",
        "ready": True,
    }


async def test_replicas_are_one_model(world: World) -> None:
    await world.start("a", model="m")
    await world.start("b", model="m", names=["n"])
    assert list(await listed(world)) == ["m", "n"]


async def test_a_model_is_listed_while_it_starts_and_gone_when_nothing_brings_it_back(world: World) -> None:
    await world.api.post("/engines/start", json={"model": "m", "engine_id": "m"})
    assert (await listed(world))["m"]["ready"] is False
    world.supervisor.becomes_ready("m")
    assert (await listed(world))["m"]["ready"] is True
    world.supervisor.crashes("m")  # it will be restarted
    assert (await listed(world))["m"]["ready"] is False
    world.supervisor.stop("m")
    assert not await listed(world)


async def test_a_model_that_can_not_start_is_not_listed(world: World) -> None:
    await world.api.post("/engines/start", json={"model": "m", "engine_id": "m"})
    world.supervisor.can_not_start("m", "no such file")
    assert not await listed(world)


@pytest.mark.parametrize(
    "name", ["m", "org/m", "a/b/c", "/abs/path/m.gguf", "a//b", "https://x/y", "m:v1@2", "a b", "é/µ", "a?b#c", "m/"]
)
@pytest.mark.parametrize("encode", [True, False])
async def test_one_model_is_found_by_its_whole_name(world: World, name: str, *, encode: bool) -> None:
    await world.start("e", model=name)
    path = quote(name, safe="" if encode else "/:@")
    answer = await world.anyone.get(f"/v1/models/{path}")
    assert answer.status_code == 200
    assert answer.json() == (await listed(world))[name]


async def test_a_model_that_is_not_there_is_named_with_those_that_are(world: World) -> None:
    await world.start("e", model="org/m")
    answer = await world.anyone.get("/v1/models/far")
    assert answer.status_code == 404
    error = error_of(answer)
    assert (error["code"], error["param"], error["type"]) == ("model_not_found", "model", "invalid_request_error")
    assert error["message"] == "there is no model 'far'; there are: org/m"
    answer = await world.anyone.get("/v1/models/org/n")
    assert error_of(answer)["message"] == "there is no model 'org/n'; did you mean org/m? There are: org/m"


BACKENDS = st.lists(
    st.builds(
        Backend,
        engine_id=st.sampled_from("abc"),
        incarnation=st.just(1),
        base_url=st.just(""),
        model=st.sampled_from("xyz"),
        names=st.lists(st.sampled_from("uvwxyz"), max_size=3).map(tuple),
        kind=st.just("llm"),
        runtime=st.just("vllm"),
        paths=st.just(frozenset()),
        accepting=st.booleans(),
        expected=st.booleans(),
    )
)


@given(BACKENDS)
def test_a_name_is_listed_when_an_engine_answers_to_it_or_will(backends: list[Backend]) -> None:
    known = models(backends, {})
    hopeful = [backend for backend in backends if backend.accepting or backend.expected]
    assert set(known) == {name for backend in hopeful for name in (backend.model, *backend.names)}
    for name, model in known.items():
        serving = [backend for backend in hopeful if name in (backend.model, *backend.names)]
        assert model.id == name
        assert model.ready == any(backend.accepting for backend in serving)


@pytest.mark.parametrize("path", ["/", "/v1", "/chat/completions", "/v1/v1/models", "/v1/engines"])
async def test_who_looks_in_the_wrong_place_is_told_where_to_look(world: World, path: str) -> None:
    """A browser at ``/``, or a client whose base URL is not the right one."""
    answer = await world.anyone.get(path)
    assert answer.status_code == 404
    message = error_of(answer)["message"]
    for told in (repr(path), "/v1/models", "/openapi.json"):
        assert told in message
