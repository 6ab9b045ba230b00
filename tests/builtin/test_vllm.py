"""What Stoker says to vLLM, what it leaves to the user's flags, and what it reads in vLLM's metrics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from stoker.builtin.runtimes import Vllm, VllmCpu
from stoker.errors import PermanentLaunchError
from stoker.model import EngineLoad, EngineSpec, Gpu, LaunchPlan, Placement, SleepPaths

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
        ({"gpus": 4, "args": ("-pp", "2")}, "--tensor-parallel-size 2"),
        ({"gpus": 8, "args": ("--data-parallel-size=2",), "pipeline_parallel_size": 2}, "--tensor-parallel-size 2"),
        ({"gpus": 4, "args": ("-dp", "8", "--data-parallel-size-local", "2")}, "--tensor-parallel-size 2"),
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
        ({"gpus": 2, "args": ("-tp=4",)}, "tensor_parallel_size 4 times pipeline_parallel_size 1 needs 4 GPUs"),
        ({"gpus": 3, "args": ("-tp", "2", "-dp", "2")}, "times data_parallel_size 2 needs 4 GPUs, but gpus = 3"),
        ({"args": ("--lora-modules", "sql=/x")}, "args load the adapter 'sql', but no client could ask for it: put"),
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


# Of vLLM 0.32 on the CPU, with three requests under way and an adapter loaded; what is left out looks the same.
REAL_PAGE = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 0.0
# TYPE vllm:engine_sleep_state gauge
vllm:engine_sleep_state{engine="0",model_name="tiny",sleep_state="awake"} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.0003662221137119559
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 7.0
# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{engine="0",model_name="tiny"} 1.7954979094838927e+09
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{engine="0",model_name="tiny"} 1500.0
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="tiny"} 14.0
vllm:iteration_tokens_total_count{engine="0",model_name="tiny"} 511.0
vllm:iteration_tokens_total_sum{engine="0",model_name="tiny"} 1507.0
# TYPE vllm:lora_requests_info gauge
vllm:lora_requests_info{max_lora="1",running_lora_adapters="dyn",waiting_lora_adapters=""} 1.7954979108963661e+09
"""


def test_a_real_page_is_read() -> None:
    load = Vllm().scrape(REAL_PAGE)
    assert load == EngineLoad(running=3, waiting=0, kv_cache_used=0.0003662221137119559, progress=3014)


def test_its_metrics_are_summed_over_engine_cores() -> None:
    load = Vllm().scrape(METRICS)
    assert (load.running, load.waiting, load.kv_cache_used, load.progress) == (3, 3, 0.5, 120)


def test_the_cache_metric_is_known_under_its_old_name() -> None:
    assert Vllm().scrape('vllm:gpu_cache_usage_perc{model_name="tiny"} 0.75').kv_cache_used == 0.75


def test_gpus_of_other_machines_are_not_counted() -> None:
    assert mistakes(gpus=2, args=("-tp", "8", "--nnodes", "4")) == []
    assert mistakes(gpus=2, args=("-tp", "8", "--distributed-executor-backend", "ray")) == []


GPU = Gpu(index=0, uuid="GPU-a", name="any", memory_total=80 * 2**30, memory_used=0)


@pytest.mark.parametrize(
    ("args", "share"),
    [
        ((), 0.92),
        (("--gpu-memory-utilization", "0.4"), 0.4),
        (("--gpu-memory-utilization=0.4",), 0.4),
        (("--gpu_memory_utilization=.5", "--gpu-memory-utilization", "0.25"), 0.25),
        (("--gpu-memory-utilization", "lots"), None),
        (("--gpu-memory-utilization=4",), None),
        (("--kv-cache-memory-bytes", "1000000", "--gpu-memory-utilization", "0.4"), None),
    ],
)
def test_it_wants_its_share_of_a_gpu_whatever_the_model(args: tuple[str, ...], share: float | None) -> None:
    wanted = Vllm().estimate_memory(EngineSpec(model="some/model", args=args), GPU)
    assert wanted == (None if share is None else math.ceil(share * GPU.memory_total))


@pytest.mark.parametrize(
    "adapters",
    [
        ("sql=/adapters/sql", "py=/adapters/py"),
        ('{"name": "sql", "path": "/adapters/sql"}', '{"name": "py", "path": "/p", "base_model_name": "x"}'),
        ('[{"name": "sql", "path": "/adapters/sql"}, {"name": "py", "path": "/p"}]',),
    ],
)
def test_adapters_are_names_of_their_own(adapters: tuple[str, ...]) -> None:
    args = ("--enable-lora", "--lora-modules", *adapters)
    assert mistakes(names=("qwen", "sql", "py"), args=args) == []
    made = plan("some/model", names=("qwen", "sql", "py"), args=args)
    assert "--served-model-name some/model qwen --host" in words(made)
    assert made.names is None, "it knows them all, so none of them is renamed"


