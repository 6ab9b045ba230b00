"""Engines that run on without a gateway: whoever asks is told of them, and nobody ends them unasked."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping

import pytest

from stoker.cli.finding import read_gateway
from stoker.cli.orphans import Orphan, find_orphans, remark
from stoker.supervise.leftovers import find_leftovers
from tests.e2e.running import until

from .conftest import NOBODY, Call, Shell, fake_engine_toml
from .test_watching import terminal


@pytest.fixture
def fleet(shell: Shell) -> Iterator[Shell]:
    """A gateway with the engines ``one`` and ``two``; whatever becomes of it, they are gone in the end."""
    shell.write('[gateway]\nlisten = "127.0.0.1:0"\n' + fake_engine_toml("one") + fake_engine_toml("two"))
    start(shell)
    yield shell
    if read_gateway(shell.home) is None:
        shell.run("engine", "prune", "--yes")


def start(shell: Shell) -> None:
    started = shell.run("gateway", "start")
    assert started.code == 0, started.err


def pids(shell: Shell) -> Mapping[str, int]:
    """Those of the engines, once all are READY."""

    def ready() -> dict[str, int] | None:
        listed = shell.run("engine", "list", "--json").json
        return {info["engine_id"]: info["pid"] for info in listed if info["state"] == "READY"} if listed else None

    until(lambda: len(ready() or ()) == 2, "both are READY")
    return ready() or {}


def kill_the_gateway(shell: Shell) -> None:
    gateway = read_gateway(shell.home)
    assert gateway is not None
    os.kill(gateway.pid, signal.SIGKILL)
    until(lambda: not gateway.alive, "it is gone")


def test_whoever_finds_no_gateway_is_told_what_runs_on_and_what_to_do(fleet: Shell, here: Call) -> None:
    before = pids(fleet)
    told = "2 engines run on without a gateway: one, two; "
    stopped = fleet.run("gateway", "stop", "--keep-engines")
    assert stopped.code == 0
    assert told in stopped.err
    commands = [("status",), ("engine", "list"), ("gateway", "status"), ("gateway", "status", "--json")]
    for command in (*commands, ("gateway", "stop"), ("gateway", "restart")):
        answer = here(*command)
        assert answer.code == 3, command
        [line] = [line for line in answer.err.splitlines() if told in line]
        assert "gateway start goes on with them" in line
        assert "engine prune ends them" in line
    start(fleet)
    assert pids(fleet) == before, "as it was promised"
    kill_the_gateway(fleet)
    assert told in here("engine", "list").err


def test_another_gateway_is_not_told_of_the_engines_here(
    fleet: Shell, here: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruning where STOKER_URL leads to nobody ended the engines of this home."""
    before = pids(fleet)
    kill_the_gateway(fleet)
    monkeypatch.setenv("STOKER_URL", NOBODY)
    for command in (("engine", "list"), ("engine", "prune", "--yes")):
        answer = here(*command)
        assert answer.code == 3
        assert "run on" not in answer.err
    assert {each.engine_id: each.pid for each in find_orphans(fleet.home)} == before


def test_engines_without_a_gateway_are_not_ended_unasked(fleet: Shell) -> None:
    """`engine prune` ended them without a word."""
    before = pids(fleet)
    kill_the_gateway(fleet)
    refused = fleet.run("engine", "prune", "--json")
    assert (refused.code, refused.out) == (1, "")
    assert "--yes" in refused.err
    for engine_id, pid in before.items():
        [line] = [line for line in refused.err.splitlines() if line.startswith(engine_id)]
        assert line.split()[1:3] == [engine_id, str(pid)], "its model, and its process"
    for answer in ("n\n", "\n", "\x04"):
        with terminal(fleet, "engine", "prune") as screen:
            until(lambda: "[y/N]" in screen.drawn, "it asks")
            screen.type(answer)
        assert screen.process.returncode == 1
        assert "nothing was done" in screen.drawn
    assert {each.engine_id: each.pid for each in find_orphans(fleet.home)} == before
    with terminal(fleet, "engine", "prune") as screen:
        until(lambda: "[y/N]" in screen.drawn, "it asks")
        screen.type("y\n")
    assert screen.process.returncode == 0
    assert all(str(pid) in screen.drawn.partition("ended:")[2] for pid in before.values())
    assert fleet.run("engine", "prune").out == "there is nothing to prune\n"
    assert not find_orphans(fleet.home)


def test_a_stray_beside_a_gateway_is_not_ended_unasked_either(fleet: Shell) -> None:
    pids(fleet)
    with stray(fleet) as process:
        refused = fleet.run("engine", "prune")
        assert refused.code == 1
        assert all(word in refused.err for word in (str(process.pid), "lost", "sleep 1000", "--yes"))
        assert process.poll() is None
        assert fleet.run("engine", "stop", "one").code == 0
        assert fleet.run("doctor", "--end-strays", STOKER_URL=NOBODY).code == 0, "it looks here, whoever is meant"
        assert process.wait(10) == -signal.SIGTERM
    assert len(fleet.run("engine", "list", "--json").json) == 2


def test_the_doctor_ends_what_it_shows_and_nothing_at_another_gateway(running: Shell, shell: Shell) -> None:
    """It had the gateway that STOKER_URL names end its own strays, and left those that it had shown."""
    gateway = read_gateway(running.home)
    assert gateway is not None
    shell.home.path.mkdir(mode=0o700)
    elsewhere = {"STOKER_URL": gateway.url, "STOKER_API_KEY": running.home.admin_token.read_text().strip()}
    with stray(running) as theirs, stray(shell) as ours:
        told = shell.run("doctor", "--end-strays", **elsewhere)
        assert (told.code, f"ended: {ours.pid}\n" in told.out) == (0, True), told.out
        assert ours.wait(10) == -signal.SIGTERM
        assert theirs.poll() is None


def test_what_an_engine_started_without_its_marker_is_no_engine_more(shell: Shell) -> None:
    """The core of vLLM writes a title over its environment: it was told of as an engine without a name."""
    with stray(shell, "env -u STOKER_MARK sleep 1000 & echo begun; wait") as process:
        assert process.stdout is not None
        process.stdout.readline()
        until(lambda: len(find_leftovers(shell.home.digest)) == 2, "the engine, and what it started")
        assert [(each.engine_id, each.pid) for each in find_orphans(shell.home)] == [("lost", process.pid)]


@contextlib.contextmanager
def stray(shell: Shell, script: str = "exec sleep 1000") -> Iterator[subprocess.Popen[bytes]]:
    """A process with the marker of an engine ``lost`` of that home."""
    environ = {**os.environ, "STOKER_MARK": f"{shell.home.digest}:earlier:lost:1"}
    words = ["sh", "-c", script]
    with subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def orphan(engine_id: str, *, adoptable: bool = True) -> Orphan:
    return Orphan(engine_id=engine_id, model="m", pid=1, began_at=0.0, adoptable=adoptable)


def test_a_remark_is_a_line_however_many_there_are() -> None:
    one = remark([orphan("one", adoptable=False)])
    assert one.startswith("1 engine runs on without a gateway: one; ")
    assert "gateway start replaces it" in one
    many = remark([orphan(f"e{number}") for number in range(100)])
    assert many.startswith("100 engines run on without a gateway: e0, e1, e2, e3, e4, 95 more; ")
