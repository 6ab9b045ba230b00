"""``POST /v1/management/route/explain``."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.contracts import RoutingPolicy
from stoker.gateway.policies import Policies
from stoker.model import Candidate, EngineLoad, RouteRequest

from .conftest import FirstPolicy, World, error_of


class Quoting(FirstPolicy):
    """Says what it sees of a request."""

    def explain(self, request: RouteRequest, candidates: list[Candidate], now: float) -> str:
        return f"{request.path} {request.prompt!r} {request.session!r} {request.body!r} {dict(request.headers)}"


def goes_by(world: World, policy: RoutingPolicy) -> None:
    world.table.policies = Policies(policy, FirstPolicy(), plugins={policy.name: "quotes"})


async def explained(world: World, **order: Any) -> Any:
    answer = await world.api.post("/route/explain", json=order)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_it_says_which_engine_and_shows_all_of_them(world: World) -> None:
    await world.start("m-1", model="m", names=["alias"], max_concurrency=3)
    await world.api.post("/engines/start", json={"model": "m", "names": ["alias"], "engine_id": "m-2"})
    [here] = [backend for backend in world.table.models() if backend.engine_id == "m-1"]
    world.table.report_load("m-1", here.incarnation, EngineLoad(running=2, waiting=1, kv_cache_used=0.5, progress=9))
    told = await explained(world, model="alias")
    assert (told["asked"], told["model"], told["path"]) == ("alias", "m", "/v1/chat/completions")
    assert (told["policy"], told["in_service"], told["may_differ"]) == ("first", True, False)
    assert (told["choice"], told["why"]) == ("m-1", "the policy 'first' chose it")
    assert told["engines"] == [
        {
            "engine_id": "m-1",
            "state": "READY",
            "candidate": True,
            "why_not": "",
            "in_flight": 0,
            "limit": 3,
            "load": {"running": 2, "waiting": 1, "kv_cache_used": 0.5, "progress": 9},
            "suspected": False,
        },
        {
            "engine_id": "m-2",
            "state": "STARTING",
            "candidate": False,
            "why_not": "STARTING; starting",
            "in_flight": 0,
            "limit": None,
            "load": None,
            "suspected": False,
        },
    ]
    assert world.table.in_flight() == 0


async def test_the_policy_sees_the_request_as_it_would_come(world: World) -> None:
    goes_by(world, Quoting("quoting", frozenset({"headers", "body", "prompt", "session"})))
    await world.start("m")
    body = '{"model": "m",  "messages" : [ {"role":"user"} ], "user": "me"}'
    order = f'{{"path": "/v1/chat/completions", "headers": {{"X-A": "b"}}, "body":  {body} }}'
    answer = await world.api.post("/route/explain", content=order)
    prompt = b'[ {"role":"user"} ]'
    assert answer.json()["why"] == f"/v1/chat/completions {prompt!r} 'me' {body.encode()!r} {{'x-a': 'b'}}"
    assert answer.json()["plugin"] == "quotes"
    told = await explained(world, model="m")
    assert told["why"] == "/v1/chat/completions b'' '' b'' {}"


async def test_the_policy_sees_no_credentials(world: World) -> None:
    goes_by(world, Quoting("quoting", frozenset({"headers"})))
    await world.start("m")
    told = await explained(world, model="m", headers={"Authorization": "Bearer secret", "Cookie": "a=b", "X-A": "b"})
    assert told["why"].endswith("{'x-a': 'b'}")


async def test_when_none_can_be_had_it_says_what_comes_instead(world: World) -> None:
    await world.api.post("/engines/start", json={"model": "m", "engine_id": "m"})
    told = await explained(world, model="m")
    assert (told["choice"], told["why"]) == (None, "it would wait for the start of m")
    world.supervisor.becomes_ready("m")
    told = await explained(world, model="m", path="/v1/embeddings")
    assert told["choice"] is None
    assert told["engines"][0]["why_not"] == "it does not serve /v1/embeddings"


async def test_an_unknown_model_is_not_found(world: World) -> None:
    await world.start("m")
    answer = await world.api.post("/route/explain", json={"model": "n"})
    assert answer.status_code == 404
    assert error_of(answer)["code"] == "model_not_found"
    assert error_of(answer)["message"] == "the model 'n' does not exist; there are: m"


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({}, ["model: must name a model"]),
        ({"model": 7, "path": "chat", "headers": {"a": 1}}, ["model: ", "path: must be a path", "headers: "]),
        ({"model": "m", "body": []}, ["body: must be a JSON object"]),
        ({"model": "m", "body": {"model": "n"}}, ["model: is not the one of the body"]),
        ({"model": "m", "prompt": "x"}, ["prompt: is not known here; there are: model, path, headers, body"]),
    ],
)
async def test_every_mistake_is_told(world: World, order: dict[str, Any], words: list[str]) -> None:
    answer = await world.api.post("/route/explain", json=order)
    assert answer.status_code == 400
    assert all(word in error_of(answer)["message"] for word in words), answer.text


async def test_it_needs_the_admin_token(world: World) -> None:
    assert (await world.anyone.post("/v1/management/route/explain", json={"model": "m"})).status_code == 401
