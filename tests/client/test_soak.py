"""Many who go straight to the engines, while those are killed, freeze, stop, come and go, and the gateway restarts.

With ``STOKER_SOAK=1`` it takes minutes: more callers, dozens of kills, and all three ways of using a client.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import attrs
import httpx2
import pytest

from stoker import UnifiedInferenceClient
from stoker.testing.engines import COMMAND, fake_engine_env
from tests.e2e.running import Program, until
from tests.faults.fleet import QUICK, engine, fleet, served_by_somebody_else, wait_for

from .conftest import WAYS, ways_to_create

FULL = os.environ.get("STOKER_SOAK") == "1"
SECONDS_PER_CALL = 60.0
MODEL = [*COMMAND, "--port", "{port}", "--model", "{model}"]
REPLICAS = ("fake", "fake-2", "fake-3")
THINKS = ("--first-token-seconds", "0.05")  # so that a kill strikes those who wait


@attrs.frozen
class Load:
    """How many ask, how often all that may happen to engines happens, and about how long it is until the next kill."""

    callers: int
    rounds: int
    kill_seconds: float


LOAD = Load(32, 50, 1.0) if FULL else Load(12, 1, 0.8)


@attrs.define(eq=False)
class Callers:
    """Threads that ask one question after the other, and hold every answer to it."""

    client: Any
    over: threading.Event = attrs.field(factory=threading.Event)
    answered: Counter[str] = attrs.field(factory=Counter)
    lost: list[str] = attrs.field(factory=list)
    longest_seconds: float = 0.0
    _lock: threading.Lock = attrs.field(factory=threading.Lock)

    @contextmanager
    def asking(self, count: int) -> Iterator[None]:
        """They ask until the block is left, and hear out what they asked for last."""
        with ThreadPoolExecutor(count) as pool:
            futures = [pool.submit(self._ask_on, number) for number in range(count)]
            try:
                yield
            finally:
                self.over.set()
        for future in futures:
            future.result()

    def more(self, count: int, what: str) -> None:
        """Wait for so many answers more."""
        enough = self.answered.total() + count
        until(lambda: self.answered.total() >= enough or self.lost, f"{count} more answers {what}")

    def _ask_on(self, number: int) -> None:
        while not self.over.is_set():
            began = time.monotonic()
            try:
                result = self.client.chat(f"one {number}", max_tokens=2, return_result=True, timeout=SECONDS_PER_CALL)
            except Exception as error:  # noqa: BLE001 - each counts, whatever it is
                self._lose(f"{type(error).__name__}: {error}")
                continue
            took = time.monotonic() - began
            if result.content != f"one {number}":
                self._lose(f"{result.content!r} is not the answer to {number}")
            with self._lock:
                self.answered[result.engine] += 1
                self.longest_seconds = max(self.longest_seconds, took)

    def _lose(self, what: str) -> None:
        with self._lock:
            self.lost.append(f"at {time.strftime('%T')}: {what}")


@attrs.define(eq=False)
class Trouble:
    """All that happens to the engines. ``done`` counts it."""

    program: Program
    manager: UnifiedInferenceClient
    chance: random.Random
    somebody_elses_url: str
    done: Counter[str] = attrs.field(factory=Counter)

    def strike_until(self, over: threading.Event) -> None:
        """Kill or freeze one engine after the other; a frozen one is found out, or thaws."""
        ways = [self._kill, self._freeze, self._kill, self._hiccup]
        while not over.is_set():
            for way in ways:
                if not over.wait(self.chance.uniform(0, 2 * LOAD.kill_seconds)):
                    way(over)

    def deeds(self) -> list[Callable[[Callers], None]]:
        """What is asked of the gateway."""
        return [self._stop_and_start, self._register, self._add, self._restart]

    def restart_gateway(self) -> None:
        """In place, as its user does it."""
        done = subprocess.run(
            [sys.executable, "-m", "stoker", "gateway", "restart"],
            env={**os.environ, **fake_engine_env(), "STOKER_HOME": str(self.program.home.path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        self.done["gateway restarts"] += 1

    def _signal_any(self, number: signal.Signals) -> int | None:
        with suppress(httpx2.HTTPError):  # the gateway restarts
            ready = [info["pid"] for info in self.program.engines() if info["state"] == "READY" and info["pid"]]
            if ready and self.program.signal_engine(pid := self.chance.choice(ready), number):
                return int(pid)
        return None

    def _kill(self, _over: threading.Event) -> None:
        self.done["SIGKILL"] += self._signal_any(signal.SIGKILL) is not None

    def _freeze(self, _over: threading.Event) -> None:
        self.done["SIGSTOP"] += self._signal_any(signal.SIGSTOP) is not None

    def _hiccup(self, over: threading.Event) -> None:
        pid = self._signal_any(signal.SIGSTOP)
        if pid is not None:
            over.wait(0.3)
            self.program.signal_engine(pid, signal.SIGCONT)
            self.done["hiccups"] += 1

    def _stop_and_start(self, callers: Callers) -> None:
        chosen = self.chance.choice(REPLICAS)
        self.manager.stop_engine(chosen, wait=True)
        callers.more(5, "while one is stopped")
        self.program.manage("POST", f"/engines/{chosen}/start").raise_for_status()
        self.done["stops with drain"] += 1

    def _register(self, callers: Callers) -> None:
        self.manager.register_engine("fake", self.somebody_elses_url, engine_id="elsewhere", wait=True)
        before = callers.answered["elsewhere"]
        until(lambda: callers.answered["elsewhere"] > before or callers.lost, "one that was registered is used")
        self.manager.unregister_engine("elsewhere", wait=True)
        self.done["registrations"] += 1

    def _add(self, callers: Callers) -> None:
        self.manager.start_engine("fake", label="added", runtime="command", command=MODEL, restart_limit=1000, **QUICK)
        before = callers.answered["added"]
        until(lambda: callers.answered["added"] > before or callers.lost, "one that was added is used")
        self.manager.unregister_engine("added", drain=self.chance.random() < 0.5, wait=True)
        self.done["additions"] += 1

    def _restart(self, callers: Callers) -> None:
        chosen = self.chance.choice(REPLICAS)
        self.program.manage("POST", f"/engines/{chosen}/restart").raise_for_status()
        callers.more(5, "while one restarts")
        self.done["restarts"] += 1


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A gateway with three replicas of the model ``fake``."""
    one = engine(*THINKS, replicas=3, restart_limit=1000, healthy_seconds=1, stall_seconds=3)
    with fleet(tmp_path_factory.mktemp("crew"), one, allow_commands_over_http=True) as program:
        program.wait_until_ready(3)
        yield program


