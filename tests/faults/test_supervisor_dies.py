"""Stoker's own end costs no engine: whoever comes next finds them, and goes on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stoker.home import Home
from stoker.supervise import proctable
from stoker.testing.engines import fake_engine_env
from tests import loopback
from tests.e2e.running import Program, running, until

KILLS = 100 if os.environ.get("STOKER_SOAK") else 10
SERVER = [sys.executable, "-m", "stoker.testing.fake_engine", "--host", "{host}", "--port", "{port}"]


def engine(label: str, *faults: str, **more: object) -> str:
    fields = {
        "model": label,
        "label": label,
        "runtime": "command",
        "command": [*SERVER, "--model", "{model}", *faults],
        "stop_grace_seconds": 1,
        "probe_interval_seconds": 0.2,
        **more,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
    path = json.dumps(fake_engine_env()["PYTHONPATH"])
    return "\n".join(["[[engine]]", *lines, f"env = {{ PYTHONPATH = {path} }}", ""])


def write(folder: Path, *engines: str) -> str:
    file = folder / "stoker.toml"
    file.write_text(
        '[gateway]\nlisten = "127.0.0.1:0"\nqueue_seconds = 20\nallow_commands_over_http = true\n' + "".join(engines)
    )
    return str(file)


def by_id(program: Program) -> Mapping[str, Mapping[str, Any]]:
    return {info["engine_id"]: info for info in program.engines()}


def pids(program: Program) -> Mapping[str, int]:
    return {engine_id: info["pid"] for engine_id, info in by_id(program).items()}


def kill(program: Program) -> None:
    program.signal(signal.SIGKILL)
    program.process.wait()


def chat(program: Program, model: str) -> httpx2.Response:
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
    return loopback.post(f"{program.url}/v1/chat/completions", json=body, timeout=60)


def test_engines_of_a_killed_stoker_are_found_again_and_serve_without_a_reload(
    pyz: Path, stoker_home: Home, tmp_path: Path
) -> None:
    config = write(tmp_path, engine("one"), engine("two"))
    with running(pyz, stoker_home, "up", "-c", config) as first:
        first.wait_until_ready(2)
        by_hand = {"model": "three", "engine_id": "three", "runtime": "command", "command": SERVER}
        spec = {**by_hand, "env": dict(fake_engine_env()), "args": ["--model", "three"]}
        assert first.manage("POST", "/engines/start", spec).status_code == httpx2.codes.ACCEPTED
        first.wait_until_ready(3)
        before = pids(first)
        kill(first)
        with running(pyz, stoker_home, "up", "-c", config) as second:
            second.wait_until_ready(3)
            after = by_id(second)
            assert {engine_id: info["pid"] for engine_id, info in after.items()} == before
            assert {info["origin"] for info in after.values()} == {"adopted"}
            assert {info["restarts"] for info in after.values()} == {0}
            for model in ("one", "two", "three"):
                assert chat(second, model).status_code == httpx2.codes.OK
            assert second.signal_engine(before["one"])
            until(lambda: by_id(second)["one"]["restarts"] == 1, "one that dies is seen to die, and started anew")
            second.wait_until_ready(3)
            assert by_id(second)["one"]["origin"] == "managed"
            second.signal(signal.SIGINT)
            assert second.wait() == 0
            assert not second.processes(), "what was adopted is stopped as what was started"


def test_an_engine_that_died_with_its_stoker_is_started_anew_and_its_orphans_are_ended(
    pyz: Path, stoker_home: Home, tmp_path: Path
) -> None:
    config = write(tmp_path, engine("one", "--setsid-grandchild"), engine("two"))
    with running(pyz, stoker_home, "up", "-c", config) as first:
        first.wait_until_ready(2)
        before = pids(first)
        old = [entry for entry in first.processes() if before["two"] not in (entry.pid, entry.session)]
        assert len(old) > 1
        kill(first)
        assert first.signal_engine(before["one"])
        with running(pyz, stoker_home, "up", "-c", config) as second:
            second.wait_until_ready(2)
            after = by_id(second)
            assert after["two"]["pid"] == before["two"]
            assert after["one"]["pid"] != before["one"]
            assert after["one"]["origin"] == "managed"
            assert not proctable.still_there(old)


def test_what_the_configuration_wants_otherwise_by_now_is_changed(pyz: Path, stoker_home: Home, tmp_path: Path) -> None:
    config = write(tmp_path, engine("same"), engine("limit"), engine("args"), engine("gone"), engine("stopped"))
    with running(pyz, stoker_home, "up", "-c", config) as first:
        first.wait_until_ready(5)
        first.manage("POST", "/engines/stopped/stop")
        until(lambda: by_id(first)["stopped"]["state"] == "STOPPED", "it is stopped")
        before = pids(first)
        kill(first)
        write(
            tmp_path,
            engine("same"),
            engine("limit", max_concurrency=3),
            engine("args", "--name", "other", names=["other"]),
            engine("stopped"),
        )
        with running(pyz, stoker_home, "up", "-c", config) as second:
            until(lambda: by_id(second).get("args", {}).get("origin") == "managed", "it is started as it is wanted now")
            second.wait_until_ready(3)
            until(lambda: "gone" not in by_id(second), "what is wanted no more is stopped and forgotten")
            after = by_id(second)
            assert (after["same"]["pid"], after["limit"]["pid"]) == (before["same"], before["limit"])
            assert after["limit"]["max_concurrency"] == 3
            assert after["args"]["pid"] != before["args"]
            assert after["stopped"]["state"] == "STOPPED", "what somebody stopped stays stopped"
            assert chat(second, "other").status_code == httpx2.codes.OK


def stoker(pyz: Path, home: Home, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "NO_COLOR": "1", "STOKER_HOME": str(home.path)}
    return subprocess.run([sys.executable, pyz, *words], env=environ, capture_output=True, text=True, check=False)


@contextmanager
def streaming(program: Program, model: str) -> Iterator[Iterator[str]]:
    """A stream that goes on for long, as the data of its events; the first one has come when the block begins."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": True, "max_tokens": 10_000}
    url = f"{program.url}/v1/chat/completions"
    with loopback.stream("POST", url, json=body, timeout=60) as answer:
        assert answer.status_code == httpx2.codes.OK
        events = (line.removeprefix("data: ") for line in answer.iter_lines() if line.startswith("data: "))
        next(events)
        yield events


