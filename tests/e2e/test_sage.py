"""The walk-through of the SAGE gateway, word for word, on the embedded engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from stoker.home import Home

from .conftest import ROOT

PLUGIN = ROOT / "plugins" / "stoker-sage"
PORT = 8000  # the walk-through's own
SECONDS = 300


def walk_through() -> str:
    """The commands, as the plugin's page has them."""
    page = (PLUGIN / "README.md").read_text()
    found = re.search(r"## The walk-through\n.*?```sh\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def programs(folder: Path, pyz: Path) -> str:
    """A PATH on which ``sage`` is the plugin's script, and ``python`` this one; both out of the built file."""
    folder.mkdir()
    (folder / "python").symlink_to(sys.executable)
    script = folder / "sage"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "from stoker_sage.script import main; main()" "$@"\n')
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.fixture
def environ(pyz: Path, embedded_home: Home, tmp_path: Path) -> Mapping[str, str]:
    """What whoever walks through has in the environment."""
    return {
        **os.environ,
        "PATH": programs(tmp_path / "bin", pyz),
        "PYTHONPATH": str(pyz),
        "STOKER_HOME": str(embedded_home.path),
        "SAGE_RUNTIME": "embedded",
        "NO_COLOR": "1",
    }


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl; install it")
def test_every_word_of_it_does_what_it_says(environ: Mapping[str, str]) -> None:
    if not is_free(PORT):
        pytest.skip(f"something listens on port {PORT}, which the walk-through needs")
    bash = ["bash", "-euo", "pipefail"]
    try:
        done = subprocess.run(
            [*bash, "-c", walk_through()], cwd=PLUGIN, env=environ, capture_output=True, text=True, timeout=SECONDS
        )
        said = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, said
        assert re.search(r"^smollm2\S* .* READY ", done.stdout, re.MULTILINE), said
        decode, answers = json.JSONDecoder().raw_decode, done.stdout[done.stdout.index('{"') :]  # no line ends between
        chat, end = decode(answers)
        vectors, _ = decode(answers, end)
        assert chat["choices"][0]["message"]["content"], said
        assert len(vectors["data"]) == 2, said
        for step in (
            "Chat:",
            "Conversation:",
            "Stream:",
            "Embeddings: 3 of 384 numbers",
            "Found: An engine that fails",
        ):
            assert step in done.stdout, said
        assert "GatewayUnreachable, as it should be" in done.stdout, said
        assert "smollm2, which comes with the embedded runtime, answers as Qwen/Qwen2.5-0.5B-Instruct" in done.stderr
        then = (
            "sage gateway status; sage llm gpu; sage gateway logs --lines 5; sage gateway restart; sage llm engine list"
        )
        again = subprocess.run(
            [*bash, "-c", then], cwd=PLUGIN, env=environ, capture_output=True, text=True, timeout=SECONDS
        )
        assert again.returncode == 0, again.stderr
    finally:
        stopped = subprocess.run(["sage", "gateway", "stop"], env=environ, capture_output=True, text=True, check=False)
    assert stopped.returncode == 0, stopped.stderr
