"""However Stoker ends, the process table is as it was before."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from stoker.home import Home
from stoker.supervise import proctable
from tests import loopback

from .running import Program, running, until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def pyz(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy that nobody else runs, so that what it leaves is told from what other tests run at the same time."""
    return Path(shutil.copy(pyz, tmp_path_factory.mktemp("file")))


def config(pyz: Path, *faults: str, drain: float = 30) -> str:
    """Two fake engines, from within the built file itself."""
    command = [sys.executable, "-m", "stoker.testing.fake_engine", "--host", "{host}", "--port", "{port}"]
    return f"""
[gateway]
listen = "127.0.0.1:0"

[[engine]]
model = "fake"
runtime = "command"
replicas = 2
command = {json.dumps([*command, "--model", "{model}", *faults])}
env = {{ PYTHONPATH = "{pyz}" }}
stop_grace_seconds = 1
drain_timeout_seconds = {drain}
"""


def everything() -> set[tuple[int, int]]:
    """Every living process there is, by pid and start."""
    return {(entry.pid, entry.started) for entry in proctable.process_table() if not entry.gone}


def ctrl_c(program: Program) -> None:
    program.signal(signal.SIGINT)


def terminate(program: Program) -> None:
    program.signal(signal.SIGTERM)


def hang_up(program: Program) -> None:
    """As a terminal does that is closed."""
    program.signal(signal.SIGHUP)


def ctrl_c_twice(program: Program) -> None:
    program.signal(signal.SIGINT)
    until(lambda: "once more" in program.output.read_text(), "the first Ctrl-C is seen")
    program.signal(signal.SIGINT)


ENGINES = {
    "plain": (),
    "children": ("--child", "--setsid-grandchild", "--double-fork"),
    "deaf to SIGTERM": ("--ignore-sigterm", "--child"),
}


@pytest.mark.parametrize("stop", [ctrl_c, terminate, hang_up, ctrl_c_twice])
@pytest.mark.parametrize("faults", ENGINES.values(), ids=ENGINES)
def test_a_stop_leaves_nothing(
    pyz: Path, tmp_path: Path, faults: tuple[str, ...], stop: Callable[[Program], None]
) -> None:
    (tmp_path / "stoker.toml").write_text(config(pyz, *faults))
    before = everything()
    with running(pyz, Home(tmp_path / "home"), "up", "-c", str(tmp_path / "stoker.toml")) as program:
        program.wait_until_ready(2)
        assert program.processes()
        assert len(_ours(everything() - before, pyz)) > 2
        stop(program)
        assert program.wait() == 0
        assert program.processes() == []
        assert not program.home.gateway.exists()
    assert _ours(everything() - before, pyz) == []