@pytest.mark.parametrize("way", WAYS if FULL else ("blocking", "trio"))
def test_no_request_is_lost_whatever_happens_to_engines_and_gateway(
    crew: Program, way: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STOKER_HOME", str(crew.home.path))
    seed = int(os.environ.get("STOKER_SOAK_SEED") or random.randrange(10**6))
    began = time.monotonic()
    with (
        served_by_somebody_else(*THINKS) as url,
        UnifiedInferenceClient.create() as manager,
        ways_to_create(way)(default_model="fake", direct=True) as client,
        ThreadPoolExecutor(1) as vandals,
    ):
        callers = Callers(client)
        trouble = Trouble(crew, manager, random.Random(seed), url)
        deeds = trouble.deeds() * LOAD.rounds
        with callers.asking(LOAD.callers):
            callers.more(LOAD.callers, "before anything happens")
            striking = vandals.submit(trouble.strike_until, callers.over)
            for number, deed in enumerate(deeds):
                if number == len(deeds) // 2:
                    trouble.restart_gateway()
                deed(callers)
            until(lambda: trouble.done["SIGKILL"] and trouble.done["SIGSTOP"], "one was killed, and one froze")
            callers.more(LOAD.callers, "after it")
        striking.result()
    for engine_id in REPLICAS:
        wait_for(crew, engine_id, state="READY")
    figures = (
        f"soak of the {way} client: STOKER_SOAK_SEED={seed}, {time.monotonic() - began:.0f} s, "
        f"{callers.answered.total()} answers {dict(callers.answered)}, {len(callers.lost)} lost, the longest took "
        f"{callers.longest_seconds:.1f} s; {dict(trouble.done)}"
    )
    if FULL:
        with capsys.disabled():
            print(f"\n{figures}")  # noqa: T201 - the figures
    assert not callers.lost, "\n".join([figures, *callers.lost[:20]])
