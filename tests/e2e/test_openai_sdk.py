"""The ``openai`` Python SDK against the built file and real models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import openai
import pytest

from stoker.home import Home

from .running import Program, running, until

pytestmark = pytest.mark.e2e

CHAT, EMBEDDING = "smollm2", "all-minilm-l6-v2"
CONFIG = """
[gateway]
listen = "127.0.0.1:0"

[[engine]]
model = "HuggingFaceTB/SmolLM2-135M-Instruct"
names = ["smollm2"]
runtime = "embedded"

[[engine]]
model = "sentence-transformers/all-MiniLM-L6-v2"
names = ["all-minilm-l6-v2"]
runtime = "embedded"
kind = "embedding"
"""


@pytest.fixture(scope="module")
def program(pyz: Path, embedded_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    config = tmp_path_factory.mktemp("config") / "stoker.toml"
    config.write_text(CONFIG)
    with running(pyz, embedded_home, "up", "-c", str(config)) as program:
        program.wait_until_ready(2)
        yield program


@pytest.fixture
def client(program: Program) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{program.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_models_are_listed_under_every_name(client: openai.OpenAI) -> None:
    ids = {model.id for model in client.models.list()}
    assert {CHAT, "HuggingFaceTB/SmolLM2-135M-Instruct", EMBEDDING} <= ids
    assert client.models.retrieve("HuggingFaceTB/SmolLM2-135M-Instruct").object == "model"


def test_a_chat_is_answered(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=CHAT, messages=[{"role": "user", "content": "What is the capital of France?"}], max_tokens=24
    )
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert 0 < answer.usage.completion_tokens <= 24


def test_a_chat_is_streamed_in_pieces_that_make_the_whole(client: openai.OpenAI) -> None:
    options: dict[str, object] = {"temperature": 0, "seed": 7, "max_tokens": 24}
    messages: list[dict[str, str]] = [{"role": "user", "content": "Count to five."}]
    whole = client.chat.completions.create(model=CHAT, messages=messages, **options)  # type: ignore[call-overload]
    stream = client.chat.completions.create(model=CHAT, messages=messages, stream=True, **options)  # type: ignore[call-overload]
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    assert len(pieces) > 5
    assert "".join(pieces) == whole.choices[0].message.content


def test_completions_and_fields_that_openai_does_not_know_pass(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=CHAT, prompt="Once upon a time", max_tokens=8, extra_body={"top_k": 5})
    assert answer.choices[0].text
    raw = client.chat.completions.with_raw_response.create(
        model=CHAT, messages=[{"role": "user", "content": "Hi"}], max_tokens=4, extra_body={"return_progress": False}
    )
    assert raw.headers["x-stoker-engine"].startswith("smollm2")
    assert raw.headers["x-request-id"]


def test_a_json_schema_reaches_the_engine_and_binds_the_model(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Paris", "Rome"]}, "sunny": {"type": "boolean"}},
        "required": ["city", "sunny"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        response_format={"type": "json_schema", "json_schema": {"name": "weather", "schema": schema}},
        max_tokens=60,
    )
    weather = json.loads(answer.choices[0].message.content or "")
    assert weather["city"] in {"Paris", "Rome"}
    assert isinstance(weather["sunny"], bool)


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_goes_on_from_where_it_was(program: Program, client: openai.OpenAI, stream: bool) -> None:
    session = httpx2.post(f"{program.url}/sessions", json={"instructions": "Answer in a few words."}).json()
    path = f"{program.url}/sessions/{session['session_id']}"
    prompts, answers = [], []
    for question in ("What is the capital of France?", "And of Italy?"):
        asked = client.chat.completions.create(
            model=CHAT,
            messages=[{"role": "user", "content": question}],
            max_tokens=12,
            extra_body={"session_id": session["session_id"]},
            **({"stream": True, "stream_options": {"include_usage": True}} if stream else {}),
        )  # type: ignore[call-overload]
        if stream:
            chunks = list(asked)
            answers.append("".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices))
            prompts.append(chunks[-1].usage.prompt_tokens)
        else:
            answers.append(asked.choices[0].message.content)
            prompts.append(asked.usage.prompt_tokens)
        last = httpx2.get(f"{path}/messages").json()["data"][-1]
        assert (last["content"], last["aborted"], last["model"]) == (answers[-1], False, CHAT)
    assert prompts[1] > prompts[0], "the engine read what was said before"
    assert httpx2.get(path).json()["message_count"] == 4
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(
            model=CHAT, messages=[{"role": "user", "content": "Hi"}], extra_body={"session_id": "sess_0"}
        )
    assert caught.value.code == "session_not_found"


def test_a_client_that_leaves_a_conversation_leaves_what_it_was_told(program: Program, client: openai.OpenAI) -> None:
    session_id = httpx2.post(f"{program.url}/sessions").json()["session_id"]
    stream = client.chat.completions.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Tell a long story."}],
        stream=True,
        max_tokens=1500,
        extra_body={"session_id": session_id},
    )
    next(chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content)
    stream.close()
    messages = until(
        lambda: httpx2.get(f"{program.url}/sessions/{session_id}/messages").json()["data"], "the turn is kept"
    )
    assert [(message["role"], message["aborted"]) for message in messages] == [("user", True), ("assistant", True)]
    assert messages[1]["content"]


def test_embeddings_have_length_one_and_know_what_is_near(client: openai.OpenAI) -> None:
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose in March."]
    answer = client.embeddings.create(model=EMBEDDING, input=texts)
    cat, kitten, rates = (item.embedding for item in answer.data)
    assert len(cat) == 384
    assert sum(x * x for x in cat) == pytest.approx(1, abs=1e-3)

    def near(one: list[float], other: list[float]) -> float:
        return sum(x * y for x, y in zip(one, other, strict=True))

    assert near(cat, kitten) > near(cat, rates) + 0.2


def test_an_unknown_model_is_the_sdks_not_found_error(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"gpt-9.*there are: ") as caught:
        client.chat.completions.create(model="gpt-9", messages=[{"role": "user", "content": "Hi"}])
    assert caught.value.code == "model_not_found"


def test_an_embedding_engine_does_not_chat_and_says_so(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/chat/completions"):
        client.chat.completions.create(model=EMBEDDING, messages=[{"role": "user", "content": "Hi"}])


def test_the_engines_own_error_comes_through(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=CHAT, messages=[{"role": "user", "content": "word " * 20_000}])


def test_a_client_that_leaves_a_stream_frees_the_engine(program: Program, client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model=CHAT, messages=[{"role": "user", "content": "Tell a long story."}], stream=True, max_tokens=1500
    )
    next(iter(stream))
    assert [engine["active_requests"] for engine in program.engines()] == [1, 0]
    stream.close()
    until(lambda: not any(engine["active_requests"] for engine in program.engines()), "the lease is given back")
