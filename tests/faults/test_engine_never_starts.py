"""Engines that don't come up, don't go down, or are not who answers; and what their start costs those who wait."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from tests.e2e.running import until

from .crowd import WHOLE, Crowd
from .fleet import FAKE, ask, engine, fleet, info_of, wait_for

HERD = 500 if os.environ.get("STOKER_SOAK") == "1" else 50

# Tells its port, waits for a word, and then becomes what the rest of its arguments say.
HELD_UP = """
import os, sys
port, folder, *argv = sys.argv[1:]
with open(os.path.join(folder, "port"), "w") as file: file.write(port)
with open(os.path.join(folder, "word")) as file: word = file.read()
if word == "go": os.execv(argv[0], argv)
if word == "wait": import time; time.sleep(600)
"""


def held_up(folder: Path) -> tuple[str, ...]:
    """A command that a test holds up between the choice of its port and the start of the engine."""
    for pipe in ("port", "word"):
        os.mkfifo(folder / pipe)
    return (sys.executable, "-c", HELD_UP, "{port}", str(folder), *FAKE)


class Impostor(BaseHTTPRequestHandler):
    """In the best of health, and serves something."""

    asked: list[str] = []
    models: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        body = json.dumps({"data": [{"id": name} for name in self.models]}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - as its base class wants it

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def impostor(port: int, *models: str) -> Iterator[type[Impostor]]:
    """A stranger who listens at the port."""
    handler = type("Handler", (Impostor,), {"asked": [], "models": list(models)})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield handler
        finally:
            server.shutdown()
            thread.join()


def test_a_stranger_who_took_the_port_is_never_routed_to(tmp_path: Path) -> None:
    """Whoever was healthy at the port, between its choice and the engine's start, was once taken for the engine."""
    with fleet(tmp_path, engine(command=held_up(tmp_path))) as program:
        port = int((tmp_path / "port").read_text())
        with impostor(port, "something else") as stranger:
            (tmp_path / "word").write_text("wait")
            second = int((tmp_path / "port").read_text())
            failed = info_of(program)
            assert second != port
            assert f"port {port} is not the engine's: process {os.getpid()}" in failed["last_error"]
            assert "its model list has only 'something else'" in failed["last_error"]
            (tmp_path / "word").write_text("go")
            wait_for(program, state="READY", port=second, restarts=1)
            assert ask(program).status_code == httpx2.codes.OK
            assert set(stranger.asked) == {"/health", "/v1/models"}


def test_a_listener_that_is_none_of_the_engines_processes_is_taken_for_it_with_its_model_list(tmp_path: Path) -> None:
    """As where the command starts a container."""
    with contextlib.ExitStack() as stack:
        program = stack.enter_context(fleet(tmp_path, engine(command=held_up(tmp_path))))
        stack.enter_context(impostor(int((tmp_path / "port").read_text()), "other", "fake"))
        (tmp_path / "word").write_text("wait")
        wait_for(program, state="READY", restarts=0)


@pytest.mark.parametrize(
    ("faults", "startup_seconds", "error"),
    [
        (("--exit-at-start", "3", "--message", "no such model"), 60, "its process ended while starting: exit code 3"),
        (("--exit-at-start", "0"), 60, "its process ended while starting: exit code 0"),
        (("--never-ready",), 1, "not ready 1 s after its start"),
    ],
)
def test_an_engine_that_never_comes_up_is_given_up_with_the_reason(
    tmp_path: Path, faults: tuple[str, ...], startup_seconds: float, error: str
) -> None:
    """One that exits needs more than a second for it where the machine is busy."""
    spec = engine(*faults, restart_limit=2, startup_timeout_seconds=startup_seconds, stop_grace_seconds=0.2)
    with fleet(tmp_path, spec) as program:
        info = wait_for(program, state="ERROR", restart_at=None)
        assert info["reason"] == "given up after 2 restarts"
        assert info["last_error"].startswith(error)
        assert ("no such model" in info["last_error"]) == ("--message" in faults)
        until(lambda: not program.processes(), "nothing is left of it")
        answer = ask(program)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_engine")
        assert "given up after 2 restarts" in answer.json()["error"]["message"]


def test_an_engine_that_goes_to_the_background_is_said_to(tmp_path: Path) -> None:
    daemonise = "import os, sys\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n"
    command = (sys.executable, "-c", f"{daemonise}os.execv(sys.argv[1], sys.argv[1:])", *FAKE)
    with fleet(tmp_path, engine(command=command, restart_limit=1)) as program:
        info = wait_for(program, state="ERROR", restart_at=None)
        assert info["last_error"].startswith("its process ended while starting: exit code 0")
        assert "; it left 1 in the background, where engines can't be watched" in info["last_error"]
        until(lambda: not program.processes(), "nothing is left of it")


@pytest.mark.parametrize(
    "faults",
    [("--setsid-grandchild", "--double-fork", "--child"), ("--ignore-sigterm", "--child", "--double-fork")],
    ids=["leaves processes", "deaf to SIGTERM"],
)
def test_nothing_is_left_of_an_engine_that_was_stopped(tmp_path: Path, faults: tuple[str, ...]) -> None:
    with fleet(tmp_path, engine(*faults, stop_grace_seconds=0.3)) as program:
        program.wait_until_ready(1)
        assert len(program.processes()) > 1
        program.manage("POST", "/engines/fake/stop")
        wait_for(program, state="STOPPED", reason="")
        assert program.processes() == []


async def test_a_herd_starts_one_engine_and_is_answered_when_it_is_ready(tmp_path: Path) -> None:
    with fleet(tmp_path, engine(command=held_up(tmp_path), max_concurrency=16)) as program:
        (tmp_path / "port").read_text()
        herd = Crowd.of(program)
        async with herd.asking(HERD):
            await herd.until_waiting(program, HERD)
            assert [info["state"] for info in program.engines()] == ["STARTING"]
            (tmp_path / "word").write_text("go")
        assert herd.outcomes == {WHOLE: HERD}
        [info] = program.engines()
        assert (info["restarts"], info["active_requests"]) == (0, 0)
        assert program.output.read_text().count("fake STARTING") == 1


async def test_a_herd_that_does_not_fit_the_queue_is_told_to_come_again(tmp_path: Path) -> None:
    with fleet(tmp_path, engine(command=held_up(tmp_path)), queue_size=20, queue_seconds=1) as program:
        (tmp_path / "port").read_text()
        herd = Crowd.of(program)
        async with herd.asking(HERD):
            pass
        assert herd.outcomes == {"refused with 429": HERD - 20, "refused with 503": 20}
        (tmp_path / "word").write_text("go")
        wait_for(program, state="READY", restarts=0)
        assert ask(program).status_code == httpx2.codes.OK


def test_a_fixed_port_that_somebody_holds_is_waited_for_within_the_budget(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with fleet(tmp_path, engine(port=port, restart_cap_seconds=0.2, restart_limit=100)) as program:
            until(lambda: info_of(program)["state"] == "ERROR", "the port is found taken")
            assert info_of(program)["last_error"].startswith(f"port {port} is in use")
            holder.close()
            wait_for(program, state="READY", port=port)
