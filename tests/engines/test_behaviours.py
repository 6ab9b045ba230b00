"""What Stoker promises of every engine, tried on each real one that is installed."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from stoker.testing import engines_contract as contract
from stoker.testing.engines_contract import Check
from tests import loopback
from tests.e2e.running import until

from .serving import SECONDS, Served, left_of, tree, until_cut

NOT_THROUGH_A_GATEWAY = {contract.check_disconnect_cancels}  # it reads the engine's own metrics; see below
CHAT_CHECKS = [check for check in contract.CHAT_CHECKS if check not in NOT_THROUGH_A_GATEWAY]


def name_of(check: Check) -> str:
    return str(getattr(check, "__name__", check))


def test_both_engines_are_ready_and_listed(served: Served) -> None:
    models = loopback.get(f"{served.program.url}/v1/models").json()["data"]
    assert {"chat", "embed"} <= {name for model in models for name in (model["id"], *model.get("aliases", ()))}
    assert {engine["state"] for engine in served.program.engines()} == {"READY"}


@pytest.mark.parametrize("check", CHAT_CHECKS, ids=name_of)
async def test_chat_is_answered_as_the_contract_says(served: Served, check: Check) -> None:
    await check(served.program.url, "chat")


@pytest.mark.parametrize("check", contract.EMBEDDING_CHECKS, ids=name_of)
async def test_embeddings_are_answered_as_the_contract_says(served: Served, check: Check) -> None:
    await check(served.program.url, "embed")


def test_vectors_have_their_length(served: Served) -> None:
    body = {"model": "embed", "input": ["one", "two"]}
    vectors = loopback.post(f"{served.program.url}/v1/embeddings", json=body, timeout=SECONDS).json()["data"]
    assert [len(each["embedding"]) for each in vectors] == [served.family.dimensions] * 2


def test_a_model_is_not_asked_for_what_it_does_not_do(served: Served) -> None:
    answer = loopback.post(f"{served.program.url}/v1/embeddings", json={"model": "chat", "input": "x"}, timeout=SECONDS)
    assert answer.status_code >= 400
    assert answer.json()["error"]["message"]


def test_its_own_metrics_are_shown(served: Served) -> None:
    with served.streaming(served.family.long_tokens):
        shown = until(lambda: served.engine("chat")["load"], "the load of the engine is read")
        assert set(shown) == {"running", "waiting", "kv_cache_used", "progress"}
        until(lambda: served.engine("chat")["load"]["running"] >= 1, "the running request is seen")
    until(lambda: served.engine("chat")["load"]["running"] == 0, "its end is seen")


def test_a_client_that_leaves_ends_the_engines_work(served: Served) -> None:
    with served.streaming(served.family.long_tokens):
        assert served.running_requests("chat") > 0
    until(lambda: served.running_requests("chat") == 0, "the engine is idle again", contract.CANCEL_SECONDS)


def test_a_stop_lets_a_stream_end_and_takes_no_more_requests(served: Served) -> None:
    before = served.processes_of("chat")
    with served.streaming(200) as events:
        stop = served.program.manage("POST", "/engines/chat/stop")
        assert stop.json()["state"] == "DRAINING"
        refused = served.chat()
        rest = list(events)
    assert refused.status_code == 503, refused.text
    assert rest[-1] == "[DONE]"
    assert not [event for event in rest[:-1] if "error" in json.loads(event)]
    served.wait_for("chat", "STOPPED")
    assert before
    assert not left_of(before)
    served.program.manage("POST", "/engines/chat/restart")
    served.wait_for("chat", "READY")


def test_an_engine_killed_in_mid_stream_is_told_cleared_away_and_replaced(served: Served) -> None:
    before = served.engine("chat")
    old = served.processes_of("chat")
    with served.streaming(served.family.long_tokens) as events:
        os.kill(before["pid"], signal.SIGKILL)
        rest = until_cut(events)
    assert "error" in json.loads(rest[-1]), "the stream ends with an error, and not as if it were whole"
    after = until(functools.partial(_replaced, served, before["pid"]), "another one", served.family.start_seconds)
    assert after["restarts"] == before["restarts"] + 1
    assert "signal 9" in (after["last_exit"] or "")
    assert before["pid"] in [entry.pid for entry in old]
    assert not left_of(old), tree(before["pid"])
    assert served.chat().status_code == httpx2.codes.OK


def _replaced(served: Served, pid: int) -> Mapping[str, Any] | None:
    engine = served.engine("chat")
    return engine if engine["state"] == "READY" and engine["pid"] != pid else None


def test_the_end_of_stoker_leaves_nothing(served: Served) -> None:
    """The last one: it ends the gateway that the others share."""
    everything = served.program.processes()
    ports = [engine["port"] for engine in served.program.engines()]
    assert len(everything) >= 2
    served.program.signal(signal.SIGINT)
    assert served.program.wait() == 0
    assert not left_of(everything)
    for port in ports:
        with pytest.raises(httpx2.ConnectError):
            loopback.get(f"http://127.0.0.1:{port}/health")
