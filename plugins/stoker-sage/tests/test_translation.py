"""What was typed to SAGE is what is typed to Stoker."""

from __future__ import annotations

import socket
import time

import pytest
from cyclopts import App

from stoker.errors import StokerError
from stoker_sage import stoker_register_commands
from stoker_sage.translation import address, engine_start


def told_to_stoker(*words: str) -> list[str]:
    """What Stoker is told when SAGE is told ``words``."""
    told: list[list[str]] = []
    stoker = App(name="stoker", result_action="return_value", exit_on_error=False, print_error=False)
    [sage] = stoker_register_commands(told.append)  # type: ignore[arg-type]
    stoker.command(sage)
    stoker(["sage", *words])
    return told[0]


@pytest.mark.parametrize(
    ("sage", "stoker"),
    [
        ("gateway start", "gateway start"),
        ("gateway start --port 9000", "gateway start --listen 127.0.0.1:9000"),
        ("gateway start -p 9000 --host 0.0.0.0", "gateway start --listen 0.0.0.0:9000"),
        ("gateway start --host ::1", "gateway start --listen [::1]:8000"),
        ("gateway stop", "gateway stop"),
        ("gateway restart", "gateway restart"),
        ("gateway status", "gateway status"),
        ("gateway logs --follow", "gateway logs --tail 200 --follow"),
        ("gateway logs -n 5", "gateway logs --tail 5"),
        ("llm gpu", "gpu"),
        ("llm engine list", "engine list"),
        ("llm engine stop qwen", "engine stop qwen --forget"),
        ("llm engine stop qwen --drain", "engine stop qwen --forget"),
        ("llm engine stop qwen --no-drain", "engine stop qwen --no-drain --forget"),
        ("llm engine start Qwen/Q", "engine start Qwen/Q --kind llm --gpus 1"),
        ("llm engine start Qwen/Q --no-gpu", "engine start Qwen/Q --kind llm"),
        ("llm engine start b --engine-kind embedding", "engine start b --kind embedding"),
        ("llm engine start b --engine-kind embedding --use-gpu", "engine start b --kind embedding --gpus 1"),
        (
            "llm engine start q -tp 2 -pp 2 -- --seed 1",
            "engine start q --kind llm --gpus 4 -- --tensor-parallel-size 2 --pipeline-parallel-size 2 --seed 1",
        ),
        (
            "llm engine start q --label a --engine-port 9001 --max-concurrent 8 --no-gpu",
            "engine start q --kind llm --label a --port 9001 --max-concurrency 8",
        ),
        (
            "llm engine start q --runtime embedded",
            "engine start smollm2 --runtime embedded --name q --kind llm",
        ),
    ],
)
def test_a_command_becomes_one_of_stoker(sage: str, stoker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SAGE_RUNTIME", raising=False)
    assert told_to_stoker(*sage.split()) == stoker.split()


def test_an_environment_can_say_what_runs_all_engines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SAGE_RUNTIME", "embedded")
    told = told_to_stoker("llm", "engine", "start", "BAAI/bge-m3", "--engine-kind", "embedding")
    assert told[:6] == ["engine", "start", "all-minilm-l6-v2", "--runtime", "embedded", "--name"]
    assert capsys.readouterr().err == (
        "all-minilm-l6-v2, which comes with the embedded runtime, answers as BAAI/bge-m3\n"
    )


def test_nothing_stands_in_for_what_there_is_no_small_model_for() -> None:
    with pytest.raises(StokerError, match="no model that could stand in for 'r', an engine of kind 'rerank'"):
        engine_start("r", kind="rerank", runtime="embedded")


def test_an_address_is_whole_where_half_of_it_is_said() -> None:
    assert address(None, None) == []
    assert address(None, 80) == ["--listen", "127.0.0.1:80"]


def test_a_shell_that_completes_the_id_of_an_engine_hears_nothing_where_no_gateway_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that took the connection and said nothing held up the shell for half a minute."""
    stoker = App(name="stoker", result_action="return_value")
    [sage] = stoker_register_commands(stoker)
    stoker.command(sage)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (9, silent.getsockname()[1]):
            monkeypatch.setenv("STOKER_URL", f"http://127.0.0.1:{port}")
            began = time.monotonic()
            stoker(["__complete", "sage", "llm", "engine", "stop", ""])
            assert capsys.readouterr() == ("\n\x1fbegin\n", "")
            assert time.monotonic() - began < 20, "it waits a second"