def _ours(new: set[tuple[int, int]], pyz: Path) -> list[str]:
    """What of the new processes runs this very file or its engines; this machine may start others meanwhile."""
    lines = []
    for pid, _ in new:
        with contextlib.suppress(OSError):
            command, environ = (Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
            if os.fsencode(pyz) in command + environ:
                lines.append(command.replace(b"\0", b" ").decode())
    return lines


def test_a_stop_lets_a_stream_end_and_a_second_one_cuts_it_with_an_error(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "stoker.toml").write_text(config(pyz, "--token-seconds", "0.05"))
    body = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    with running(pyz, Home(tmp_path / "home"), "up", "-c", str(tmp_path / "stoker.toml")) as program:
        program.wait_until_ready(2)
        url = f"{program.url}/v1/chat/completions"
        with (
            loopback.stream("POST", url, json=body | {"max_tokens": 20}, timeout=60) as short,
            loopback.stream("POST", url, json=body | {"max_tokens": 100_000}, timeout=60) as endless,
        ):
            lines = endless.iter_lines()
            seen = [next(lines)]
            program.signal(signal.SIGINT)
            assert list(short.iter_lines())[-2:] == ["data: [DONE]", ""]
            assert program.process.poll() is None
            program.signal(signal.SIGINT)
            with pytest.raises(httpx2.RemoteProtocolError):
                _collect(lines, seen)
        events = [line for line in seen if line]
        assert json.loads(events[-1].removeprefix("data: "))["error"]["message"]
        assert "data: [DONE]" not in events
        assert program.wait() == 0
        assert program.processes() == []


def _collect(lines: Iterator[str], seen: list[str]) -> None:
    for line in lines:
        seen.append(line)  # noqa: PERF402 - what was seen before it raises counts


def test_a_lack_of_descriptors_costs_no_engine_and_no_stop(pyz: Path, tmp_path: Path) -> None:
    """Probes without a socket once counted against the engines, and a stop that could not read /proc ended it all."""
    (tmp_path / "stoker.toml").write_text(config(pyz, "--child"))
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(running(pyz, Home(tmp_path / "home"), "up", "-c", str(tmp_path / "stoker.toml")))
        engines = program.wait_until_ready(2)
        address = ("127.0.0.1", int(program.url.rpartition(":")[2]))
        limit = len(list(Path(f"/proc/{program.process.pid}/fd").iterdir())) + 8
        resource.prlimit(program.process.pid, resource.RLIMIT_NOFILE, (limit, limit))
        idle = [stack.enter_context(socket.create_connection(address)) for _ in range(40)]
        until(lambda: "no more connections for now" in program.output.read_text(), "it has no descriptor left")
        assert program.signal_engine(engines[0]["pid"])
        until(lambda: "fake ERROR" in program.output.read_text(), "the exit is seen all the same")
        for connection in idle:
            connection.close()
        until(lambda: _states(program) == {"READY"}, "the killed engine is replaced")
        assert [engine["restarts"] for engine in program.engines()] == [1, 0]
        terminate(program)
        assert program.wait() == 0
        assert program.processes() == []


def _states(program: Program) -> set[str]:
    return {engine["state"] for engine in program.engines()}


def test_engines_of_a_killed_stoker_live_on_and_the_next_start_clears_them(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "stoker.toml").write_text(config(pyz, "--double-fork"))
    home = Home(tmp_path / "home")
    with running(pyz, home, "up", "-c", str(tmp_path / "stoker.toml")) as program:
        program.wait_until_ready(2)
        program.signal(signal.SIGKILL)
        program.wait()
        orphans = {entry.pid for entry in program.processes()}
        assert len(orphans) >= 2
    with running(pyz, home, "up", "-c", str(tmp_path / "stoker.toml")) as program:
        program.wait_until_ready(2)
        assert not orphans & {entry.pid for entry in program.processes()}


def test_the_gateway_commands_start_and_stop_it_in_the_background(pyz: Path, tmp_path: Path) -> None:
    (tmp_path / "stoker.toml").write_text(config(pyz))
    home = Home(tmp_path / "home")
    before = everything()

    def stoker(*words: str) -> subprocess.CompletedProcess[str]:
        environ = {**os.environ, "STOKER_HOME": str(home.path)}
        return subprocess.run(
            [sys.executable, str(pyz), *words], env=environ, capture_output=True, text=True, timeout=60, check=False
        )

    assert stoker("gateway", "status").returncode == 3
    started = stoker("gateway", "start", "-c", str(tmp_path / "stoker.toml"))
    assert started.returncode == 0, started.stderr
    try:
        url = json.loads(home.gateway.read_text())["url"]
        assert url in started.stdout
        listed = stoker("engine", "list", "--json")
        assert len(json.loads(listed.stdout)) == 2, listed.stdout
        again = stoker("up", "-c", str(tmp_path / "stoker.toml"))
        assert again.returncode == 1
        assert "another Stoker (pid" in again.stderr
    finally:
        stopped = stoker("gateway", "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert _ours(everything() - before, pyz) == []
