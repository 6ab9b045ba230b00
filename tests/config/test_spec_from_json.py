"""A spec sent over HTTP: today's names, the older ones, and every mistake by the name that was sent."""

from __future__ import annotations

from typing import Any

import attrs
import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.config import spec_from_json, spec_schema
from stoker.config.rules import OLDER
from stoker.errors import ConfigError
from stoker.model import EngineSpec


def mistakes_of(value: object) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        spec_from_json(value, "request")
    return {mistake.path: mistake.message for mistake in caught.value.mistakes}


def test_the_names_of_the_file_are_the_names_over_http() -> None:
    spec = spec_from_json({"model": "m", "names": ["a"], "gpus": 2, "drain_timeout_seconds": 1}, "request")
    assert spec == EngineSpec(model="m", names=("a",), gpus=2, drain_timeout_seconds=1.0)


def test_null_means_not_given() -> None:
    assert spec_from_json({"model": "m", "gpus": None, "label": None}, "request") == EngineSpec(model="m")


def test_the_older_spellings_are_understood() -> None:
    older = {
        "model_id": "m",
        "engine_kind": "embedding",
        "extra_args": ["--x", "1"],
        "engine_label": "one",
        "max_concurrent_requests": 8,
        "required_memory_gb": 0.5,
        "tensor_parallel_size": 2,
        "pipeline_parallel_size": 3,
        "use_gpu": True,
    }
    assert spec_from_json(older, "request") == EngineSpec(
        model="m",
        kind="embedding",
        args=("--x", "1"),
        label="one",
        max_concurrency=8,
        required_memory_bytes=512 * 1024**2,
        tensor_parallel_size=2,
        pipeline_parallel_size=3,
        gpus=6,
    )


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        ({"use_gpu": True}, 1),
        ({"use_gpu": True, "gpus": 4}, 4),
        ({"use_gpu": True, "tensor_parallel_size": 2}, 2),
        ({"use_gpu": False}, 0),
        ({"use_gpu": None}, 0),
    ],
)
def test_use_gpu_becomes_a_count(given: dict[str, Any], gpus: int) -> None:
    assert spec_from_json({"model": "m", **given}, "request").gpus == gpus


def test_arguments_in_one_text_are_split_as_a_shell_would_and_never_run() -> None:
    spec = spec_from_json({"model": "m", "extra_args": "--a 'b c' $(reboot) > x; y"}, "request")
    assert spec.args == ("--a", "b c", "$(reboot)", ">", "x;", "y")
    assert "closing quotation" in mistakes_of({"model": "m", "extra_args": "'open"})["extra_args"]
    assert "a list" in mistakes_of({"model": "m", "args": "--a"})["args"]


def test_mistakes_are_named_as_they_were_sent() -> None:
    found = mistakes_of({"model_id": "", "max_concurrent_requests": "8", "extra_args": 3, "use_gpu": "yes", "x": 1})
    assert set(found) == {"model_id", "max_concurrent_requests", "extra_args", "use_gpu", "x"}
    assert mistakes_of({"model": "m", "use_gpu": False, "gpus": 1}).keys() == {"use_gpu"}


def test_both_spellings_at_once_are_a_mistake() -> None:
    assert mistakes_of({"model": "m", "model_id": "m"}) == {
        "model_id": "is another spelling of model, which is given too; keep model"
    }


def test_a_missing_model_and_a_wrong_shape_are_said_plainly() -> None:
    assert mistakes_of({})["model"].startswith("is missing. What the engine loads")
    assert mistakes_of([])[""] == "must be a JSON object, not a list"
    assert mistakes_of(None)[""] == "must be a JSON object, not nothing"


def test_half_a_surrogate_pair_is_refused() -> None:
    assert "surrogate" in mistakes_of({"model": "\ud800"})["model"]


def test_a_relative_folder_over_http_is_refused() -> None:
    assert "absolute" in mistakes_of({"model": "m", "cwd": "here"})["cwd"]
    assert spec_from_json({"model": "m", "cwd": "/srv"}, "request").cwd == "/srv"


def test_a_policy_has_to_be_one_of_those_there_are() -> None:
    assert spec_from_json({"model": "m", "policy": "new"}, "request").policy == "new"
    assert spec_from_json({"model": "m", "policy": "a"}, "request", policies=["a"]).policy == "a"
    with pytest.raises(ConfigError, match=r"policy: there is no policy 'new'; there are: a, b"):
        spec_from_json({"model": "m", "policy": "new"}, "request", policies=["a", "b"])


# The schema of what is sent

SCHEMA = jsonschema_rs.Draft202012Validator(spec_schema())
KEYS = [*(field.name for field in attrs.fields(EngineSpec)), *OLDER, "use_gpu", "required_memory_gb"]
TEXTS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 5),
    st.floats(0, 5),
    TEXTS,
    st.lists(TEXTS, max_size=2),
    st.dictionaries(TEXTS, TEXTS, max_size=2),
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3), st.sampled_from(["model", "model_id"]))
def test_whatever_is_understood_is_as_the_schema_says(others: dict[str, Any], model: str) -> None:
    sent = {**others, model: "m"}
    try:
        spec_from_json(sent, "request")
    except ConfigError:
        return
    SCHEMA.validate(sent)


@pytest.mark.parametrize("key", KEYS)
def test_the_schema_knows_every_name(key: str) -> None:
    assert SCHEMA.is_valid({"model": "m", "model_id": "m", key: None})


def test_what_has_no_model_is_not_as_the_schema_says() -> None:
    assert not SCHEMA.is_valid({"runtime": "vllm"})
    assert not SCHEMA.is_valid({"model": "m", "modle": "m"})
