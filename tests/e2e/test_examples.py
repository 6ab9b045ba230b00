"""Every example does what it says, on the embedded engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.home import Home

from .conftest import ROOT
from .running import Program, running

EXAMPLES = ROOT / "examples"
SECONDS = 240

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def gateway(pyz: Path, embedded_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """Two replicas of the chat model, and one of embeddings: what all examples together want."""
    config = tmp_path_factory.mktemp("examples") / "stoker.toml"
    embedding = """
[[engine]]
model = "sentence-transformers/all-MiniLM-L6-v2"
names = ["all-minilm-l6-v2"]
kind = "embedding"
runtime = "embedded"
"""
    replicas = (EXAMPLES / "two_replicas" / "stoker.toml").read_text()
    config.write_text(replicas + embedding)
    with running(pyz, embedded_home, "up", "-c", str(config), "--listen", "127.0.0.1:0") as program:
        program.wait_until_ready(3)
        yield program


def run(gateway: Program, example: str) -> str:
    """What an example prints."""
    environ = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "STOKER_HOME": str(gateway.home.path),
        "STOKER_URL": gateway.url,
    }
    command = [sys.executable, str(EXAMPLES / example)]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_openai_sdk(gateway: Program) -> None:
    said = run(gateway, "openai_sdk.py")
    assert "smollm2" in said
    assert "Embeddings: 2 of 384 numbers" in said


def test_the_unified_client(gateway: Program) -> None:
    said = run(gateway, "unified_client.py")
    assert "Embeddings: [384, 384]" in said
    assert said.count("is READY") == 3
    assert "ModelNotFound: " in said


def test_answers_from_texts(gateway: Program) -> None:
    said = run(gateway, "rag.py")
    assert said.startswith("Found:\n  Books can be kept for four weeks.")
    assert said.partition("Answer: ")[2].strip()


def test_langchain(gateway: Program) -> None:
    assert "Embedding: 384 numbers" in run(gateway, "langchain_chat.py")


def test_two_replicas_of_which_one_is_killed(gateway: Program) -> None:
    said = run(gateway, "two_replicas/keep_asking.py")
    assert "killed: " in said
    assert "both are READY again" in said


def test_there_is_no_example_that_is_not_run() -> None:
    run_here = {"openai_sdk.py", "unified_client.py", "rag.py", "langchain_chat.py", "two_replicas/keep_asking.py"}
    programs = (path for path in EXAMPLES.rglob("*.py") if "plugins" not in path.relative_to(EXAMPLES).parts)
    assert {str(path.relative_to(EXAMPLES)) for path in programs} == run_here