def test_a_restart_keeps_the_engines_the_address_and_the_pid_and_refuses_nobody(
    pyz: Path, stoker_home: Home, tmp_path: Path
) -> None:
    config = write(tmp_path, engine("one"), engine("two"))
    with running(pyz, stoker_home, "up", "-c", config) as program, load(stoker_home) as statuses:
        program.wait_until_ready(2)
        before, url = pids(program), program.url
        for _ in range(3):
            done = stoker(pyz, stoker_home, "gateway", "restart")
            assert done.returncode == 0, done.stderr
            assert f"the gateway runs at {url} (pid {program.process.pid})" in done.stdout
            program.wait_until_ready(2)
        assert pids(program) == before
        assert {info["origin"] for info in program.engines()} == {"adopted"}
        assert set(statuses) <= {200, 503}, "who waits meanwhile waits, or is told to try again"
        assert statuses.count(200) > len(statuses) / 2
        program.signal(signal.SIGINT)
        assert program.wait() == 0
        assert not program.processes()


def test_a_restart_does_not_wait_for_ever_and_cuts_no_stream_without_a_word(
    pyz: Path, stoker_home: Home, tmp_path: Path
) -> None:
    config = write(tmp_path, engine("slow", "--token-seconds", "0.05", drain_timeout_seconds=1))
    with running(pyz, stoker_home, "up", "-c", config) as program:
        program.wait_until_ready(1)
        with streaming(program, "slow") as events:
            assert stoker(pyz, stoker_home, "gateway", "restart", "--now").returncode == 0
            rest: list[str] = []
            with contextlib.suppress(httpx2.RemoteProtocolError):
                rest.extend(events)
            assert "error" in json.loads(rest[-1]), rest[-2:]
        program.wait_until_ready(1)


