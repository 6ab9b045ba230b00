"""What an engine must do for Stoker to put clients in front of it: checks against a running one.

Each check is an async function of the engine's base URL and a model's name. It returns when the engine does what the
check's docstring says, and raises :class:`AssertionError` with what it did instead. None looks at what a model says.
With pytest::

    @pytest.mark.parametrize("check", CHAT_CHECKS, ids=lambda check: check.__name__)
    async def test_my_engine(check: Check, my_engine: str) -> None:
        await check(my_engine, "my-model")
"""

from __future__ import annotations

import base64
import json
import math
import re
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2
import trio

Check = Callable[[str, str], Awaitable[None]]

MESSAGES = [{"role": "user", "content": "Say something short, please."}]
PATIENCE_SECONDS = 120.0
CANCEL_SECONDS = 5.0
RUNNING = re.compile(r"^(?:vllm:num_requests_running|llamacpp:requests_processing)(?:\{.*\})? (\S+)", re.MULTILINE)


async def check_health(base_url: str, model: str) -> None:
    """``GET /health`` answers 200."""
    async with _client(base_url) as client:
        answer = await client.get("/health")
    assert answer.status_code == 200, _shown(answer)


async def check_models(base_url: str, model: str) -> None:
    """``GET /v1/models`` lists the model, by its id or among its aliases."""
    async with _client(base_url) as client:
        listed = _object(await client.get("/v1/models"))
    names = {name for one in listed["data"] for name in (one["id"], *one.get("aliases", ()))}
    assert model in names, f"{model!r} is not among {sorted(names)}"


async def check_chat(base_url: str, model: str) -> None:
    """A chat request is answered by an assistant's message, with the reason why it ended and its usage."""
    async with _client(base_url) as client:
        answer = _object(await client.post("/v1/chat/completions", json=_chat(model)))
    choice = answer["choices"][0]
    assert choice["message"]["role"] == "assistant", answer
    assert isinstance(choice["message"]["content"], str), answer
    assert choice["finish_reason"] in {"stop", "length"}, answer
    _check_usage(answer["usage"], most=8)


async def check_chat_stream(base_url: str, model: str) -> None:
    """A streamed chat comes as server-sent events with deltas, gives its reason to end, and ends with ``[DONE]``."""
    async with _client(base_url) as client:
        events = await _stream(client, "/v1/chat/completions", _chat(model))
    choices = [choice for event in events for choice in event["choices"]]
    assert any(choice["delta"].get("content") for choice in choices), "no delta had any content"
    assert [choice["finish_reason"] for choice in choices][-1] in {"stop", "length"}, choices[-1]


async def check_stream_usage(base_url: str, model: str) -> None:
    """With ``stream_options.include_usage`` the last event of a stream carries the usage."""
    async with _client(base_url) as client:
        asked = {**_chat(model), "stream_options": {"include_usage": True}}
        events = await _stream(client, "/v1/chat/completions", asked)
    _check_usage(events[-1]["usage"], most=8)


async def check_completion(base_url: str, model: str) -> None:
    """A completion request is answered by a text, with the reason why it ended and its usage."""
    async with _client(base_url) as client:
        answer = _object(await client.post("/v1/completions", json=_completion(model)))
    assert isinstance(answer["choices"][0]["text"], str), answer
    assert answer["choices"][0]["finish_reason"] in {"stop", "length"}, answer
    _check_usage(answer["usage"], most=8)


async def check_completion_stream(base_url: str, model: str) -> None:
    """A streamed completion comes as server-sent events with texts, and ends with ``[DONE]``."""
    async with _client(base_url) as client:
        events = await _stream(client, "/v1/completions", _completion(model))
    texts = [choice["text"] for event in events for choice in event["choices"]]
    assert all(isinstance(text, str) for text in texts), texts
    assert any(texts), "no event had any text"


async def check_concurrent_chats(base_url: str, model: str) -> None:
    """Several chats at once are all answered, streamed or not."""
    async with _client(base_url) as client, trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(_stream, client, "/v1/chat/completions", _chat(model))
            nursery.start_soon(check_chat, base_url, model)


