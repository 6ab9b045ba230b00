"""What a service manager is told, on a socket as systemd has it; and by the program itself."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio
import trio.testing

from stoker.cli.finding import read_gateway
from stoker.notifying import EXTENSION_SECONDS, Notifier
from tests.cli.conftest import SECONDS, Shell, fake_engine_toml, interrupt

PID = 4711


@attrs.define(eq=False)
class Manager:
    """Listens as a service manager does."""

    sock: socket.socket
    address: str
    heard: list[list[str]] = attrs.field(factory=list)

    def listen(self) -> list[list[str]]:
        """Everything that was said so far, a list of lines for each time."""
        self.sock.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:
                self.heard.append(self.sock.recv(4096).decode().splitlines())
        return self.heard

    def wait_for(self, line: str, times: int = 1) -> None:
        """Return when it was said so often."""
        while sum(line in said for said in self.listen()) < times:
            self.sock.settimeout(SECONDS)
            self.heard.append(self.sock.recv(4096).decode().splitlines())


@pytest.fixture(params=["a file", "no file"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    address = str(tmp_path / "notify") if request.param == "a file" else f"@stoker-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(address.replace("@", "\0"))
        yield Manager(sock, address)


def test_it_says_when_it_serves_and_when_it_ends(manager: Manager) -> None:
    environ = {"NOTIFY_SOCKET": manager.address, "PATH": "/bin"}
    notifier = Notifier.take(environ, PID)
    assert environ == {"PATH": "/bin"}
    notifier.ready("answers at http://127.0.0.1:8000")
    notifier.restarting()
    notifier.stopping()
    ready, restarting, stopping = manager.listen()
    assert ready == ["READY=1", "STATUS=answers at http://127.0.0.1:8000"]
    assert restarting[0] == "RELOADING=1"
    assert restarting[1].startswith("MONOTONIC_USEC=")
    assert stopping[0] == "STOPPING=1"


async def test_while_it_serves_it_lives_and_before_and_after_it_asks_for_time(
    manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    variables = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "4000000", "WATCHDOG_PID": str(PID)}
    notifier = Notifier.take(variables, PID)
    extension = [f"EXTEND_TIMEOUT_USEC={int(EXTENSION_SECONDS * 1e6)}"]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run)
        await trio.sleep(1)
        assert manager.listen() == [["WATCHDOG=1"], extension]
        notifier.ready("")
        manager.heard.clear()
        await trio.sleep(8)
        assert manager.listen()[1:] == [["WATCHDOG=1"]] * 4
        notifier.stopping()
        manager.heard.clear()
        await trio.sleep(2)
        assert manager.listen()[1:] == [["WATCHDOG=1"], extension]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "watchdog",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}],
)
async def test_a_watchdog_that_is_none_or_anothers_is_not_fed(
    watchdog: dict[str, str], manager: Manager, autojump_clock: trio.testing.MockClock
) -> None:
    notifier = Notifier.take({"NOTIFY_SOCKET": manager.address, **watchdog}, PID)
    notifier.ready("")
    with trio.move_on_after(60):
        await notifier.run()
    assert len(manager.listen()) == 1


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "1000000"}])
async def test_without_a_manager_nothing_is_said(environ: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier.take(environ, PID)
    notifier.ready("")
    await notifier.run()
    assert not environ.get("NOTIFY_SOCKET")
    assert not caplog.records


def test_a_manager_that_is_not_there_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notifier = Notifier.take({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, PID)
    notifier.ready("")
    notifier.stopping()
    [said] = caplog.records
    assert said.levelno == logging.WARNING


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


@pytest.mark.parametrize("manager", ["a file"], indirect=True)
def test_the_program_is_a_service_also_through_a_restart_and_its_engines_know_nothing_of_it(
    manager: Manager, shell: Shell
) -> None:
    shell.write(fake_engine_toml("m"))
    variables = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "2000000"}
    process = shell.start("up", "--listen", "127.0.0.1:0", **variables)
    try:
        manager.wait_for("READY=1")
        running = read_gateway(shell.home)
        assert running is not None
        assert f"STATUS=answers at {running.url}" in manager.heard[-1]
        manager.wait_for("WATCHDOG=1", times=2)
        restarted = shell.run("gateway", "restart")
        assert restarted.code == 0, restarted.err
        manager.wait_for("RELOADING=1")
        manager.wait_for("READY=1", times=2)
        [engine] = shell.run("engine", "list", "--json").json
        environ = Path(f"/proc/{engine['pid']}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in environ
        assert b"WATCHDOG" not in environ
        assert interrupt(process).code == 0
        manager.wait_for("STOPPING=1")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=SECONDS)