@pytest.mark.parametrize("moment", ["while it waits for requests", "while it becomes another program"])
def test_a_signal_during_a_restart_stops_it_all(pyz: Path, stoker_home: Home, tmp_path: Path, moment: str) -> None:
    config = write(tmp_path, engine("slow", "--token-seconds", "0.05", drain_timeout_seconds=2))
    with running(pyz, stoker_home, "up", "-c", config) as program, contextlib.ExitStack() as stack:
        program.wait_until_ready(1)
        if moment == "while it waits for requests":
            stack.enter_context(streaming(program, "slow"))
            assert program.manage("POST", "/gateway/restart").status_code == httpx2.codes.ACCEPTED
        else:
            assert program.manage("POST", "/gateway/restart").status_code == httpx2.codes.ACCEPTED
            until(lambda: "restarting" in program.output.read_text(), "it goes")
        program.signal(signal.SIGTERM)
        assert program.wait() == 0
        assert not program.processes()


def test_a_restart_that_would_not_come_up_does_not_happen(pyz: Path, stoker_home: Home, tmp_path: Path) -> None:
    config = write(tmp_path, engine("one"))
    with running(pyz, stoker_home, "up", "-c", config) as program:
        program.wait_until_ready(1)
        before = pids(program)
        Path(config).write_text("[gateway]\nlisten = 7\n")
        done = stoker(pyz, stoker_home, "gateway", "restart")
        assert done.returncode == 1
        assert "the new Stoker would not start, and so the old one stays" in done.stderr
        assert "gateway.listen" in done.stderr
        assert pids(program) == before
        assert chat(program, "one").status_code == httpx2.codes.OK


def test_a_restart_without_a_key_that_the_address_asks_for_does_not_happen(
    pyz: Path, stoker_home: Home, tmp_path: Path
) -> None:
    """The new one would refuse to listen where others could come in, and the old one was gone."""
    config = write(tmp_path, engine("one"))
    assert stoker(pyz, stoker_home, "key", "create", "--name", "only").returncode == 0
    with running(pyz, stoker_home, "up", "-c", config, "--listen", "0.0.0.0:0") as program:
        program.wait_until_ready(1)
        [key] = json.loads(stoker(pyz, stoker_home, "key", "list", "--json").stdout)
        assert stoker(pyz, stoker_home, "key", "revoke", key["key_id"]).returncode == 0
        done = stoker(pyz, stoker_home, "gateway", "restart")
        assert done.returncode == 1
        assert "key" in done.stderr
        program.wait_until_ready(1)


def test_a_gateway_that_is_stopped_without_its_engines_leaves_them_to_the_next(
    pyz: Path, stoker_home: Home, tmp_path: Path
) -> None:
    config = write(tmp_path, engine("one"))
    with running(pyz, stoker_home, "up", "-c", config) as first:
        first.wait_until_ready(1)
        before = pids(first)
        done = stoker(pyz, stoker_home, "gateway", "stop", "--keep-engines")
        assert done.returncode == 0, done.stderr
        assert first.wait() == 0
        assert {entry.pid for entry in first.processes()} == set(before.values())
        with running(pyz, stoker_home, "up", "-c", config) as second:
            second.wait_until_ready(1)
            assert pids(second) == before


