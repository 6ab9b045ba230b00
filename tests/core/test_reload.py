"""A reload touches only what changed."""

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.reload import Difference, needs_restart, plan_reload
from stoker.model import EngineSpec

SPECS = st.builds(
    EngineSpec,
    model=st.sampled_from(["m", "n"]),
    names=st.sampled_from([(), ("x",)]),
    runtime=st.sampled_from(["vllm", "remote"]),
    gpus=st.integers(0, 1),
    max_concurrency=st.sampled_from([None, 4]),
    stall_seconds=st.sampled_from([60.0, 120.0]),
)
ENGINES = st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e"]), SPECS)

# One other value for each field, so that a field added to EngineSpec has to be thought about here.
OTHER: dict[str, Any] = {
    "model": "other",
    "runtime": "llama-cpp",
    "names": ("other",),
    "kind": "embedding",
    "label": "other",
    "replicas": 2,
    "gpus": 1,
    "args": ("--other",),
    "env": {"OTHER": "1"},
    "cwd": "/other",
    "command": ("other",),
    "port": 1,
    "url": "http://other",
    "api_key_env": "OTHER",
    "max_concurrency": 1,
    "policy": "other",
    "required_memory_bytes": 1,
    "tensor_parallel_size": 2,
    "pipeline_parallel_size": 2,
    "metadata": {"other": 1},
    "health_path": "/other",
    "startup_timeout_seconds": 1.0,
    "drain_timeout_seconds": 1.0,
    "stop_grace_seconds": 1.0,
    "stall_seconds": 1.0,
    "probe_interval_seconds": 1.0,
    "probe_timeout_seconds": 1.0,
    "probe_failures": 1,
    "restart_limit": 1,
    "restart_base_seconds": 2.0,
    "restart_cap_seconds": 1.0,
    "healthy_seconds": 1.0,
}
WATCHING = {name for name in OTHER if name.split("_")[0] in {"startup", "drain", "stop", "stall", "probe", "restart"}}
HARMLESS = WATCHING | {"healthy_seconds", "label", "max_concurrency", "metadata", "policy"}


def test_an_engine_is_started_stopped_restarted_updated_or_left_alone() -> None:
    old = EngineSpec(model="m")
    plan = plan_reload(
        {"same": old, "args": old, "limit": old, "gone": old},
        {
            "new": old,
            "limit": attrs.evolve(old, max_concurrency=3),
            "args": attrs.evolve(old, args=("-x",)),
            "same": EngineSpec(model="m"),
        },
    )
    assert plan.difference == Difference(
        added=("new",), removed=("gone",), changed=("args",), updated=("limit",), unchanged=("same",)
    )
    assert plan.restart["args"].args == ("-x",)
    assert plan.update["limit"].max_concurrency == 3


@pytest.mark.parametrize("name", OTHER)
def test_which_changes_of_a_managed_engine_need_a_restart(name: str) -> None:
    before = EngineSpec(model="m")
    assert needs_restart(before, attrs.evolve(before, **{name: OTHER[name]})) is (name not in HARMLESS)


@pytest.mark.parametrize("name", OTHER)
def test_names_and_kind_of_an_engine_that_is_a_url_change_without_a_restart(name: str) -> None:
    before = EngineSpec(model="m", runtime="remote", url="http://127.0.0.1:1")
    harmless = HARMLESS | {"names", "kind"}
    assert needs_restart(before, attrs.evolve(before, **{name: OTHER[name]})) is (name not in harmless)


def test_every_field_of_a_spec_was_thought_about() -> None:
    assert set(OTHER) == {field.name for field in attrs.fields(EngineSpec)}


@given(ENGINES, ENGINES)
def test_carrying_out_the_plan_gives_what_is_wanted(
    current: dict[str, EngineSpec], wanted: dict[str, EngineSpec]
) -> None:
    plan = plan_reload(current, wanted)
    result = {engine_id: spec for engine_id, spec in current.items() if engine_id not in plan.stop}
    result |= {**plan.restart, **plan.update, **plan.start}
    assert result == wanted


@given(ENGINES, ENGINES)
def test_every_engine_is_in_exactly_one_part_of_the_difference(
    current: dict[str, EngineSpec], wanted: dict[str, EngineSpec]
) -> None:
    parts = attrs.astuple(plan_reload(current, wanted).difference)
    named = [engine_id for part in parts for engine_id in part]
    assert sorted(named) == sorted({*current, *wanted})


@given(ENGINES)
def test_the_same_configuration_again_touches_nothing(engines: dict[str, EngineSpec]) -> None:
    assert plan_reload(engines, dict(engines)).difference == Difference(unchanged=tuple(engines))