async def check_disconnect_cancels(base_url: str, model: str) -> None:
    """A client that leaves in mid-stream ends the work on its request, long before the answer would be whole.

    Needs an engine that takes longer than some seconds for 1,500 tokens and whose ``/metrics`` count running requests.
    """
    asked = {**_chat(model), "stream": True, "max_tokens": 1500, "ignore_eos": True}
    async with _client(base_url) as client:
        async with await _post(base_url, "/v1/chat/completions", asked) as connection:
            with trio.fail_after(PATIENCE_SECONDS):
                await _first_event(connection)
            assert await _running(client) > 0, "the metrics show no running request while one streams"
        with trio.move_on_after(CANCEL_SECONDS) as limit:
            while await _running(client) > 0:
                await trio.sleep(0.02)
        assert not limit.cancelled_caught, f"the request still runs {CANCEL_SECONDS:g} s after its client left"


async def check_embeddings(base_url: str, model: str) -> None:
    """A text is answered by one vector of finite numbers, with its usage; the same text by the same vector."""
    async with _client(base_url) as client:
        answers = [_object(await client.post("/v1/embeddings", json=_embed(model, "a small text"))) for _ in range(2)]
    first, second = (_vectors(answer)[0] for answer in answers)
    assert first, "the vector is empty"
    assert all(math.isfinite(number) for number in first), first
    assert _distance(first, second) < 1e-2, "the same text gave another vector"
    assert answers[0]["usage"]["prompt_tokens"] > 0, answers[0]["usage"]


async def check_embedding_batch(base_url: str, model: str) -> None:
    """A list of texts is answered by a vector for each, in their order, equal to those of the texts alone."""
    texts = ["the first text", "a second one, which is longer", "third"]
    async with _client(base_url) as client:
        together = _vectors(_object(await client.post("/v1/embeddings", json=_embed(model, texts))))
        alone = [_vectors(_object(await client.post("/v1/embeddings", json=_embed(model, text))))[0] for text in texts]
    assert len(together) == len(texts), f"{len(texts)} texts gave {len(together)} vectors"
    for text, one, other in zip(texts, together, alone, strict=True):
        assert len(one) == len(together[0]), "vectors of different length"
        assert _distance(one, other) < 1e-2, f"{text!r} alone gave another vector than in the batch"


async def check_embedding_base64(base_url: str, model: str) -> None:
    """With ``encoding_format`` base64, which OpenAI's client asks for, vectors come as little-endian float32."""
    async with _client(base_url) as client:
        plain = _vectors(_object(await client.post("/v1/embeddings", json=_embed(model, "text"))))[0]
        asked = {**_embed(model, "text"), "encoding_format": "base64"}
        packed = _object(await client.post("/v1/embeddings", json=asked))["data"][0]["embedding"]
    raw = base64.b64decode(packed)
    assert _distance(plain, struct.unpack(f"<{len(raw) // 4}f", raw)) < 1e-2, "base64 gave another vector"


async def check_unknown_path(base_url: str, model: str) -> None:
    """A path that nobody serves is answered 404."""
    async with _client(base_url) as client:
        answer = await client.post("/v1/no/such/path", json={"model": model})
    assert answer.status_code == 404, _shown(answer)


async def check_bad_chat(base_url: str, model: str) -> None:
    """A chat without messages, and a body that is not JSON, get an error in OpenAI's shape, and nothing breaks."""
    await _check_refused(base_url, "/v1/chat/completions", json.dumps({"model": model}).encode())
    await _check_refused(base_url, "/v1/chat/completions", b'{"model": ')
    await check_chat(base_url, model)


async def check_bad_embedding(base_url: str, model: str) -> None:
    """An embedding request without input, and a body that is not JSON, get an error in OpenAI's shape."""
    await _check_refused(base_url, "/v1/embeddings", json.dumps({"model": model}).encode())
    await _check_refused(base_url, "/v1/embeddings", b'{"model": ')
    await check_embeddings(base_url, model)


CHAT_CHECKS: Sequence[Check] = (
    check_health,
    check_models,
    check_chat,
    check_chat_stream,
    check_stream_usage,
    check_completion,
    check_completion_stream,
    check_concurrent_chats,
    check_disconnect_cancels,
    check_unknown_path,
    check_bad_chat,
)

