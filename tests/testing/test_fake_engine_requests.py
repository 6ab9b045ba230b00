"""What a test can learn from a fake engine: what it was asked, and whose answer one holds."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import trio

import stoker
from stoker.builtin.runtimes import Command
from stoker.model import Placement
from stoker.testing.engines import RunningFakeEngine, fake_engine_env, fake_engine_spec, open_fake_engine
from stoker.testing.fake_engine.faults import Faults


@pytest.fixture
async def engine() -> AsyncIterator[RunningFakeEngine]:
    async with open_fake_engine("tiny", names=("small",)) as running:
        yield running


@pytest.fixture
async def client(engine: RunningFakeEngine) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=engine.base_url, trust_env=False, verify=False, timeout=20) as made:
        yield made


async def test_it_shows_every_byte_and_header_it_was_sent(
    engine: RunningFakeEngine, client: httpx2.AsyncClient
) -> None:
    body = b'{ "model":"small",\n"prompt": "\xc3\xa9","unknown":[1,{}], "model":"tiny" }'
    await client.post("/v1/completions?x=1", content=body, headers={"X-Mine": "yes"})
    (seen,) = await engine.requests()
    assert base64.b64decode(seen["body_base64"]) == body
    assert (seen["method"], seen["target"]) == ("POST", "/v1/completions?x=1")
    assert ["x-mine", "yes"] in seen["headers"]


async def test_of_a_large_body_it_shows_the_digest(engine: RunningFakeEngine, client: httpx2.AsyncClient) -> None:
    body = b'{"prompt": "a", "padding": "' + b"x" * 3_000_000 + b'"}'
    assert (await client.post("/v1/completions", content=body)).status_code == 200
    (seen,) = await engine.requests()
    assert seen["body_base64"] is None
    assert (seen["body_sha256"], seen["body_size"]) == (hashlib.sha256(body).hexdigest(), len(body))


async def test_its_answers_repeat_the_prompt_so_that_nobody_gets_anothers(client: httpx2.AsyncClient) -> None:
    asked = {"messages": [{"role": "user", "content": [{"type": "text", "text": "red green"}]}], "max_tokens": 3}
    answer = (await client.post("/v1/chat/completions", json=asked)).json()
    assert answer["choices"][0]["message"]["content"] == "red green red"
    assert answer["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    other = (await client.post("/v1/completions", json={"prompt": "blue", "max_tokens": 2})).json()
    assert other["choices"][0]["text"] == "blue blue"


@pytest.mark.parametrize(
    ("path", "asked", "status", "words"),
    [
        ("/v1/chat/completions", {"model": "big", "messages": [{}]}, 404, "The model `big` does not exist."),
        ("/v1/chat/completions", {"messages": []}, 400, "messages must be a list"),
        ("/v1/chat/completions", [], 400, "must be a JSON object"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 0.5}, 400, "max_tokens must be at least 1"),
        ("/v1/completions", {}, 400, "prompt must be"),
    ],
)
async def test_what_it_can_not_serve_it_refuses_like_vllm(
    client: httpx2.AsyncClient, path: str, asked: object, status: int, words: str
) -> None:
    answer = await client.post(path, json=asked)
    assert answer.status_code == status
    error = answer.json()["error"]
    assert words in error["message"]
    assert error["code"] == status


async def test_a_generating_engine_does_not_embed(client: httpx2.AsyncClient) -> None:
    assert (await client.post("/v1/embeddings", json={"input": "a"})).status_code == 404


async def test_its_metrics_move_with_its_work(client: httpx2.AsyncClient) -> None:
    await client.post("/v1/completions", json={"prompt": "one two", "max_tokens": 5})
    load = Command().scrape((await client.get("/metrics")).text)
    assert (load.running, load.waiting, load.progress) == (0, 0, 7)


async def test_bytes_that_are_not_http_get_an_error_and_harm_nobody(
    engine: RunningFakeEngine, client: httpx2.AsyncClient
) -> None:
    async with await trio.open_tcp_stream("127.0.0.1", engine.port) as connection:
        await connection.send_all(b"\x16\x03\x01 not HTTP at all\r\n\r\n")
        assert b"HTTP/1.1 400" in b"".join([piece async for piece in connection])
    assert (await client.get("/health")).status_code == 200


async def test_openais_own_client_is_content_with_it() -> None:
    async with (
        open_fake_engine("minilm", kind="embedding") as engine,
        openai.AsyncOpenAI(base_url=f"{engine.base_url}/v1", api_key="none") as sdk,
    ):
        made = await sdk.embeddings.create(model="minilm", input=["a", "b"])
    assert [len(one.embedding) for one in made.data] == [8, 8]


def test_a_spec_for_it_is_one_that_the_command_runtime_can_start() -> None:
    spec = fake_engine_spec("tiny", names=("small",), faults=Faults(message="hello", exit_at_start=3), env={"A": "b"})
    assert Command().check(spec) == []
    plan = Command().plan(spec, Placement(), 1)
    assert plan.env["A"] == "b"
    ran = subprocess.run(plan.argv, env={**os.environ, **plan.env}, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (3, "hello\n")


async def test_a_failed_start_tells_what_was_printed() -> None:
    with pytest.raises(RuntimeError, match="the fake engine ended with 4: out of luck"):
        async with open_fake_engine(faults=Faults(exit_at_start=4, message="out of luck")):
            raise AssertionError("it must not start")


def test_it_runs_from_inside_a_zip(tmp_path: Path) -> None:
    archive = tmp_path / "stoker.zip"
    source = Path(stoker.__file__).parent
    with zipfile.ZipFile(archive, "w") as packed:
        for file in source.rglob("*.py"):
            packed.write(file, file.relative_to(source.parent))
    elsewhere = [path for path in sys.path if path and Path(path).resolve() != source.parent.resolve()]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(archive), *elsewhere])}
    code = "import stoker, runpy, sys; print(stoker.__file__); runpy.run_module('stoker.testing.fake_engine')"
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(str(archive))


def test_the_environment_it_is_given_holds_no_empty_path() -> None:
    assert "" not in fake_engine_env()["PYTHONPATH"].split(os.pathsep)


def test_faults_in_a_spec_reach_the_command_as_flags() -> None:
    arguments: Any = fake_engine_spec(faults=Faults(die_after_chunks=0, hang=True)).args
    assert arguments == ("--hang", "--die-after-chunks", "0")
