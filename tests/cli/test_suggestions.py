"""Who mistypes something is told what was probably meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.cli.run import run
from stoker.suggesting import MOST_MEANT, meant, suggestion

from .conftest import Call

ENGINES = ("qwen2.5-0.5b-instruct", "qwen2.5-0.5b-instruct-2", "bge-small")


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("BGE-small", ENGINES, "did you mean bge-small?"),
        ("bge-smal", ENGINES, "did you mean bge-small?"),
        ("qwen", ENGINES, "did you mean qwen2.5-0.5b-instruct or qwen2.5-0.5b-instruct-2?"),
        ("llama", ENGINES, "there are: qwen2.5-0.5b-instruct, qwen2.5-0.5b-instruct-2, bge-small"),
        ("", ("one",), "there are: one"),
        ("one", (), "there are: none"),
        ("x" * 101, ("x" * 100,), f"there are: {'x' * 100}"),
        ("z", [str(number) for number in range(22)], f"there are: {', '.join(map(str, range(20)))} and 2 more"),
    ],
)
def test_what_is_alike_is_suggested_and_otherwise_listed(name: str, known: tuple[str, ...], words: str) -> None:
    assert suggestion(name, known) == words


@given(st.text(), st.lists(st.text()))
def test_only_what_is_there_is_suggested(name: str, known: list[str]) -> None:
    assert set(meant(name, known)) <= set(known)
    assert len(meant(name, set(known))) <= max(MOST_MEANT, len(known))


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("engin list", "there is no command 'engin'; did you mean engine?"),
        ("engine lst", "there is no command 'engine lst'; did you mean list?"),
        ("logs", "there is no command 'logs'; did you mean gateway logs or engine logs?"),
        ("install vllm", "there is no command 'install'; did you mean runtime install?"),
        ("engine adapter lod", "there is no command 'engine adapter lod'; did you mean load?"),
        ("nosuch", "there is no command 'nosuch'; there are: up, demo, "),
        ("engine list --jso", "Did you mean --json?"),
    ],
)
def test_commands(typed: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(typed.split()) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("engine show tow", "there is no engine 'tow'; did you mean two?"),
        ("engine logs One", "there is no engine 'One'; did you mean one?"),
        ("engine start m --runtime comand", "there is no runtime 'comand' (for 'm'); did you mean command?"),
        ("engine start m --runtime command --policy rondom -- x", "there is no policy 'rondom'; did you mean random?"),
        ("route explain unos", "the model 'unos' does not exist; did you mean uno?"),
        ("runtime install vlm", "there is no runtime 'vlm'; did you mean vllm"),
    ],
)
def test_names(typed: str, words: str, call: Call) -> None:
    done = call(*typed.split())
    assert done.code == 1
    assert words in done.err


def test_a_key_is_found_by_its_name(call: Call) -> None:
    key_id = call("key", "create", "--name", "laptop", "--json").json["key_id"]
    try:
        assert f"the id of 'laptop' is {key_id}" in call("key", "revoke", "laptop").err
        assert f"did you mean {key_id}?" in call("key", "revoke", key_id[:-1]).err
    finally:
        assert call("key", "revoke", key_id).code == 0