EMBEDDING_CHECKS: Sequence[Check] = (
    check_health,
    check_models,
    check_embeddings,
    check_embedding_batch,
    check_embedding_base64,
    check_unknown_path,
    check_bad_embedding,
)


def _client(base_url: str) -> httpx2.AsyncClient:
    tls = base_url.startswith("https:")  # making a TLS context costs more than a check
    return httpx2.AsyncClient(base_url=base_url, timeout=PATIENCE_SECONDS, trust_env=False, verify=tls)


def _chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": MESSAGES, "max_tokens": 8, "temperature": 0}


def _completion(model: str) -> dict[str, Any]:
    return {"model": model, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}


def _embed(model: str, given: str | Sequence[str]) -> dict[str, Any]:
    return {"model": model, "input": given}


def _shown(answer: httpx2.Response) -> str:
    return f"{answer.request.method} {answer.request.url} was answered {answer.status_code}: {answer.text[:500]}"


def _object(answer: httpx2.Response) -> Mapping[str, Any]:
    assert answer.status_code == 200, _shown(answer)
    found = answer.json()
    assert isinstance(found, dict), _shown(answer)
    return found


async def _check_refused(base_url: str, path: str, body: bytes) -> None:
    async with _client(base_url) as client:
        answer = await client.post(path, content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 600, _shown(answer)
    error = answer.json().get("error")
    assert isinstance(error, dict), _shown(answer)
    assert isinstance(error.get("message"), str), _shown(answer)


async def _stream(client: httpx2.AsyncClient, path: str, asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The events of a stream that ended as it should, without the last ``[DONE]``."""
    async with client.stream("POST", path, json={**asked, "stream": True}) as answer:
        assert answer.status_code == 200, f"{path} was answered {answer.status_code}"
        assert answer.headers["content-type"].startswith("text/event-stream"), answer.headers
        events = [data async for data in _data(answer)]
    assert events, "the stream was empty"
    assert events[-1] == "[DONE]", f"the stream ended with {events[-1]!r}"
    found = [json.loads(event) for event in events[:-1]]
    assert not [event for event in found if "error" in event], f"the stream told of an error: {found}"
    return found


async def _data(answer: httpx2.Response) -> AsyncIterator[str]:
    async for line in answer.aiter_lines():
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()


async def _post(base_url: str, path: str, asked: Mapping[str, Any]) -> trio.SocketStream:
    """A connection of its own with a request on it: closing it is what a client that leaves does."""
    url = urlsplit(base_url)
    assert url.scheme == "http", f"{base_url!r} is not plain HTTP"
    assert url.hostname is not None, f"{base_url!r} names no host"
    body = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n"
    connection = await trio.open_tcp_stream(url.hostname, url.port or 80)
    await connection.send_all(
        f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    return connection


async def _first_event(connection: trio.SocketStream) -> None:
    received = b""
    while b"\ndata:" not in received:
        received += (piece := await connection.receive_some())
        assert piece, f"the stream ended before its first event: {received!r}"
        status, whole, _ = received.partition(b"\r\n")
        assert not whole or b" 200" in status, f"instead of a stream: {received!r}"


async def _running(client: httpx2.AsyncClient) -> float:
    page = (await client.get("/metrics")).text
    found = [float(value) for value in RUNNING.findall(page)]
    assert found, "the metrics tell no number of running requests; leave check_disconnect_cancels out"
    return sum(found)


def _vectors(answer: Mapping[str, Any]) -> list[list[float]]:
    ordered = sorted(answer["data"], key=lambda one: int(one["index"]))
    return [one["embedding"] for one in ordered]


def _distance(one: Sequence[float], other: Sequence[float]) -> float:
    assert len(one) == len(other), f"vectors of {len(one)} and {len(other)} numbers"
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _check_usage(usage: Mapping[str, int], *, most: int) -> None:
    assert usage["prompt_tokens"] > 0, usage
    assert 0 < usage["completion_tokens"] <= most, usage
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"], usage
