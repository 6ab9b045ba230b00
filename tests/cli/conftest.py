"""Commands run as people run them: real processes, a home and a folder of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from stoker.cli.finding import read_gateway
from stoker.cli.run import run
from stoker.config.writing import inline
from stoker.home import Home
from stoker.testing.engines import COMMAND, fake_engine_env

SECONDS = 60
NOBODY = "http://127.0.0.1:1"  # root alone could listen there, and nothing does
OURS = ("STOKER_HOME", "STOKER_URL", "STOKER_API_KEY", "STOKER_INVOKED_AS", "FORCE_COLOR", "XDG_STATE_HOME")


@attrs.frozen
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


Call = Callable[..., Result]
"""Runs a command with the arguments it is given."""


@attrs.frozen
class Shell:
    """A folder to run commands in, and the home they use."""

    folder: Path

    @property
    def home(self) -> Home:
        return Home(self.folder / "home")

    def environ(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name not in OURS}
        return {**inherited, **fake_engine_env(), "STOKER_HOME": str(self.home.path), "COLUMNS": "80", **(extra or {})}

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "stoker", *arguments],
            cwd=self.folder,
            env=self.environ(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environ: str) -> Result:
        with self.start(*arguments, **environ) as process:
            try:
                out, err = process.communicate(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Result(process.returncode, out, err)

    def write(self, text: str, name: str = "stoker.toml") -> Path:
        path = self.folder / name
        path.write_text(text)
        return path


def interrupt(process: subprocess.Popen[str]) -> Result:
    """Ctrl-C, and what it comes to."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    return Result(process.returncode, out, err)


def fake_engine_toml(model: str, *flags: str, **settings: object) -> str:
    """An ``[[engine]]`` table that starts a fake engine."""
    command = [*COMMAND, "--host", "{host}", "--port", "{port}", "--model", "{model}", *flags]
    fields = {"model": model, "runtime": "command", "command": command, **settings}
    return "[[engine]]\n" + "".join(f"{name} = {inline(value)}\n" for name, value in fields.items())


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in a folder of its own. A gateway that a failed test left running there is stopped."""
    shell = Shell(tmp_path)
    yield shell
    if read_gateway(shell.home) is not None:
        shell.run("gateway", "stop", "--now")


@pytest.fixture
def here(shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process, which is quicker, in the folder and home of ``shell``.

    Whatever else may listen at the default address of this machine, nobody is there.
    """
    monkeypatch.setattr("stoker.cli.finding.DEFAULT_URL", NOBODY)
    return _caller(shell, monkeypatch, capsys)


@pytest.fixture
def call(running: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command in this process, in the folder and home of ``running``."""
    return _caller(running, monkeypatch, capsys)


def _caller(shell: Shell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    for name in OURS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STOKER_HOME", str(shell.home.path))
    monkeypatch.chdir(shell.folder)

    def run_here(*arguments: str) -> Result:
        code = run(arguments)
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    return run_here


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A gateway in the background with two fake engines: ``one`` (also called ``uno``) and ``two``."""
    shell = Shell(tmp_path_factory.mktemp("running"))
    shell.write(
        '[gateway]\nlisten = "127.0.0.1:0"\nallow_commands_over_http = true\n'
        + fake_engine_toml("one", "--name", "uno", names=["uno"], max_concurrency=4)
        + fake_engine_toml("two", "--kind", "embedding", kind="embedding")
    )
    started = shell.run("gateway", "start")
    assert started.code == 0, started.err
    try:
        yield shell
    finally:
        stopped = shell.run("gateway", "stop", "--now")
        assert stopped.code == 0, stopped.err
