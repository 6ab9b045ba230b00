"""The gateway's events are listened to again when it was gone: nothing else tells of new engines here."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from stoker.client import discovery
from stoker.testing.engines import COMMAND
from tests.e2e.running import Program, until
from tests.faults.fleet import QUICK, engine, fleet

from .conftest import WAYS, ways_to_create

AT_ONCE_SECONDS = 10  # on a busy machine
MODEL = [*COMMAND, "--port", "{port}", "--model", "{model}"]


def add(program: Program, label: str) -> None:
    """One more engine, READY when this returns."""
    spec = {"model": "fake", "label": label, "runtime": "command", "command": MODEL, **QUICK}
    answer = program.manage("POST", "/engines/start?wait=ready", spec)
    assert answer.json()["state"] == "READY", answer.text


def who_answers(client: Any) -> str:
    return str(client.chat("one", max_tokens=1, return_result=True).engine)


def is_answered_by(client: Any, label: str) -> bool:
    return who_answers(client) == label


def test_new_engines_are_found_at_once_after_a_restart_in_place_and_after_a_new_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those that there are, are used on while the gateway is gone."""
    monkeypatch.setattr(discovery, "REFRESH_SECONDS", 1e9)  # nobody asks, but for those who are told
    with ExitStack() as stack:
        first = stack.enter_context(fleet(tmp_path, engine(), allow_commands_over_http=True))
        first.wait_until_ready(1)
        monkeypatch.setenv("STOKER_HOME", str(first.home.path))
        clients = [stack.enter_context(ways_to_create(way)(default_model="fake", direct=True)) for way in WAYS]

        def found_by_all(label: str) -> None:
            for client in clients:
                until(partial(is_answered_by, client, label), f"{label} is used", AT_ONCE_SECONDS)

        assert [who_answers(client) for client in clients] == ["fake"] * len(WAYS)
        add(first, "before")
        found_by_all("before")
        assert first.manage("POST", "/gateway/restart").status_code == httpx2.codes.ACCEPTED
        until(lambda: first.output.read_text().count(" answers at ") == 2, "it has restarted")
        first.wait_until_ready(2)
        add(first, "restarted")
        found_by_all("restarted")

        first.signal(signal.SIGKILL)
        first.wait()
        for client in clients:
            assert {who_answers(client) for _ in range(6)} == {"fake", "before", "restarted"}
        address = f"127.0.0.1:{urlsplit(first.url).port}"
        second = stack.enter_context(fleet(tmp_path, engine(), listen=address, allow_commands_over_http=True))
        second.wait_until_ready(3)
        add(second, "anew")
        found_by_all("anew")