def test_beside_a_name_of_the_users_own_adapters_keep_theirs() -> None:
    args = ("--served-model-name", "mine", "--lora-modules=sql=/adapters/sql")
    made = plan("some/model", names=("qwen", "sql"), args=args)
    assert made.names == ("mine", "sql")
    assert made.token_probe is not None
    assert made.token_probe.body["model"] == "mine"


@pytest.mark.parametrize("word", ["{", "[1]", '{"name": 7}', "[]", '{"name": ""}'])
def test_adapters_that_cannot_be_read_are_left_to_vllm(word: str) -> None:
    assert mistakes(args=("--lora-modules", word)) == []


def test_an_engine_that_is_started_for_sleep_can_be_told_to() -> None:
    made = plan(args=("--enable-sleep-mode",))
    assert made.env["VLLM_SERVER_DEV_MODE"] == "1"
    assert made.sleeping == SleepPaths(sleep="/sleep?level=1", wake="/wake_up", asleep="/is_sleeping")
    assert plan(env={"VLLM_SERVER_DEV_MODE": "1"}).sleeping is not None
    assert "VLLM_SERVER_DEV_MODE" not in plan().env
    assert plan().sleeping is None
    closed = plan(args=("--enable-sleep-mode",), env={"VLLM_SERVER_DEV_MODE": "0"})
    assert closed.sleeping is None
    assert closed.env["VLLM_SERVER_DEV_MODE"] == "0"


@pytest.mark.parametrize(
    ("args", "env", "can"),
    [
        (("--enable-lora",), {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}, True),
        (("--enable-lora",), {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}, True),
        (("--enable-lora",), {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0"}, False),
        (("--enable-lora",), {}, False),
        ((), {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}, False),
    ],
)
def test_adapters_can_be_changed_where_vllm_allows_it(args: tuple[str, ...], env: dict[str, str], can: bool) -> None:
    assert (plan(args=args, env=env).adapters is not None) is can


@pytest.mark.parametrize(
    ("kind", "path", "body"),
    [
        ("embedding", "/v1/embeddings", {"input": "1"}),
        ("rerank", "/v1/rerank", {"query": "1", "documents": ["1"]}),
        ("score", "/v1/rerank", {"query": "1", "documents": ["1"]}),
        ("classify", "/classify", {"input": "1"}),
    ],
)
def test_engines_that_pool_are_probed_with_what_they_can_do(kind: str, path: str, body: dict[str, Any]) -> None:
    probe = plan("m", kind=kind).token_probe
    assert probe is not None
    assert (probe.path, probe.body) == (path, {"model": "m", **body})


def test_on_the_cpu_it_has_an_environment_and_variables_of_its_own() -> None:
    spec = EngineSpec(model="some/model", runtime="vllm-cpu", env={"VLLM_CPU_KVCACHE_SPACE": "1"})
    assert VllmCpu().check(spec) == []
    made = VllmCpu().plan(spec, Placement(python=PYTHON), 9000)
    assert made.env == {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    }
    assert VllmCpu().estimate_memory(spec, GPU) == 0
    assert "triton" in VllmCpu().environment.remove
    with pytest.raises(
        PermanentLaunchError, match=r"stoker runtime install vllm-cpu, or .*\[runtime.vllm-cpu\] python"
    ):
        VllmCpu().plan(spec, Placement(), 9000)


def test_on_the_cpu_there_are_no_gpus() -> None:
    (mistake,) = VllmCpu().check(EngineSpec(model="some/model", runtime="vllm-cpu", gpus=1))
    assert mistake.startswith("gpus means nothing here")
    (mistake,) = VllmCpu().check(EngineSpec(model="m", runtime="vllm-cpu", args=("--enable-sleep-mode",)))
    assert mistake.startswith("--enable-sleep-mode is for GPUs")


def test_generating_and_pooling_engines_serve_different_paths() -> None:
    generates, pools = (Vllm().paths(EngineSpec(model="m", kind=kind)) for kind in ("llm", "embedding"))
    assert {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"} <= generates
    assert {"/v1/embeddings", "/v1/rerank", "/v1/score"} <= pools
    assert generates & pools == {"/tokenize", "/detokenize"}
