"""Asking models through the gateway: the same for programs that block, on asyncio and on Trio."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx2
import pytest

from stoker.client import (
    BadRequest,
    InferenceResult,
    ModelNotFound,
    StreamChunk,
    Usage,
)
from tests.e2e.running import Program

from .conftest import Create


def last_body(program: Program, engine_id: str = "fake") -> Any:
    """The body of the last request that an engine got."""
    info = program.manage("GET", f"/engines/{engine_id}").json()
    requests = httpx2.get(f"{info['base_url']}/fake/requests", timeout=60, verify=False).json()["requests"]
    return json.loads(base64.b64decode(requests[-1]["body_base64"]))


def test_it_feels_at_home(here: Program, create: Create) -> None:
    """As programs for the gateway before this one have it."""
    url = f"{here.url}/v1"
    with create(control_plane_url=url, default_model="quick", default_embedding_model="vectors") as client:
        assert client.chat([{"role": "user", "content": "Hi"}], max_tokens=1) == "Hi"
        assert client.generate("once upon", max_tokens=2) == "once upon"
        first, second = client.embed(["a", "b"])
        assert len(first) == len(second) == 8
        assert first != second


def test_the_only_model_of_a_kind_need_not_be_named(client: Any) -> None:
    assert client.chat("one two", max_tokens=2) == "one two"
    assert len(client.embed("one")) == 1


def test_every_parameter_reaches_the_engine_as_it_is(here: Program, client: Any) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    given = {"temperature": 0, "top_p": 0.5, "stop": ["x"], "tools": tools, "user": "ü", "future_parameter": {"a": [0]}}
    client.chat("hi", seed=0, n=None, extra_body={"top_k": 0}, extra_headers={"X-Trace": "t"}, **given)
    sent = last_body(here)
    assert sent == {
        "model": "fake",
        "messages": [{"role": "user", "content": "hi"}],
        "seed": 0,
        "top_k": 0,
        **given,
    }


def test_a_result_says_what_there_is_to_know(client: Any) -> None:
    result = client.chat("one two three", max_tokens=2, return_result=True)
    assert isinstance(result, InferenceResult)
    assert (result.content, result.model, result.engine) == ("one two", "fake", "fake")
    assert result.usage == Usage(prompt_tokens=3, completion_tokens=2, total_tokens=5)
    assert result.finish_reason == "length"
    assert result.message == {"role": "assistant", "content": "one two"}
    assert 0 < result.latency_seconds < 60
    vectors = client.embed(["a", "b", "c"], return_result=True)
    assert (len(vectors.content), vectors.engine) == (3, "vectors")
    assert vectors.usage.prompt_tokens == 3


@pytest.mark.parametrize("method", ["chat", "generate"])
def test_a_stream_comes_in_pieces(client: Any, method: str) -> None:
    stream = getattr(client, method)("one two three", max_tokens=3, stream=True)
    with pytest.raises(RuntimeError, match="not at its end"):
        _ = stream.result
    assert list(stream) == ["one", " two", " three"]
    assert list(stream) == []
    assert stream.engine == "fake"
    assert stream.result.content == "one two three"
    assert stream.result.usage is None


def test_a_stream_of_records_tells_the_usage(here: Program, client: Any) -> None:
    stream = client.chat("one two", max_tokens=2, stream=True, return_result=True)
    chunks = list(stream)
    assert all(isinstance(chunk, StreamChunk) for chunk in chunks)
    assert "".join(chunk.content for chunk in chunks) == "one two"
    assert [chunk.finish_reason for chunk in chunks if chunk.finish_reason] == ["length"]
    assert chunks[-1].usage == stream.result.usage == Usage(prompt_tokens=2, completion_tokens=2, total_tokens=4)
    assert last_body(here)["stream_options"] == {"include_usage": True}


def test_long_lists_are_embedded_in_batches_and_stay_in_order(here: Program, create: Create) -> None:
    texts = [f"text number {number}" for number in range(101)]
    with create(batch_size=7, parallel=4) as client:
        one_by_one = [client.embed([text])[0] for text in (texts[0], texts[50], texts[100])]
        result = client.embed(texts, return_result=True)
        assert len(result.content) == 101
        assert [result.content[0], result.content[50], result.content[100]] == one_by_one
        assert result.usage.prompt_tokens == 4 * 101 - 101
        assert client.embed([]) == []
        packed = client.embed(texts[:9], encoding_format="base64")
        assert [round(number, 4) for number in packed[3]] == [round(number, 4) for number in result.content[3]]


def test_one_bad_batch_is_an_error_of_its_own_type(here: Program, create: Create) -> None:
    with create(batch_size=1) as client:
        with pytest.raises(ModelNotFound, match="nothing-of-the-sort"):
            client.embed(["a"] * 20, model="nothing-of-the-sort")
        assert len(client.embed(["a"] * 20)) == 20


def test_a_name_that_nobody_serves(client: Any) -> None:
    for stream in (False, True):
        with pytest.raises(ModelNotFound, match="nobody") as caught:
            client.chat("hi", model="nobody", stream=stream)
        assert (caught.value.status, caught.value.code) == (404, "model_not_found")
        assert caught.value.request_id


def test_a_request_that_is_wrong(client: Any) -> None:
    with pytest.raises(BadRequest, match="max_tokens") as caught:
        client.chat("hi", max_tokens=-1)
    assert (caught.value.status, caught.value.engine) == (400, "fake")
    with pytest.raises(BadRequest, match="can't be sent"):
        client.chat("hi", extra_headers={"x": "a\r\nb"})


@pytest.mark.parametrize(
    ("method", "given", "wrong"),
    [
        (
            "chat",
            [],
            "messages is empty, so that there is nothing to answer; give a text, or a list of messages",
        ),
        ("chat", "", "messages is empty"),
        ("chat", {"role": "user", "content": "Hi"}, "not one dict; put it into a list"),
        ("chat", ["Hi"], r"messages\[0\] is 'Hi', and no message; messages must be a text, or a list"),
        ("chat", None, "messages must be a text, or a list of messages such as .*, not None"),
        ("chat", b"Hi", "not one bytes"),
        ("generate", "", "prompt is empty, so that there is nothing to go on with; give a text, or a list of them"),
        ("generate", [], "prompt is empty"),
        ("generate", 3, "prompt must be a text, or a list of them, not 3"),
        ("embed", None, "texts must be a text, or a list of them, not None"),
        ("embed", {"a": "b"}, "texts must be a text, or a list of them, not one dict"),
        ("embed", ["a", None], r"texts\[1\] must be a text, or a list of them, not None"),
    ],
)
def test_what_is_no_question_is_refused_before_anything_is_sent(
    create: Create, method: str, given: Any, wrong: str
) -> None:
    with create("http://127.0.0.1:9") as client, pytest.raises(ValueError, match=wrong):
        getattr(client, method)(given)


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"model": ""}, "model must be the name of a model, or None, not ''"),
        ({"model": 3}, "model must be the name of a model"),
        ({"timeout": 0}, "timeout must be a number of seconds above 0, or None for no limit, not 0"),
        ({"timeout": "5"}, "timeout must be a number of seconds"),
        (
            {"extra_headers": {"x-number": 1}},
            "extra_headers: 'x-number' must be a text, and its value too: it is of type int",
        ),
        ({"extra_body": [1]}, "extra_body must be a dict, not a list"),
        ({"tools": [{1}]}, "the request can't be written as JSON: .*set is not JSON serializable"),
        ({"temperature": float("nan")}, "the request can't be written as JSON"),
    ],
    ids=str,
)
def test_arguments_that_can_not_be(create: Create, arguments: dict[str, Any], wrong: str) -> None:
    with create("http://127.0.0.1:9", default_model="m", default_embedding_model="m") as client:
        for call in (client.chat, client.embed):
            with pytest.raises(ValueError, match=wrong):
                call("hi", **arguments)
        with pytest.raises(ValueError, match="engine_id must be the id of an engine, as"):
            client.engine("")
