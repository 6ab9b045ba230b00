"""What vLLM does when it is told to stop, killed, frozen or started wrongly; and what Stoker makes of each.

First the bare process, so that we see it when a new vLLM does otherwise; then the same behind Stoker. Each start of it
takes half a minute, so tests share one where they can: they are stories in several chapters.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import httpx2
import pytest

from stoker.home import Home
from stoker.supervise import proctable
from stoker.supervise.launching import free_port
from tests import loopback
from tests.e2e.running import Program, running, until

from .families import OFFLINE, TINY_ARGS, TINY_LONG_TOKENS, Family
from .serving import MESSAGES, Served, left_of, name_of, to_the_end, tree, until_cut

START_SECONDS = 400
LONG = TINY_LONG_TOKENS
ENV = {**OFFLINE, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


@pytest.fixture(scope="module")
def tiny(python: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model. ``python`` first, so that nothing is written where there is no vLLM."""
    from .tiny_llama import write_model

    return write_model(tmp_path_factory.mktemp("models") / "tiny")


# The bare process


@attrs.frozen
class Bare:
    """A vLLM that nobody watches, in a session of its own."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def alive(self) -> list[proctable.ProcessEntry]:
        """Everything of its session."""
        return [entry for entry in proctable.process_table() if entry.session == self.process.pid and not entry.gone]

    def one(self, name: str) -> int:
        """The pid of the process that calls itself so."""
        [pid] = [entry.pid for entry in self.alive() if name_of(entry.pid).startswith(name)]
        return pid

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        with contextlib.suppress(httpx2.HTTPError):
            return loopback.get(f"{self.url}/health", timeout=5).status_code == httpx2.codes.OK
        return False

    @contextlib.contextmanager
    def streaming(self, tokens: int = LONG, silence_seconds: float = START_SECONDS) -> Iterator[Iterator[str]]:
        body = {"model": "tiny", "messages": MESSAGES, "max_tokens": tokens, "ignore_eos": True, "stream": True}
        with loopback.stream("POST", f"{self.url}/v1/chat/completions", json=body, timeout=silence_seconds) as answer:
            events = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
            assert "error" not in json.loads(next(events))
            yield events


@contextlib.contextmanager
def bare(python: str, tiny: Path, log: Path, *more: str, wait: bool = True) -> Iterator[Bare]:
    port = free_port("127.0.0.1")
    where = ("--host", "127.0.0.1", "--port", str(port))
    words = (
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        str(tiny),
        "--served-model-name",
        "tiny",
        *TINY_ARGS,
    )
    with log.open("wb") as file:
        process = subprocess.Popen(
            [python, *words, *where, *more],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ENV, **QUIET},
            start_new_session=True,
        )
    running = Bare(process, f"http://127.0.0.1:{port}", log)
    try:
        if wait:
            until(running.is_ready, "the bare vLLM is ready", START_SECONDS)
        yield running
    finally:
        proctable.send(running.alive(), signal.SIGKILL)
        process.kill()
        process.wait()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "vllm.log"


def test_bare_its_processes_are_one_session_and_an_idle_one_ends_by_sigterm(python: str, tiny: Path, log: Path) -> None:
    with bare(python, tiny, log) as engine:
        names = [name_of(entry.pid) for entry in engine.alive()]
        assert any(name.startswith("VLLM::EngineCore") for name in names), tree(engine.process.pid)
        assert any("resource_tracker" in name for name in names), tree(engine.process.pid)
        assert {os.getpgid(entry.pid) for entry in engine.alive()} == {engine.process.pid}
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(60) == 0
        until(lambda: not engine.alive(), "no process of it is left")


def test_bare_with_a_stream_in_flight_sigterm_takes_the_core_and_the_server_hangs(
    python: str, tiny: Path, log: Path
) -> None:
    with bare(python, tiny, log) as engine:
        core = engine.one("VLLM::EngineCore")
        with engine.streaming() as events:
            engine.process.send_signal(signal.SIGTERM)
            until(lambda: core not in [entry.pid for entry in engine.alive()], "the core is gone")
            assert engine.process.poll() is None, "the server outlives its core while a client stays"
            del events
        assert engine.process.wait(120) is not None


def test_bare_with_a_stream_in_flight_sigterm_to_the_group_ends_it_as_if_it_were_whole_or_never(
    python: str, tiny: Path, log: Path
) -> None:
    """Both were seen; so a stop can wait for neither the client nor the exit code."""
    with bare(python, tiny, log) as engine:
        core = engine.one("VLLM::EngineCore")
        with engine.streaming(silence_seconds=20) as events:
            os.killpg(engine.process.pid, signal.SIGTERM)
            try:
                rest = list(events)
            except httpx2.ReadTimeout:
                assert engine.process.poll() is None, "it hangs with a client that waits for ever"
                assert core not in [entry.pid for entry in engine.alive()]
                return
            assert rest[-1] == "[DONE]", "it ends the stream as if it were whole"
            assert "error" in json.loads(rest[-2])
        assert engine.process.wait(60) == 0, "exit code 0, whatever happened"


def test_bare_with_a_shutdown_timeout_a_stream_in_flight_is_finished(python: str, tiny: Path, log: Path) -> None:
    with bare(python, tiny, log, "--shutdown-timeout", "60") as engine:
        with engine.streaming(tokens=400) as events:
            engine.process.send_signal(signal.SIGTERM)
            rest = list(events)
        assert rest[-1] == "[DONE]"
        assert not [event for event in rest[:-1] if "error" in json.loads(event)]
        assert engine.process.wait(120) == 0


def test_bare_a_killed_server_leaves_orphans(python: str, tiny: Path, log: Path) -> None:
    with bare(python, tiny, log) as engine:
        core = engine.one("VLLM::EngineCore")
        engine.process.kill()
        engine.process.wait()
        assert core in [entry.pid for entry in engine.alive()]


def test_bare_a_killed_core_ends_the_server_with_exit_code_0(python: str, tiny: Path, log: Path) -> None:
    with bare(python, tiny, log) as engine:
        os.kill(engine.one("VLLM::EngineCore"), signal.SIGKILL)
        assert engine.process.wait(60) == 0


def test_bare_with_a_shutdown_timeout_that_a_stream_outlasts_it_hangs_too(python: str, tiny: Path, log: Path) -> None:
    with bare(python, tiny, log, "--shutdown-timeout", "2") as engine:
        core = engine.one("VLLM::EngineCore")
        with engine.streaming():
            engine.process.send_signal(signal.SIGTERM)
            until(lambda: core not in [entry.pid for entry in engine.alive()], "the core is gone")
            assert engine.process.poll() is None, "the server outlives its core while a client stays"
        assert engine.process.wait(120) is not None


def test_bare_a_sigterm_while_it_starts_does_not_end_it(python: str, tiny: Path, log: Path) -> None:
    """It is lost, and a second one works; or, on a busy machine, the server hangs and its core gives up."""
    gave_up = "Did not receive response from front-end process"
    with bare(python, tiny, log, wait=False) as engine:
        until(lambda: "VLLM::EngineCore" in tree(engine.process.pid), "its core has begun", START_SECONDS)
        engine.process.send_signal(signal.SIGTERM)
        until(
            lambda: engine.is_ready() or gave_up in log.read_text(), "it is ready, or its core gives up", START_SECONDS
        )
        assert engine.process.poll() is None
        if engine.is_ready():
            engine.process.send_signal(signal.SIGTERM)
            assert engine.process.wait(120) == 0


def test_bare_a_port_that_is_taken_ends_it_and_the_log_says_so(python: str, tiny: Path, log: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        with bare(python, tiny, log, "--port", port, wait=False) as engine:
            assert engine.process.wait(START_SECONDS) == 1
            assert "Address already in use" in log.read_text()
            until(lambda: not engine.alive(), "no process of it is left")


# Behind Stoker


@pytest.fixture(scope="module")
def served(python: str, tiny: Path, pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One engine, whose stall is noticed soon and whose drain is short."""
    folder = tmp_path_factory.mktemp("facts")
    environment = ", ".join(f'{name} = "{value}"' for name, value in ENV.items())
    config = f"""
[gateway]
listen = "127.0.0.1:0"
queue_seconds = 2

[runtime.vllm-cpu]
python = "{python}"

[[engine]]
model = "{tiny}"
names = ["chat"]
label = "chat"
runtime = "vllm-cpu"
args = {json.dumps(TINY_ARGS)}
env = {{ {environment} }}
restart_base_seconds = 0.2
restart_limit = 20
stall_seconds = 4
probe_timeout_seconds = 1.5
probe_interval_seconds = 0.5
drain_timeout_seconds = 1
stop_grace_seconds = 5
"""
    (folder / "stoker.toml").write_text(config)
    family = Family(name="vllm", home=Home(folder / "home"), config=config, start_seconds=START_SECONDS)
    with running(pyz, family.home, "up", "-c", str(folder / "stoker.toml")) as program:
        program.wait_until_ready(1, START_SECONDS)
        yield Served(program, family)


