"""Engines that are alive and do nothing: stopped by a signal, or healthy and silent."""

from __future__ import annotations

import contextlib
import json
import signal
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

from tests.e2e.running import Program, until

from .fleet import ask, change_faults, engine, fleet, remote, served_by_somebody_else, stream, wait_for

ENDLESS = 100_000


def test_an_idle_engine_that_is_stopped_by_a_signal_is_replaced_after_three_probes(tmp_path: Path) -> None:
    with fleet(tmp_path, engine(), engine(label="other")) as program:
        by_id = {info["engine_id"]: info for info in program.wait_until_ready(2)}
        frozen = by_id["fake"]["pid"]
        assert program.signal_engine(frozen, signal.SIGSTOP)
        until(lambda: "fake ERROR" in program.output.read_text(), "it is found frozen")
        assert "3 probes in a row failed, the last with: /health did not answer within 0.5 s" in (
            program.output.read_text()
        )
        assert ask(program).headers["x-stoker-engine"] == "other"
        after = wait_for(program, "fake", state="READY", restarts=1)
        assert after["pid"] != frozen
        assert frozen not in {entry.pid for entry in program.processes()}


def test_a_busy_engine_that_is_stopped_by_a_signal_is_replaced_after_the_stall_limit(tmp_path: Path) -> None:
    with fleet(tmp_path, engine("--token-seconds", "0.02", stall_seconds=1)) as program:
        [before] = program.wait_until_ready(1)
        with stream(program, max_tokens=ENDLESS) as listener:
            listener.hear(3)
            assert program.signal_engine(before["pid"], signal.SIGSTOP)
            listener.hear_out()
        assert listener.broken
        assert "in the middle of its answer" in listener.error
        after = wait_for(program, state="READY", restarts=1, active_requests=0)
        assert after["pid"] != before["pid"]
        assert "no progress for 1 s; a one-token request failed too (no answer within 2 s)" in after["last_error"]
        assert ask(program).status_code == httpx2.codes.OK


def is_kept_as_ready(program: Program) -> bool:
    """Whether a next Stoker would know that the one engine was READY."""
    with contextlib.closing(sqlite3.connect(program.home.state)) as connection:
        return bool(json.loads(connection.execute("SELECT run FROM engines").fetchone()[0])["ready"])


def test_one_that_is_frozen_when_a_new_stoker_finds_it_is_replaced_after_the_stall_limit(tmp_path: Path) -> None:
    """It was taken for one that starts, and had all the time for that: what it held hung on it so long."""
    config = engine(stall_seconds=1)
    with fleet(tmp_path, config) as first:
        [before] = first.wait_until_ready(1)
        until(lambda: is_kept_as_ready(first), "it is kept that it was READY")
        assert first.signal_engine(before["pid"], signal.SIGSTOP)
        first.signal(signal.SIGKILL)
        first.wait()
        with fleet(tmp_path, config) as second:
            after = wait_for(second, state="READY", restarts=1)
            assert after["pid"] != before["pid"]
            assert before["pid"] not in {entry.pid for entry in second.processes()}


def test_an_engine_that_is_healthy_and_produces_nothing_is_replaced_after_the_stall_limit(tmp_path: Path) -> None:
    with fleet(tmp_path, engine("--token-seconds", "0.02", stall_seconds=1)) as program:
        [before] = program.wait_until_ready(1)
        change_faults(before, stall_after_chunks=3, hang=False)
        with stream(program, max_tokens=ENDLESS) as listener:
            listener.hear(3)
            change_faults(before, hang=True)
            listener.hear_out()
        assert "[DONE]" not in listener.events
        assert "in the middle of its answer" in listener.error
        after = wait_for(program, state="READY", restarts=1)
        assert "1 requests in flight and no progress for 1 s" in after["last_error"]
        assert ask(program).status_code == httpx2.codes.OK


def test_what_an_engine_that_is_only_a_url_holds_fails_after_the_stall_limit(tmp_path: Path) -> None:
    """Nobody can end such an engine, and its streams never ended."""
    with served_by_somebody_else() as url, fleet(tmp_path, remote(url, label="theirs", stall_seconds=1)) as program:
        [before] = program.wait_until_ready(1)
        change_faults(before, stall_after_chunks=3)
        with stream(program, max_tokens=ENDLESS) as listener, ThreadPoolExecutor() as executor:
            listener.hear(3)
            change_faults(before, hang=True)
            waiting = executor.submit(ask, program)
            listener.hear_out()
            refusal = waiting.result()
        assert listener.broken
        assert "in the middle of its answer: 2 requests in flight and no progress for 1 s" in listener.error
        assert refusal.status_code == httpx2.codes.BAD_GATEWAY
        assert refusal.json()["error"]["code"] == "engine_failed"
        after = wait_for(program, "theirs", state="ERROR", active_requests=0)
        assert "a one-token request failed too" in after["last_error"]
        change_faults(before, hang=False, stall_after_chunks=None)
        wait_for(program, "theirs", state="READY")
        assert ask(program).status_code == httpx2.codes.OK


def test_an_engine_that_is_slow_but_moves_is_left_alone(tmp_path: Path) -> None:
    """Busy is not dead: tokens come, though rarely, and meanwhile the health path hangs."""
    with fleet(tmp_path, engine("--token-seconds", "0.4", stall_seconds=1)) as program:
        [before] = program.wait_until_ready(1)
        with stream(program, max_tokens=8) as listener:
            listener.hear(1)
            change_faults(before, health_hangs=True)
            listener.hear_out()
            assert listener.said_done
            change_faults(before, health_hangs=False)
        after = wait_for(program, state="READY")
        assert (after["pid"], after["restarts"]) == (before["pid"], 0)
