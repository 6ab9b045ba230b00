"""Engine ids: legible, safe, distinct, and the same every time."""

from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.naming import expand, free_id, is_engine_id
from stoker.model import EngineSpec

ALIKE = ["chat", "chat-1", "chat-2", "Chat", "a/chat", "chat/"]
MODELS = st.sampled_from([*ALIKE, "x" * 60, "..", "/", ""]) | st.text(max_size=60)
SPECS = st.lists(
    st.builds(EngineSpec, model=MODELS, label=st.none() | MODELS, replicas=st.integers(1, 12)),
    max_size=6,
)


def spec(model: str, **fields: Any) -> EngineSpec:
    return EngineSpec(model=model, **fields)


@pytest.mark.parametrize(
    ("model", "engine_id"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct", "qwen2.5-0.5b-instruct"),
        ("/models/tiny.gguf", "tiny.gguf"),
        ("/models/a folder/", "a-folder"),
        ("Ünï_cøde:v1", "n-_c-de-v1"),
        ("..", "engine"),
        ("x" * 60, "x" * 48),
    ],
)
def test_a_single_engine_is_called_after_the_last_part_of_its_models_name(model: str, engine_id: str) -> None:
    assert list(expand([spec(model)])) == [engine_id]


def test_a_label_goes_before_the_model() -> None:
    assert list(expand([spec("Qwen/Qwen2.5", label="My chat")])) == ["my-chat"]


def test_replicas_are_numbered_and_each_is_one_engine() -> None:
    engines = expand([spec("m", replicas=3)])
    assert list(engines) == ["m", "m-2", "m-3"]
    assert {engine.replicas for engine in engines.values()} == {1}


def test_more_replicas_rename_none() -> None:
    assert list(expand([spec("m", replicas=3)]))[:1] == list(expand([spec("m")]))


def test_specs_that_want_the_same_id_are_told_apart_in_order() -> None:
    assert list(expand([spec("a/m"), spec("b/m"), spec("c/m", replicas=2)])) == ["m", "m-2", "m-3", "m-4"]


def test_a_number_does_not_make_an_id_too_long() -> None:
    assert list(expand([spec("x" * 60, replicas=10)]))[-1] == "x" * 45 + "-10"


def test_ids_that_are_taken_are_left_alone() -> None:
    assert list(expand([spec("m")], taken={"m"})) == ["m-2"]
    assert free_id(spec("m", replicas=4), taken=()) == "m"
    assert free_id(spec("m"), taken=["m", "m-2", "m-4"]) == "m-3"


@given(SPECS)
def test_every_engine_asked_for_gets_a_valid_id_of_its_own(specs: list[EngineSpec]) -> None:
    engines = expand(specs)
    assert len(engines) == sum(one.replicas for one in specs)
    assert all(map(is_engine_id, engines))
    assert list(engines.values()) == [attrs.evolve(one, replicas=1) for one in specs for _ in range(one.replicas)]


@given(SPECS, SPECS)
def test_appending_specs_renames_nothing(specs: list[EngineSpec], more: list[EngineSpec]) -> None:
    before, after = expand(specs), expand([*specs, *more])
    assert list(after)[: len(before)] == list(before)


@given(SPECS, MODELS)
def test_a_free_id_is_free_and_valid(specs: list[EngineSpec], model: str) -> None:
    taken = expand(specs)
    engine_id = free_id(spec(model), taken)
    assert engine_id not in taken
    assert is_engine_id(engine_id)


@pytest.mark.parametrize("text", ["", "A", "a b", "../a", "a/b", "-a", ".a", "a\n", "x" * 49, "é"])
def test_what_is_no_engine_id(text: str) -> None:
    assert not is_engine_id(text)