def pid_of(served: Served, name: str) -> int:
    [pid] = [entry.pid for entry in served.processes_of("chat") if name_of(entry.pid).startswith(name)]
    return pid


def replaced(served: Served, before: Mapping[str, Any]) -> Mapping[str, Any]:
    """Wait for the engine's next incarnation, and see that nothing of the former one is left."""

    def another() -> Mapping[str, Any] | None:
        engine = served.engine("chat")
        assert engine["state"] in ("READY", "STARTING", "ERROR"), engine
        return engine if engine["state"] == "READY" and engine["pid"] != before["pid"] else None

    after = until(another, "another incarnation is READY", START_SECONDS)
    assert before["pid"] not in {entry.session for entry in proctable.process_table() if not entry.gone}, tree(1)
    assert served.chat().status_code == httpx2.codes.OK
    return after


def test_a_killed_server_is_told_to_its_clients_and_its_orphans_are_cleared_away(served: Served) -> None:
    before = served.engine("chat")
    with served.streaming(LONG) as events:
        os.kill(before["pid"], signal.SIGKILL)
        assert "error" in json.loads(until_cut(events)[-1])
    assert replaced(served, before)["restarts"] == before["restarts"] + 1


@pytest.mark.parametrize("name", ["VLLM::EngineCore", "VLLM::Worker"])
def test_a_killed_part_of_it_is_an_error_whatever_its_exit_code(served: Served, name: str) -> None:
    before = served.engine("chat")
    try:
        part = pid_of(served, name)
    except ValueError:
        pytest.skip(f"this vLLM has no {name} of its own:\n{tree(before['pid'])}")
    with served.streaming(LONG) as events:
        os.kill(part, signal.SIGKILL)
        told = to_the_end(events)
    assert "error" in json.loads(next(event for event in reversed(told) if event != "[DONE]"))
    after = replaced(served, before)
    assert "exit code 0" in (after["last_exit"] or ""), "it ended as if all were well, and Stoker did not believe it"


