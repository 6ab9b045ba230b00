"""Straight to the engines, while they come, fail and go: the same for every way of using a client.

Under load, ``test_soak.py`` does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import httpx2
import pytest

from stoker.client import ClientError, StreamInterrupted
from stoker.testing.engines import COMMAND
from tests.e2e.running import HANG_GUARD_SECONDS, Program, until
from tests.faults.fleet import change_faults, engine, fake_state, fleet, info_of, wait_for

from .conftest import Create

MODEL = [*COMMAND, "--port", "{port}", "--model", "{model}"]


@pytest.fixture(scope="module")
def crew(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """A gateway with two replicas of the model ``fake``."""
    folder = tmp_path_factory.mktemp("crew")
    settings = {"allow_commands_over_http": True, "policy": "round-robin"}
    with fleet(
        folder, engine(replicas=2, restart_limit=100), env={"STOKER_ENGINE_KEY": "the-engines-key"}, **settings
    ) as program:
        program.wait_until_ready(2)
        yield program


@pytest.fixture
def client(crew: Program, create: Create, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client that goes straight to the engines."""
    monkeypatch.setenv("STOKER_HOME", str(crew.home.path))
    with create(default_model="fake", direct=True) as client:
        yield client
    for engine_id in ("fake", "fake-2"):
        info = wait_for(crew, engine_id, state="READY")
        httpx2.delete(f"{info['base_url']}/fake/faults", timeout=HANG_GUARD_SECONDS, verify=False).raise_for_status()


def through_the_gateway(program: Program) -> int:
    """How many requests the gateway took so far."""
    page = httpx2.get(
        f"{program.url}/metrics", headers={"Authorization": f"Bearer {program.token}"}, timeout=60, verify=False
    ).text
    lines = [line for line in page.splitlines() if line.startswith("stoker_requests_total{")]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def heard(info: Any) -> list[dict[str, Any]]:
    """The requests that an engine got."""
    answer = httpx2.get(f"{info['base_url']}/fake/requests", timeout=HANG_GUARD_SECONDS, verify=False).json()
    return list(answer["requests"])


def test_the_gateway_has_nothing_to_do(crew: Program, client: Any) -> None:
    before = through_the_gateway(crew)
    engines = {client.chat("one two", max_tokens=2, return_result=True).engine for _ in range(6)}
    assert engines == {"fake", "fake-2"}
    assert list(client.chat("one two", max_tokens=2, stream=True)) == ["one", " two"]
    assert through_the_gateway(crew) == before
    for info in crew.engines():
        for request in heard(info):
            names = {name for name, _ in request["headers"]}
            assert not names & {"authorization", "cookie", "x-api-key"}


def test_requests_go_where_the_fewest_are(crew: Program, client: Any) -> None:
    for info in crew.engines():
        change_faults(info, token_seconds=0.05)
    with ExitStack() as streams:
        for _ in range(6):
            streams.enter_context(client.chat("hi", max_tokens=500, stream=True))
        assert [fake_state(info)["active"] for info in crew.engines()] == [3, 3]


def test_a_name_that_the_engine_does_not_know_is_exchanged(crew: Program, client: Any) -> None:
    url = info_of(crew)["base_url"]
    client.register_engine("fake", url, engine_id="renamed", names=["other-name"], wait=True)
    try:
        before = through_the_gateway(crew)
        until(lambda: client.chat("hi", model="other-name", return_result=True).engine == "renamed", "it is found")
        client.chat("hi", model="other-name")
        assert through_the_gateway(crew) <= before + 1
    finally:
        client.unregister_engine("renamed", wait=True)


def test_an_engine_that_wants_a_key_is_asked_by_the_gateway(crew: Program, client: Any) -> None:
    started = client.start_engine("locked", runtime="command", command=MODEL, wait=True)
    url = started.base_url
    try:
        client.register_engine(
            "fake", url, engine_id="keyed", names=["closed"], api_key_env="STOKER_ENGINE_KEY", wait=True
        )
    except BaseException:
        client.unregister_engine("locked", wait=True)
        raise
    try:
        before = through_the_gateway(crew)
        # The engine has another model than it was registered for: what matters is what it was sent.
        with pytest.raises(Exception, match="does not exist"):
            client.chat("hi", model="closed")
        assert through_the_gateway(crew) == before + 1
        [request] = heard({"base_url": url})
        assert ["authorization", "Bearer the-engines-key"] in request["headers"]
    finally:
        client.unregister_engine("keyed", wait=True)
        client.unregister_engine("locked", wait=True)


def test_a_stored_conversation_is_the_gateways(crew: Program, client: Any) -> None:
    before = through_the_gateway(crew)
    client.chat("hi", extra_body={"session_id": None})
    assert through_the_gateway(crew) == before
    with suppress(ClientError):  # what becomes of it is the gateway's affair
        client.chat("hi", session_id="s")
    assert through_the_gateway(crew) == before + 1


def test_one_that_is_stopped_gets_nothing_and_one_that_is_started_is_found(crew: Program, client: Any) -> None:
    client.chat("hi")
    client.stop_engine("fake-2", wait=True)
    try:
        for _ in range(5):
            assert client.chat("hi", return_result=True).engine == "fake"
    finally:
        assert crew.manage("POST", "/engines/fake-2/start?wait=ready").status_code == 200
    until(lambda: client.chat("hi", return_result=True).engine == "fake-2", "it is used again", 10)
    client.start_engine("fake", label="third", runtime="command", command=MODEL, wait=True)
    try:
        until(lambda: client.chat("hi", return_result=True).engine == "third", "the new one is used", 10)
    finally:
        client.unregister_engine("third", wait=True)


@pytest.mark.parametrize(
    "fault",
    [{"status": 503}, {"status": 502}, {"reset": True}, {"half_answer": True}, {"garbage": True}],
    ids=lambda fault: "-".join(map(str, *fault.items())),
)
def test_what_one_can_not_answer_another_does(crew: Program, client: Any, fault: dict[str, Any]) -> None:
    change_faults(info_of(crew, "fake"), **fault)
    for _ in range(4):
        assert client.chat("one two", max_tokens=2) == "one two"


@pytest.mark.parametrize("status", [404, 500])
def test_what_may_be_the_requests_fault_is_for_the_gateway_to_judge(crew: Program, client: Any, status: int) -> None:
    for info in crew.engines():
        change_faults(info, status=status)
    before = through_the_gateway(crew)
    with pytest.raises(ClientError) as caught:
        client.chat("hi")
    assert caught.value.status == status
    assert through_the_gateway(crew) == before + 1


@pytest.mark.parametrize("fault", [{"status": 502}, {"reset_after_chunks": 0}, {"error_after_chunks": 0}], ids=str)
def test_a_stream_that_has_not_begun_begins_elsewhere(crew: Program, client: Any, fault: dict[str, Any]) -> None:
    change_faults(info_of(crew, "fake"), **fault)
    for _ in range(4):
        stream = client.chat("one two", max_tokens=2, stream=True)
        assert list(stream) == ["one", " two"]
        assert stream.engine == "fake-2"


def test_a_stream_that_has_begun_is_interrupted(crew: Program, client: Any) -> None:
    for info in crew.engines():
        change_faults(info, reset_after_chunks=3)
    with pytest.raises(StreamInterrupted) as caught:
        list(client.chat("one two three", max_tokens=9, stream=True))
    assert caught.value.engine in ("fake", "fake-2")
