"""What Stoker says to SGLang, what it leaves to the user's flags, and what it reads in SGLang's metrics."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from stoker.builtin.runtimes import Sglang
from stoker.errors import PermanentLaunchError
from stoker.model import EngineSpec, Gpu, LaunchPlan, Placement

PYTHON = Path("/opt/sglang/bin/python")


def plan(model: str = "some/model", **fields: Any) -> LaunchPlan:
    spec = EngineSpec(model=model, runtime="sglang", **fields)
    return Sglang().plan(spec, Placement(python=PYTHON), 9000)


def words(plan: LaunchPlan) -> str:
    return " ".join(plan.argv)


def mistakes(**fields: Any) -> list[str]:
    return list(Sglang().check(EngineSpec(**{"model": "some/model", "runtime": "sglang", **fields})))


def test_the_command_of_a_plain_spec() -> None:
    assert plan(names=("small",), args=("--context-length", "8192")).argv == (
        "/opt/sglang/bin/python",
        "-m",
        "sglang.launch_server",
        "--model-path",
        "some/model",
        "--served-model-name",
        "some/model",
        "--host",
        "127.0.0.1",
        "--port",
        "9000",
        "--enable-metrics",
        "--context-length",
        "8192",
    )


def test_without_an_environment_it_says_how_to_get_one() -> None:
    with pytest.raises(PermanentLaunchError, match=r"stoker runtime install sglang, or .*\[runtime.sglang\] python"):
        Sglang().plan(EngineSpec(model="some/model"), Placement(), 9000)


def test_it_knows_its_model_by_one_name_only_and_adapters_behind_a_colon() -> None:
    made = plan(names=("small", "some/model:sql"))
    assert made.names == ("some/model", "some/model:sql")
    assert made.token_probe is not None
    assert made.token_probe.body["model"] == "some/model"
    assert plan(args=("--served-model-name=mine",), names=("mine:sql",)).names == ("mine", "mine:sql")


def test_a_colon_in_the_models_name_is_not_shown_to_it() -> None:
    made = plan("s3:bucket")
    assert made.names == ("s3-bucket",)
    assert "--model-path s3:bucket --served-model-name s3-bucket" in words(made)


@pytest.mark.parametrize("kind", ["embedding", "rerank"])
def test_models_for_embeddings_are_started_as_such(kind: str) -> None:
    assert "--is-embedding" in plan(kind=kind).argv
    assert "--is-embedding" not in plan().argv


@pytest.mark.parametrize(
    ("fields", "flags"),
    [
        ({"gpus": 4}, "--tp-size 4"),
        ({"gpus": 4, "pipeline_parallel_size": 2}, "--tp-size 2 --pp-size 2"),
        ({"gpus": 4, "args": ("--dp", "2")}, "--tp-size 2"),
        ({"gpus": 4, "args": ("--dp-size=4", "--enable-dp-attention")}, "--tp-size 4"),
    ],
)
def test_gpus_are_used_in_parallel(fields: dict[str, Any], flags: str) -> None:
    assert mistakes(**fields) == []
    assert flags in words(plan(**fields))


@pytest.mark.parametrize(
    ("own", "flag"),
    [
        (("--model", "x"), "--model-path"),
        (("--tp", "2"), "--tp-size"),
        (("--tensor-parallel-size=2",), "--tp-size"),
        (("--pp-size", "2"), "--pp-size"),
        (("--served-model-name", "mine"), "--served-model-name"),
        (("--enable-metrics",), "--enable-metrics"),
    ],
)
def test_a_flag_the_user_gives_is_not_said_twice(own: tuple[str, ...], flag: str) -> None:
    argv = plan(args=own, tensor_parallel_size=4, pipeline_parallel_size=4).argv
    assert flag not in argv[: -len(own)]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"gpus": 2, "args": ("--tp", "4")}, "tensor 4 times pipeline 1 times data 1 needs 4 GPUs, but gpus = 2"),
        ({"kind": "poetry"}, "runtime 'sglang' knows no kind 'poetry'"),
        ({"args": ("--port=1",)}, "args give --port"),
        ({"pipeline_parallel_size": 0}, "pipeline_parallel_size must be at least 1"),
        ({"url": "http://x"}, 'take runtime = "remote"'),
    ],
)
def test_each_mistake_in_a_spec_is_one_sentence(fields: dict[str, Any], said: str) -> None:
    (mistake,) = mistakes(**fields)
    assert said in mistake


GPU = Gpu(index=0, uuid="GPU-a", name="any", memory_total=80 * 2**30, memory_used=0)


@pytest.mark.parametrize(
    ("args", "share"),
    [
        ((), None),
        (("--mem-fraction-static", "0.4"), 0.5),
        (("--mem-fraction-static=0.95",), 1.0),
        (("--mem-fraction-static", "much"), None),
    ],
)
def test_it_wants_what_its_argument_says_and_room_to_work(args: tuple[str, ...], share: float | None) -> None:
    wanted = Sglang().estimate_memory(EngineSpec(model="m", args=args), GPU)
    assert wanted == (None if share is None else math.ceil(share * GPU.memory_total))


METRICS = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0",dp_rank="0"} 2.0
sglang:num_running_reqs{engine_type="unified",model_name="m",tp_rank="0",dp_rank="1"} 1.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",tp_rank="0"} 4.0
sglang:token_usage{engine_type="unified",model_name="m",tp_rank="0"} 0.28
sglang:full_token_usage{engine_type="unified",model_name="m",tp_rank="0"} 0.9
sglang:prompt_tokens_total{model_name="m"} 100.0
sglang:generation_tokens_total{model_name="m"} 20.0
"""


def test_its_metrics_are_summed_over_ranks() -> None:
    load = Sglang().scrape(METRICS)
    assert (load.running, load.waiting, load.kv_cache_used, load.progress) == (3, 4, 0.28, 120)