def test_a_frozen_worker_answers_health_and_nothing_else_and_is_replaced(served: Served) -> None:
    before = served.engine("chat")
    with served.streaming(LONG) as events:
        for entry in served.processes_of("chat"):
            if name_of(entry.pid).startswith("VLLM::"):
                os.kill(entry.pid, signal.SIGSTOP)
        assert loopback.get(f"{before['base_url']}/health", timeout=30).status_code == httpx2.codes.OK
        told = to_the_end(events)
    assert "error" in json.loads(next(event for event in reversed(told) if event != "[DONE]"))
    after = replaced(served, before)
    assert "no progress" in (after["last_error"] or ""), after["last_error"]


def test_a_stop_with_a_stream_in_flight_ends_after_the_drain_and_the_client_is_told(served: Served) -> None:
    before, processes = served.engine("chat"), served.processes_of("chat")
    with served.streaming(LONG) as events:
        served.program.manage("POST", "/engines/chat/stop")
        rest = to_the_end(events)
        assert "error" in json.loads(next(event for event in reversed(rest) if event != "[DONE]"))
    served.wait_for("chat", "STOPPED", seconds=60)
    assert len(processes) > 1
    assert not left_of(processes)
    served.program.manage("POST", "/engines/chat/restart")
    replaced(served, before)


def test_an_engine_that_is_told_to_stop_while_it_starts_is_gone_soon(served: Served) -> None:
    served.program.manage("POST", "/engines/chat/restart", {"drain": False})
    served.wait_for("chat", "STARTING", seconds=60)

    def several() -> list[proctable.ProcessEntry] | None:
        found = served.processes_of("chat")
        return found if len(found) > 1 else None

    processes = until(several, "it starts its processes", START_SECONDS)
    served.program.manage("POST", "/engines/chat/stop")
    served.wait_for("chat", "STOPPED", seconds=60)
    assert not left_of(processes)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"args": ["--no-such-flag"]}, "--no-such-flag"),
        ({"args": ["--enforce-eager", "--max-model-len", "999999999"]}, "max_model_len"),
        ({"model": "./no-such-model"}, "no-such-model"),
    ],
    ids=["a bad flag", "a bad value", "a bad path"],
)
def test_what_is_wrong_is_said_with_its_true_cause(
    served: Served, tiny: Path, tmp_path: Path, spec: Mapping[str, Any], says: str
) -> None:
    if model := spec.get("model"):
        spec = {**spec, "model": str(tmp_path / model)}
    wanted = {"model": str(tiny), "runtime": "vllm-cpu", "engine_id": "bad", "restart_limit": 0, "env": ENV, **spec}
    if wanted["model"] == str(tiny):
        wanted["names"] = []
    served.program.manage("POST", "/engines/start", wanted)
    try:
        failed = served.wait_for("bad", "ERROR")
        assert says in failed["last_error"], failed["last_error"]
    finally:
        served.program.manage("DELETE", "/engines/bad")
        until(functools.partial(_is_forgotten, served.program, "bad"), "the bad engine is forgotten")


def _is_forgotten(program: Program, engine_id: str) -> bool:
    return all(engine["engine_id"] != engine_id for engine in program.engines())


def test_the_end_leaves_nothing(served: Served) -> None:
    served.program.manage("POST", "/engines/chat/restart")
    served.wait_for("chat", "READY")
    processes = served.processes_of("chat")
    assert len(processes) > 1, "a server and its core, at least"
    served.program.signal(signal.SIGINT)
    assert served.program.wait() == 0
    assert not left_of(processes)
