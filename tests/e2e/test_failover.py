"""An engine is killed under load: a second replica answers, and nobody notices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event

import httpx2
import pytest

from stoker.home import Home

from .running import Program, running, until

pytestmark = pytest.mark.e2e

CONFIG = """
[gateway]
listen = "127.0.0.1:0"

[[engine]]
model = "HuggingFaceTB/SmolLM2-135M-Instruct"
names = ["smollm2"]
runtime = "embedded"
replicas = 2
restart_base_seconds = 0.2
"""
BODY = {"model": "smollm2", "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 6}


def ask_until(done: Event, program: Program, answers: list[tuple[int, str]]) -> None:
    """Ask again and again, and note the status of every answer and what was wrong with it."""
    with httpx2.Client(base_url=program.url, timeout=60) as client:
        while not done.is_set():
            try:
                answer = client.post("/v1/chat/completions", json=BODY)
                answers.append((answer.status_code, answer.text if answer.status_code != httpx2.codes.OK else ""))
            except httpx2.HTTPError as error:
                answers.append((0, repr(error)))


def test_an_engine_killed_under_load_costs_no_request_and_is_replaced(
    pyz: Path, embedded_home: Home, tmp_path: Path
) -> None:
    config = tmp_path / "stoker.toml"
    config.write_text(CONFIG)
    with running(pyz, embedded_home, "up", "-c", str(config)) as program, ThreadPoolExecutor(4) as pool:
        program.wait_until_ready(2)
        done = Event()
        answers: list[tuple[int, str]] = []
        try:
            for _ in range(4):
                pool.submit(ask_until, done, program, answers)
            for number in range(2):
                victim = program.engines()[number]
                until(partial(_is_asked, program, number), "the victim has requests in flight")
                assert program.signal_engine(victim["pid"])
                until(partial(_restarted, program, number), "the victim is replaced")
                enough = len(answers) + 8
                until(lambda: len(answers) >= enough, "requests go on being answered")  # noqa: B023 - waits right here
        finally:
            done.set()
    assert [answer for answer in answers if answer[0] != httpx2.codes.OK] == []


def _is_asked(program: Program, number: int) -> bool:
    return bool(program.engines()[number]["active_requests"])


def _restarted(program: Program, number: int) -> bool:
    engine = program.engines()[number]
    return bool(engine["state"] == "READY" and engine["restarts"] > 0)
