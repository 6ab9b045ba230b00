"""Who answers at an engine's port has to be the engine. Real sockets in real processes, looked at through /proc."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import attrs
import pytest
import trio

from stoker.supervise import ports, proctable, proof
from stoker.supervise.launching import free_port
from stoker.supervise.process import EngineProcess, spawn
from stoker.supervise.proof import Claim, Owner

pytestmark = pytest.mark.skipif(not proctable.HAS_PROC, reason="there is no /proc to look into")

LISTEN = """
import os, socket, sys, time
{before}
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), family=socket.AF_INET6 if ":" in sys.argv[1] else 2)
print("listening", flush=True)
time.sleep(600)
"""
IN_A_CHILD = "if os.fork(): time.sleep(600)"
IN_A_GRANDCHILD = "if os.fork() or os.fork(): time.sleep(600)"
IN_A_DAEMON = """
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
"""
Start = Callable[..., EngineProcess]


@pytest.fixture
def mark() -> str:
    return f"test:{os.urandom(8).hex()}"


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Iterator[Start]:
    """Start an engine that listens at an address; ``own`` replaces its marker. Returns when it says that it does."""
    marks = {mark}

    def start_engine(host: str, port: int, before: str = "", own: str = mark) -> EngineProcess:
        marks.add(own)
        log = tmp_path / f"{own}.log"
        return spawn([sys.executable, "-c", LISTEN.format(before=before), host, str(port)], os.environ, None, log, own)

    yield start_engine
    proctable.send(proctable.members(None, marks.__contains__), signal.SIGKILL)


async def until_listening(host: str, port: int) -> None:
    with trio.fail_after(20):
        while not ports.listeners(host, port):
            await trio.sleep(0.01)


def claim(port: int, session: int, mark: str, host: str = "127.0.0.1") -> Claim:
    return Claim(host, port, session, mark, {"m", "alias"})


@attrs.define
class ModelList:
    """What answers at the port lists these models."""

    names: Collection[str] = ()
    asked: int = 0

    async def __call__(self) -> Collection[str]:
        self.asked += 1
        return self.names


@pytest.mark.parametrize(
    ("before", "asked_for", "bound_to"),
    [
        ("", "127.0.0.1", "127.0.0.1"),
        ("", "127.0.0.1", "0.0.0.0"),
        ("", "127.0.0.1", "::"),
        ("", "::1", "::1"),
        ("", "localhost", "127.0.0.1"),
        (IN_A_CHILD, "127.0.0.1", "127.0.0.1"),
        (IN_A_GRANDCHILD, "127.0.0.1", "127.0.0.1"),
        (IN_A_DAEMON, "127.0.0.1", "127.0.0.1"),
    ],
)
async def test_an_engine_that_listens_in_any_of_its_processes_is_believed(
    start: Start, mark: str, before: str, asked_for: str, bound_to: str
) -> None:
    port = free_port("127.0.0.1")
    try:
        engine = start(bound_to, port, before)
        await until_listening(asked_for, port)
    except OSError:
        pytest.skip(f"no {bound_to} on this machine")
    models = ModelList()
    assert proof.look(claim(port, engine.pid, mark, asked_for)).owner is Owner.ENGINE
    assert await claim(port, engine.pid, mark, asked_for).doubt(models) == ""
    assert models.asked == 0
    await engine.stop(0)


async def test_a_stranger_is_believed_only_with_the_right_model_list(start: Start, mark: str) -> None:
    """A container's port is held by the container runtime, whose processes are nobody's."""
    engine = start("127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        theirs = claim(stranger.getsockname()[1], engine.pid, mark)
        taken = f"port {theirs.port} is not the engine's: process {os.getpid()} ({_comm(os.getpid())})"
        doubt = await theirs.doubt(ModelList())
        assert doubt is not None
        assert doubt.startswith(taken)
        assert doubt.endswith("listens there, and its model list can't be had")
        assert str(await theirs.doubt(ModelList(["x"]))).endswith("listens there, and its model list has only 'x'")
        assert await theirs.doubt(ModelList(["x", "alias"])) == ""
    await engine.stop(0)


async def test_another_engine_is_never_believed(start: Start, mark: str) -> None:
    """Replicas have the same model list, and two that were given the same port would be taken for each other."""
    port = free_port("127.0.0.1")
    other = start("127.0.0.1", port, own=f"{mark}:2")
    await until_listening("127.0.0.1", port)
    engine = start("127.0.0.1", 0)
    models = ModelList(["m"])
    doubt = await claim(port, engine.pid, mark).doubt(models)
    assert doubt == f"port {port} is not the engine's: process {other.pid} ({_comm(other.pid)}) listens there"
    assert models.asked == 0
    await engine.stop(0)
    await other.stop(0)


async def test_a_socket_bound_to_the_very_address_comes_before_one_bound_to_any(start: Start, mark: str) -> None:
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with socket.socket() as ours:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            ours.bind(("0.0.0.0", port))
            ours.listen()
            [reached] = ports.listeners("127.0.0.1", port)
            assert reached == os.fstat(stranger.fileno()).st_ino
            shared = socket.socket()
            with shared:
                shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                shared.bind(("127.0.0.1", port))
                shared.listen()
                both = {os.fstat(each.fileno()).st_ino for each in (stranger, shared)}
                assert ports.listeners("127.0.0.1", port) == both, "the kernel shares connections out among them"


@pytest.mark.parametrize("why", ["no /proc", "nobody listens", "another user's process"])
async def test_where_nothing_can_be_seen_an_engine_is_taken_at_its_word(
    start: Start, mark: str, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = start("127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        if why == "no /proc":
            monkeypatch.setattr(proctable, "HAS_PROC", False)
        elif why == "nobody listens":
            other.close()
        else:
            monkeypatch.setattr(ports, "sockets_of", lambda _: None)
        assert await claim(port, engine.pid, mark).doubt(ModelList(["m"])) == ""
        assert not caplog.records
        assert await claim(port, engine.pid, mark).doubt(ModelList(["another"])) == ""
        assert "it is taken for the engine" in caplog.text
    monkeypatch.undo()
    await engine.stop(0)


async def test_a_shortage_of_ours_is_no_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(_: Claim) -> proof.Sight:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(proof, "look", exhausted)
    models = ModelList(["m"])
    assert await claim(1, 1, "mark").doubt(models) is None
    assert models.asked == 0


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()