@contextmanager
def load(home: Home) -> Iterator[list[int]]:
    """Clients that ask all the time, wherever the gateway is at present; their statuses, 0 for no answer."""
    over, statuses = threading.Event(), list[int]()

    def ask() -> None:
        while not over.is_set():
            try:
                url = json.loads(home.gateway.read_text())["url"]
                body = {
                    "model": "one",
                    "messages": [{"role": "user", "content": "Hi"}],
                    "stream": len(statuses) % 2 == 0,
                }
                statuses.append(loopback.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code)
            except (OSError, ValueError, httpx2.HTTPError):
                statuses.append(0)
                over.wait(0.02)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_killed_again_and_again_at_random_moments_under_load_it_loses_no_engine_and_leaves_no_stray(
    pyz: Path, stoker_home: Home, tmp_path: Path
) -> None:
    seed = int(os.environ.get("STOKER_SEED", "20"))
    chance = random.Random(seed)
    config = write(tmp_path, engine("one"), engine("two", "--child"), engine("three", startup_timeout_seconds=60))
    with running(pyz, stoker_home, "up", "-c", config) as first, load(stoker_home) as statuses:
        first.wait_until_ready(3)
        before = pids(first)
        kill(first)
        for _ in range(KILLS):
            with start(pyz, stoker_home, config) as program:
                moment = chance.random() * 1.5
                threading.Event().wait(moment)  # the fault itself: a moment that nobody chose
                kill(program)
        with running(pyz, stoker_home, "up", "-c", config) as last:
            last.wait_until_ready(3)
            assert pids(last) == before, f"each is the process that it was (STOKER_SEED={seed})"
            members = {entry.pid for entry in last.processes()}
            sessions = {entry.session for entry in last.processes()}
            assert sessions == set(before.values()), f"no stray among {members}"
            until(lambda: statuses[-1] == httpx2.codes.OK, "and they answer")


@contextmanager
def start(pyz: Path, home: Home, config: str) -> Iterator[Program]:
    """One that nobody waits for."""
    output = home.path / "output.txt"
    with output.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, str(pyz), "up", "-c", config],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, "STOKER_HOME": str(home.path), "NO_COLOR": "1"},
        )
    try:
        yield Program(process, home, output)
    finally:
        process.kill()
        process.wait()


def test_what_nobody_watches_is_told_and_ended_when_somebody_says_so(
    pyz: Path, stoker_home: Home, tmp_path: Path
) -> None:
    """A process of an engine that is gone: nobody's. And the engines of a gateway that is gone: the next one's."""
    config = write(tmp_path, engine("one"))
    with running(pyz, stoker_home, "up", "-c", config) as program:
        program.wait_until_ready(1)
        mark = f"{stoker_home.digest}:earlier:lost:1"
        stray = subprocess.Popen(["sleep", "1000"], env={**os.environ, "STOKER_MARK": mark}, start_new_session=True)
        try:
            told = stoker(pyz, stoker_home, "doctor")
            assert told.returncode == 1
            assert f"{stray.pid}" in told.stdout
            assert "sleep 1000" in told.stdout
            assert str(pids(program)["one"]) not in told.stdout, "an engine that is watched is no stray"
            pruned = stoker(pyz, stoker_home, "engine", "prune", "--yes", "--json")
            assert json.loads(pruned.stdout) == {"forgotten": [], "ended": [stray.pid], "remaining": []}
            assert stray.wait(10) == -signal.SIGTERM
        finally:
            stray.kill()
            stray.wait()
        whole = stoker(pyz, stoker_home, "doctor")
        assert whole.returncode == 0, whole.stdout
        assert "no process is without somebody who watches it" in whole.stdout
        before = pids(program)["one"]
        kill(program)
        told = stoker(pyz, stoker_home, "doctor", "--json")
        assert [each["pid"] for each in json.loads(told.stdout)["strays"]] == [before]
        assert stoker(pyz, stoker_home, "doctor", "--end-strays").returncode == 0
        assert not program.processes()


def test_engines_that_have_ended_are_taken_off_the_list(pyz: Path, stoker_home: Home, tmp_path: Path) -> None:
    with running(pyz, stoker_home, "up", "-c", write(tmp_path, engine("one"))) as program:
        program.wait_until_ready(1)
        by_hand = {"model": "two", "engine_id": "two", "runtime": "command", "command": SERVER}
        spec = {**by_hand, "env": dict(fake_engine_env()), "args": ["--model", "two"]}
        program.manage("POST", "/engines/start", spec)
        program.wait_until_ready(2)
        for engine_id in ("one", "two"):
            program.manage("POST", f"/engines/{engine_id}/stop")
        until(lambda: {info["state"] for info in program.engines()} == {"STOPPED"}, "both are stopped")
        assert stoker(pyz, stoker_home, "engine", "prune").stdout == "forgotten: two\n"
        assert list(by_id(program)) == ["one"], "what the configuration names stays on the list"
