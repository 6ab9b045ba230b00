"""The real engine: what it answers, whether its vectors are right, how it ends, and why it can't start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from stoker.environments import Installed
from stoker.model import EngineSpec
from stoker.testing.engines_contract import CHAT_CHECKS, EMBEDDING_CHECKS, Check
from stoker_embedded import Embedded

pytestmark = pytest.mark.e2e

REFERENCE: Mapping[str, Sequence[Mapping[str, Any]]] = json.loads(
    Path(__file__).with_name("reference.json").read_text()
)
TOLERANCE = 1e-2
HANG_GUARD_SECONDS = 60
AT_ONCE_SECONDS = 5  # a guard against llama.cpp's own thirty, and not a measurement
CHAT = EngineSpec(model="smollm2", runtime="embedded")
MESSAGES = [{"role": "user", "content": "Tell me a long story."}]
BODIES: Mapping[str, Mapping[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 4},
    "/v1/completions": {"prompt": "Once", "max_tokens": 4},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 4},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 4},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/v1/embeddings": {"input": "Hello"},
    "/tokenize": {"content": "Hello"},
    "/detokenize": {"tokens": [100, 200]},
}

Started = tuple[subprocess.Popen[bytes], str, Path]
Start = Callable[[EngineSpec], Started]
UntilReady = Callable[[subprocess.Popen[bytes], str, Path], str]


def post(url: str, path: str, body: Mapping[str, Any]) -> httpx2.Response:
    return httpx2.post(f"{url}{path}", json=body, timeout=HANG_GUARD_SECONDS, trust_env=False, verify=False)


def vector_of(url: str, text: str) -> list[float]:
    answer = post(url, "/v1/embeddings", {"input": text})
    assert answer.status_code == 200, answer.text
    vector: list[float] = answer.json()["data"][0]["embedding"]
    return vector


def furthest(one: Sequence[float], other: Sequence[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("check", CHAT_CHECKS, ids=lambda check: check.__name__)
async def test_the_chat_engine_keeps_the_contract(check: Check, chat: str) -> None:
    await check(chat, "smollm2")


@pytest.mark.parametrize("check", EMBEDDING_CHECKS, ids=lambda check: check.__name__)
async def test_the_embedding_engine_keeps_the_contract(check: Check, embedding: str) -> None:
    await check(embedding, "all-minilm-l6-v2")


@pytest.mark.parametrize("kind", ["llm", "embedding"])
def test_every_path_the_runtime_promises_is_answered(kind: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue({"llm": "chat", "embedding": "embedding"}[kind])
    for path in sorted(Embedded().paths(EngineSpec(model="", kind=kind))):
        answer = post(url, path, {"model": "whatever", **BODIES[path]})
        assert answer.status_code == 200, f"{path}: {answer.text}"


def test_answers_carry_the_name_of_the_spec(chat: str) -> None:
    assert (
        post(chat, "/v1/completions", {"model": "alias", "prompt": "a", "max_tokens": 1}).json()["model"] == "smollm2"
    )


def test_an_answer_can_be_held_to_a_json_schema_and_tools_be_offered(chat: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    held = post(chat, "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 200, "response_format": form}).json()
    if held["choices"][0]["finish_reason"] == "stop":
        assert isinstance(json.loads(held["choices"][0]["message"]["content"])["n"], bool)
    tool = {"type": "function", "function": {"name": "look", "parameters": schema}}
    offered = post(chat, "/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 4, "tools": [tool]})
    assert offered.status_code == 200, offered.text


@pytest.mark.parametrize("words", [3_000, 30_000])
def test_a_prompt_too_long_is_the_clients_mistake(chat: str, words: int) -> None:
    answer = post(chat, "/v1/completions", {"prompt": "word " * words})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "exceed_context_size_error"


@pytest.mark.parametrize("words", [600, 3_000, 12_000])
def test_a_text_too_long_for_a_vector_is_the_clients_mistake(embedding: str, words: int) -> None:
    answer = post(embedding, "/v1/embeddings", {"input": "word " * words})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "exceed_context_size_error"


def test_no_web_page_is_let_in(chat: str) -> None:
    answer = httpx2.get(f"{chat}/v1/models", headers={"Origin": "https://example.org"}, verify=False)
    assert answer.headers.get("access-control-allow-origin", "") == ""


@pytest.mark.parametrize("sample", REFERENCE["samples"], ids=lambda sample: f"{sample['tokens']} tokens")
def test_vectors_agree_with_sentence_transformers(embedding: str, sample: Mapping[str, Any]) -> None:
    assert furthest(vector_of(embedding, sample["text"]), sample["vector"]) < TOLERANCE


@pytest.mark.xfail(reason="llama.cpp's WordPiece drops vowels of Hangul and Devanagari", strict=True)
@pytest.mark.parametrize("sample", REFERENCE["misread"], ids=["hangul", "devanagari"])
def test_vectors_agree_also_for_scripts_that_llama_cpp_misreads(embedding: str, sample: Mapping[str, Any]) -> None:
    assert furthest(vector_of(embedding, sample["text"]), sample["vector"]) < TOLERANCE


def test_the_measure_of_agreement_tells_different_texts_apart() -> None:
    first, second = REFERENCE["samples"][:2]
    assert furthest(first["vector"], second["vector"]) > TOLERANCE


def test_a_model_can_be_given_as_a_path(installed: Installed, start: Start, until_ready: UntilReady) -> None:
    model = installed.share / "minilm.gguf"
    url = until_ready(*start(EngineSpec(model=str(model), runtime="embedded", kind="embedding")))
    sample = REFERENCE["samples"][0]
    assert furthest(vector_of(url, sample["text"]), sample["vector"]) < TOLERANCE


def ask_and_wait_until_it_works(url: str, *, stream: bool) -> socket.socket:
    """Ask for an answer that takes half a minute; return as soon as the engine is at it."""
    asked = {"messages": MESSAGES, "max_tokens": 1500, "ignore_eos": True, "stream": stream}
    body = json.dumps(asked).encode()
    address = urlsplit(url)
    asking = socket.create_connection((str(address.hostname), address.port or 80))
    asking.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    with httpx2.Client(base_url=url, timeout=HANG_GUARD_SECONDS, trust_env=False, verify=False) as client:
        while Embedded().scrape(client.get("/metrics").text).running == 0:
            pass
    return asking


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole answer"])
def test_a_signal_ends_it_at_once_with_a_request_in_flight(
    start: Start, until_ready: UntilReady, number: signal.Signals, *, stream: bool
) -> None:
    process, url, log = start(CHAT)
    until_ready(process, url, log)
    while "listening on" not in log.read_text():  # to signals as well, which is a moment later
        pass
    with ask_and_wait_until_it_works(url, stream=stream):
        process.send_signal(number)
        assert process.wait(AT_ONCE_SECONDS) == 0
    assert log.read_text().splitlines()[-1] == "stoker-embedded: stopped by a signal"


def damaged(weights: Path, tmp_path: Path, how: str) -> Path:
    path = tmp_path / "model.gguf"
    whole = weights.read_bytes()
    path.write_bytes({"cut short": whole[: len(whole) // 2], "empty": b"", "not gguf": b"<html>" + whole[6:]}[how])
    return path


@pytest.mark.parametrize("how", ["cut short", "empty", "not gguf"])
def test_a_damaged_model_file_ends_it_with_the_reason(
    installed: Installed, start: Start, tmp_path: Path, how: str
) -> None:
    path = damaged(installed.share / "minilm.gguf", tmp_path, how)
    process, _, log = start(EngineSpec(model=str(path), runtime="embedded", kind="embedding"))
    assert process.wait(HANG_GUARD_SECONDS) == 1
    said = log.read_text()
    assert str(path) in said.splitlines()[-1]
    assert "damaged" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_a_port_in_use_ends_it_with_the_reason(installed: Installed, chat: str) -> None:
    port = chat.rpartition(":")[2]
    script = installed.share / "serve.py"
    done = subprocess.run(
        [installed.python, "-I", script, "--model", "smollm2", "--port", port],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=HANG_GUARD_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(f"stoker-embedded: can't listen on 127.0.0.1 port {port}: {os.strerror(98)}")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--set", "no_such=1"), "no simple field 'no_such'"),
        (("--set", "n_keep=many"), "'n_keep' takes a int"),
        (("--threads", "0"), "invalid positive value"),
        (("--nonsense",), "unrecognized arguments"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_wrong_flag_ends_it_with_the_reason(start: Start, flags: tuple[str, ...], complaint: str) -> None:
    process, _, log = start(EngineSpec(model="smollm2", runtime="embedded", args=flags))
    assert process.wait(HANG_GUARD_SECONDS) != 0
    assert complaint in log.read_text()


def test_a_field_of_llama_cpps_can_be_set(start: Start, until_ready: UntilReady) -> None:
    flags = ("--set", "api_prefix=/under", "--set", "warmup=false", "--context", "256", "--parallel", "1")
    process, url, log = start(EngineSpec(model="smollm2", runtime="embedded", args=flags))
    until_ready(process, f"{url}/under", log)
    props = httpx2.get(f"{url}/under/props", trust_env=False, verify=False).json()
    assert props["total_slots"] == 1
    assert props["default_generation_settings"]["n_ctx"] == 256
