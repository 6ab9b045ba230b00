"""Engines that answer, but not as they should: what a client is told, and that the gateway doesn't suffer from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests import loopback
from tests.e2e.running import HANG_GUARD_SECONDS, Program

from .fleet import CHAT, ask, change_faults, engine, fleet, info_of, question, resident_bytes, stream

MIB = 1024 * 1024
FAULTS: Mapping[str, tuple[Mapping[str, Any], int, str | None]] = {
    "500": ({"status": 500}, 500, None),  # it is in good health: the request may be to blame
    "429": ({"status": 429, "retry_after_seconds": 7}, 429, None),
    "503": ({"status": 503, "retry_after_seconds": 7}, 503, None),
    "garbage": ({"garbage": True}, 502, "engine_failed"),
    "a reset": ({"reset": True}, 502, "engine_failed"),
    "informational answers without an end": ({"informational": True}, 502, "engine_failed"),
    "100 KB of headers": ({"head_bytes": 110_000}, 502, "engine_failed"),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """One gateway with one engine, which outlives all its bad answers."""
    with fleet(tmp_path_factory.mktemp("badly"), engine(probe_failures=100)) as running:
        running.wait_until_ready(1)
        assert ask(running).status_code == httpx2.codes.OK
        yield running


@pytest.fixture
def info(program: Program) -> Iterator[Mapping[str, Any]]:
    """The engine; afterwards it is well again, and was never restarted, and the gateway has not grown."""
    info = info_of(program)
    before = resident_bytes(program.process.pid)
    yield info
    loopback.delete(f"{info['base_url']}/fake/faults").raise_for_status()
    assert ask(program).status_code == httpx2.codes.OK
    after = info_of(program)
    assert (after["state"], after["pid"], after["active_requests"]) == ("READY", info["pid"], 0)
    assert resident_bytes(program.process.pid) - before < 8 * MIB


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_client_is_told(program: Program, info: Mapping[str, Any], fault: str) -> None:
    faults, status, code = FAULTS[fault]
    change_faults(info, **faults)
    answer = ask(program, stream=code is None)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]
    if code is not None:
        assert answer.json()["error"]["code"] == code
    assert answer.headers.get("retry-after") == ("7" if "retry_after_seconds" in faults else None)


def test_half_an_answer_is_none(program: Program, info: Mapping[str, Any]) -> None:
    change_faults(info, half_answer=True)
    answer = ask(program)
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "engine_failed")
    assert "broke off its answer" in answer.json()["error"]["message"]


@pytest.mark.parametrize("fault", ["cut_after_chunks", "reset_after_chunks"])
def test_half_a_stream_ends_with_an_error_event(program: Program, info: Mapping[str, Any], fault: str) -> None:
    change_faults(info, **{fault: 3})
    with stream(program, max_tokens=20) as listener:
        listener.hear_out()
    assert listener.broken
    assert len(listener.events) == 3 + 1
    assert "in the middle of its answer" in listener.error


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_gzip_bomb_passes_without_being_opened(program: Program, info: Mapping[str, Any], streamed: bool) -> None:
    change_faults(info, bomb_bytes=256 * MIB)
    before = resident_bytes(program.process.pid)
    body = question(stream=streamed)
    with loopback.stream("POST", f"{program.url}{CHAT}", json=body, timeout=HANG_GUARD_SECONDS) as response:
        assert response.status_code == httpx2.codes.OK
        assert response.headers["content-encoding"] == "gzip"
        assert sum(map(len, response.iter_raw())) < MIB
    assert resident_bytes(program.process.pid) - before < 8 * MIB


def test_an_internal_error_of_an_engine_that_is_failing_is_answered_by_another(tmp_path: Path) -> None:
    sick = engine("--status", "500", label="sick", probe_interval_seconds=60)
    with fleet(tmp_path, sick, engine(label="well", max_concurrency=1)) as program:
        by_id = {info["engine_id"]: info for info in program.wait_until_ready(2)}
        change_faults(by_id["sick"], exit_after_requests=1)
        with stream(program, max_tokens=1):
            answer = ask(program)
        assert answer.status_code == httpx2.codes.OK
