"""Stoker from its sources, in a process of its own, with fake engines that it keeps running, and their faults."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import httpx2

from stoker.home import Home
from stoker.model import NOTHING
from stoker.testing.engines import COMMAND, LISTENING, fake_engine_env
from tests import loopback
from tests.e2e.running import HANG_GUARD_SECONDS, Program, running, until

CHAT = "/v1/chat/completions"
BUSY_SECONDS = 4.0
FAKE = (*COMMAND, "--host", "{host}", "--port", "{port}", "--model", "{model}")
QUICK: Mapping[str, Any] = {
    "probe_interval_seconds": 0.2,
    "probe_timeout_seconds": 0.5,
    "restart_base_seconds": 0.1,
    "restart_cap_seconds": 1.0,
    "stop_grace_seconds": 1.0,
    "drain_timeout_seconds": 5.0,
}


def engine(*faults: str, command: Sequence[str] = FAKE, **fields: object) -> str:
    """An ``[[engine]]`` of the model ``fake`` with times for tests; ``faults`` are flags of the fake engine."""
    values = {"model": "fake", "runtime": "command", "command": [*command, *faults], **QUICK, **fields}
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    path = json.dumps(fake_engine_env()["PYTHONPATH"])
    return "\n".join(["[[engine]]", *lines, f"env = {{ PYTHONPATH = {path} }}", ""])


def remote(url: str, **fields: object) -> str:
    """An ``[[engine]]`` of the model ``fake`` that is only a URL."""
    quick = {name: value for name, value in QUICK.items() if name.startswith("probe_")}
    values = {"model": "fake", "runtime": "remote", "url": url, **quick, **fields}
    return "\n".join(["[[engine]]", *(f"{name} = {json.dumps(value)}" for name, value in values.items()), ""])


@contextlib.contextmanager
def served_by_somebody_else(*faults: str) -> Iterator[str]:
    """The URL of a fake engine that Stoker does not start."""
    command = [*COMMAND, "--stop-with-stdin", "--port", "0", "--model", "fake", *faults]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **fake_engine_env()}
    ) as process:
        try:
            assert process.stdout is not None
            listening = next(found for line in process.stdout if (found := LISTENING.search(line)))
            yield f"http://127.0.0.1:{int(listening[1])}"
        finally:
            process.kill()


@contextlib.contextmanager
def up(folder: Path, toml: str, *arguments: str, env: Mapping[str, str] = NOTHING) -> Iterator[Program]:
    """``stoker up`` with this configuration, in this environment."""
    file = folder / "stoker.toml"
    file.write_text(toml)
    stoker = [sys.executable, "-m", "stoker"]
    words = ("up", "-c", str(file), *arguments)
    with running(stoker, Home(folder / "home"), *words, **fake_engine_env(), **env) as program:
        yield program


@contextlib.contextmanager
def fleet(folder: Path, *engines: str, env: Mapping[str, str] = NOTHING, **gateway: object) -> Iterator[Program]:
    """``stoker up`` with these engines, in this environment, and with settings of the gateway."""
    settings = {"listen": "127.0.0.1:0", **gateway}
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    with up(folder, "\n".join(["[gateway]", *lines, "", *engines]), env=env) as program:
        yield program


def info_of(program: Program, engine_id: str = "fake") -> Mapping[str, Any]:
    """One engine as the management side shows it."""
    return dict(program.manage("GET", f"/engines/{engine_id}").json())


def wait_for(program: Program, engine_id: str = "fake", **values: object) -> Mapping[str, Any]:
    """Wait until an engine has these values, and return all it has."""
    seen: Mapping[str, Any] = {}

    def there() -> Mapping[str, Any] | None:
        nonlocal seen
        seen = info_of(program, engine_id)
        return seen if all(seen[name] == value for name, value in values.items()) else None

    try:
        return until(there, f"{engine_id} is {values}")
    except AssertionError as error:
        raise AssertionError(f"{error}; it is {seen}\n{program.output.read_text()}") from None


def change_faults(info: Mapping[str, Any], **faults: object) -> None:
    """From now on an engine has these faults besides those that it has."""
    loopback.post(f"{info['base_url']}/fake/faults", json=faults, timeout=HANG_GUARD_SECONDS).raise_for_status()


def fake_state(info: Mapping[str, Any]) -> Mapping[str, Any]:
    """What an engine counted."""
    return dict(loopback.get(f"{info['base_url']}/fake/state", timeout=HANG_GUARD_SECONDS).json())


def question(words: str = "one two three", **fields: object) -> Mapping[str, Any]:
    """A chat request. The fake engine repeats its words."""
    return {"model": "fake", "messages": [{"role": "user", "content": words}], **fields}


def ask(program: Program, **fields: object) -> httpx2.Response:
    """The answer to a question."""
    return loopback.post(f"{program.url}{CHAT}", json=question(**fields), timeout=HANG_GUARD_SECONDS)  # type: ignore[arg-type]


@attrs.define(eq=False)
class Listener:
    """A client in the middle of a stream."""

    response: httpx2.Response
    _lines: Iterator[str]
    events: list[str] = attrs.field(factory=list)
    broken: bool = False

    @property
    def engine(self) -> str:
        """The engine that answers."""
        return self.response.headers["x-stoker-engine"]

    def hear(self, count: int) -> None:
        """Read so many events more."""
        for _ in range(count):
            assert self._next(), f"it ended after {self.events}"

    def hear_out(self) -> None:
        """Read to the end, proper (then ``broken`` stays false) or not."""
        while self._next():
            pass

    @property
    def said_done(self) -> bool:
        """Whether it ended as an answer ends that is whole."""
        return self.events[-1:] == ["[DONE]"]

    @property
    def error(self) -> str:
        """What the last event says went wrong."""
        assert self.events, "it said nothing"
        error = json.loads(self.events[-1])["error"]
        return f"{error['code']}: {error['message']}"

    def _next(self) -> bool:
        try:
            for line in self._lines:
                if line:
                    self.events.append(line.removeprefix("data: "))
                    return True
        except httpx2.RemoteProtocolError:
            self.broken = True
        return False


@contextlib.contextmanager
def stream(program: Program, **fields: object) -> Iterator[Listener]:
    """A stream that has begun."""
    body = question(**{"stream": True, **fields})  # type: ignore[arg-type]
    with loopback.stream("POST", f"{program.url}{CHAT}", json=body, timeout=HANG_GUARD_SECONDS) as response:
        assert response.status_code == httpx2.codes.OK, response.read()
        yield Listener(response, response.iter_lines())


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Hold the block to a time that users are promised, and what a machine that is busy adds to it."""
    began = time.monotonic()
    yield
    took = time.monotonic() - began
    assert took <= seconds + BUSY_SECONDS, f"{what}: promised within {seconds:g} s, it took {took:.2f} s"


def resident_bytes(pid: int) -> int:
    """The memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")))


def descriptors(pid: int) -> int:
    """How many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
