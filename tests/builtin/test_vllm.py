"""What Stoker says to vLLM, what it leaves to the user's flags, and what it reads in vLLM's metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stoker.builtin.runtimes import Vllm
from stoker.errors import PermanentLaunchError
from stoker.model import EngineSpec, LaunchPlan, Placement

PYTHON = Path("/opt/vllm/bin/python")


def plan(model: str = "Qwen/Qwen2.5-0.5B-Instruct", *, given_gpus: tuple[str, ...] = (), **fields: Any) -> LaunchPlan:
    spec = EngineSpec(model=model, **fields)
    return Vllm().plan(spec, Placement(python=PYTHON, gpus=given_gpus), 9000)


def words(plan: LaunchPlan) -> str:
    return " ".join(plan.argv)


def mistakes(**fields: Any) -> list[str]:
    return list(Vllm().check(EngineSpec(**{"model": "some/model", **fields})))


def test_the_command_of_a_plain_spec() -> None:
    assert plan(names=("qwen",), args=("--max-model-len", "8192")).argv == (
        "/opt/vllm/bin/python",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        "Qwen/Qwen2.5-0.5B-Instruct",
        "--served-model-name",
        "Qwen/Qwen2.5-0.5B-Instruct",
        "qwen",
        "--host",
        "127.0.0.1",
        "--port",
        "9000",
        "--max-model-len",
        "8192",
    )


def test_without_an_environment_it_says_how_to_get_one() -> None:
    with pytest.raises(PermanentLaunchError, match=r"stoker runtime install vllm, or .*\[runtime.vllm\] python"):
        Vllm().plan(EngineSpec(model="some/model"), Placement(), 9000)


@pytest.mark.parametrize("kind", ["embedding", "rerank", "score", "classify"])
def test_kinds_that_pool_get_the_pooling_runner(kind: str) -> None:
    assert "--runner pooling" in words(plan(kind=kind))


@pytest.mark.parametrize("own", [("--runner", "generate"), ("--runner=auto",), ("--task", "embed")])
def test_unless_the_user_says_which_runner(own: tuple[str, ...]) -> None:
    assert "--runner pooling" not in words(plan(kind="embedding", args=own))


@pytest.mark.parametrize(
    ("own", "flag"),
    [
        (("--served-model-name", "mine"), "--served-model-name"),
        (("--served_model_name=mine",), "--served-model-name"),
        (("-tp", "4"), "--tensor-parallel-size"),
        (("--tensor-parallel-size=4",), "--tensor-parallel-size"),
        (("-pp", "4"), "--pipeline-parallel-size"),
    ],
)
def test_a_flag_the_user_gives_is_not_said_twice(own: tuple[str, ...], flag: str) -> None:
    argv = plan(args=own, tensor_parallel_size=2, pipeline_parallel_size=2).argv
    ours = argv[: -len(own)]
    assert flag not in ours
    assert argv[-len(own) :] == own


@pytest.mark.parametrize(
    ("own", "names"),
    [
        (("--served-model-name", "mine", "other", "--seed", "1"), ("mine", "other")),
        (("--seed=1", "--served_model_name=mine"), ("mine",)),
        (("--served-model-name", "theirs", "--served-model-name", "mine"), ("mine",)),
    ],
)
def test_names_of_the_users_own_are_the_ones_it_knows_and_is_probed_with(
    own: tuple[str, ...], names: tuple[str, ...]
) -> None:
    made = plan(names=("qwen",), args=own)
    assert made.names == names
    assert made.token_probe is not None
    assert made.token_probe.path == "/v1/completions"
    assert made.token_probe.body == {"model": "mine", "prompt": "1", "max_tokens": 1, "temperature": 0}


@pytest.mark.parametrize(
    "own", [(), ("--served-model-name",), ("--served-model-name=",), ("--served-model-name", "-x")]
)
def test_otherwise_it_knows_all_names(own: tuple[str, ...]) -> None:
    made = plan("some/model", names=("qwen",), args=own)
    assert made.names is None
    assert made.token_probe is not None
    assert made.token_probe.body["model"] == "some/model"


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({"tensor_parallel_size": 2}, "--tensor-parallel-size 2"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size 2"),
        ({"gpus": 4}, "--tensor-parallel-size 4"),
        ({"gpus": 4, "pipeline_parallel_size": 2}, "--tensor-parallel-size 2 --pipeline-parallel-size 2"),
    ],
)
def test_gpus_are_used_in_parallel(fields: dict[str, Any], flags: str) -> None:
    assert flags in words(plan(**fields))


@pytest.mark.parametrize("fields", [{}, {"gpus": 1}, {"gpus": 2, "args": ("-dp", "2")}, {"tensor_parallel_size": 1}])
def test_one_of_everything_needs_no_flag(fields: dict[str, Any]) -> None:
    assert "parallel-size" not in words(plan(**fields))


def test_the_engine_sees_its_gpus_only_and_reports_nothing_home() -> None:
    env = plan(given_gpus=("GPU-a", "GPU-b"), env={"DO_NOT_TRACK": "0", "MINE": "1"}).env
    assert env == {
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "0",
        "MINE": "1",
    }
    assert "CUDA_VISIBLE_DEVICES" not in plan().env


def test_a_folder_that_is_not_there_is_found_out_before_vllm_takes_half_a_minute_to(tmp_path: Path) -> None:
    with pytest.raises(PermanentLaunchError, match=r"there is no .*missing; correct the path"):
        plan(str(tmp_path / "missing"))
    (tmp_path / "there").mkdir()
    assert f"--model {tmp_path / 'there'}" in words(plan("./there", cwd=str(tmp_path)))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"kind": "poetry"}, "runtime 'vllm' knows no kind 'poetry'; it knows: audio, classify, embedding, llm"),
        ({"command": ("vllm", "serve")}, "command means nothing to runtime 'vllm'; name vLLM's interpreter"),
        ({"url": "http://x"}, "url means nothing to runtime 'vllm'; take runtime = \"remote\""),
        ({"args": ("--port=1",)}, "args give --port"),
        ({"args": ("--host", "0.0.0.0")}, "args give --host"),
        ({"gpus": 1, "tensor_parallel_size": 2}, "tensor_parallel_size 2 times pipeline_parallel_size 1 needs 2 GPUs"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size must be at least 1"),
        ({"gpus": 1, "env": {"CUDA_VISIBLE_DEVICES": "0"}}, "env sets CUDA_VISIBLE_DEVICES"),
        ({"replicas": 2, "port": 9000}, "2 replicas can't share port 9000"),
        ({"replicas": 0}, "replicas must be at least 1"),
        ({"gpus": -1}, "gpus must not be negative"),
        ({"names": ("",)}, "model and names must not be empty"),
        ({"health_path": "health"}, "health_path 'health' must begin with /"),
    ],
)
def test_each_mistake_in_a_spec_is_one_sentence(fields: dict[str, Any], words: str) -> None:
    (mistake,) = mistakes(**fields)
    assert words in mistake


def test_all_mistakes_are_found_at_once() -> None:
    assert len(mistakes(kind="poetry", replicas=0, url="x", args=("--port", "1"))) == 4


METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a}b c"} 2.0
vllm:num_requests_running{engine="1",model_name="a}b c"} 1.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 3.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 100.0
vllm:generation_tokens_total{engine="0",model_name="tiny"} 20.0
vllm:generation_tokens_created{engine="0",model_name="tiny"} 1.7e+09
"""


def test_its_metrics_are_summed_over_engine_cores() -> None:
    load = Vllm().scrape(METRICS)
    assert (load.running, load.waiting, load.kv_cache_used, load.progress) == (3, 3, 0.5, 120)


def test_the_cache_metric_is_known_under_its_old_name() -> None:
    assert Vllm().scrape('vllm:gpu_cache_usage_perc{model_name="tiny"} 0.75').kv_cache_used == 0.75


def test_generating_and_pooling_engines_serve_different_paths() -> None:
    generates, pools = (Vllm().paths(EngineSpec(model="m", kind=kind)) for kind in ("llm", "embedding"))
    assert {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"} <= generates
    assert {"/v1/embeddings", "/v1/rerank", "/v1/score"} <= pools
    assert generates & pools == {"/tokenize", "/detokenize"}
