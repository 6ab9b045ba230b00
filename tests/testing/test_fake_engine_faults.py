"""The fake engine goes wrong exactly as it is told to."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import httpx2
import pytest
import trio

from stoker.testing.engines import COMMAND, RunningFakeEngine, fake_engine_env, open_fake_engine
from stoker.testing.fake_engine.__main__ import build_parser
from stoker.testing.fake_engine.faults import Faults, UnknownFault

CHAT: dict[str, Any] = {"model": "fake", "messages": [{"role": "user", "content": "one two three"}], "max_tokens": 5}
ALL_EVENTS = 8  # a role, five tokens, the reason to end, [DONE]


@pytest.fixture
async def engine() -> AsyncIterator[RunningFakeEngine]:
    async with open_fake_engine() as running:
        yield running


@pytest.fixture
async def client(engine: RunningFakeEngine) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=engine.base_url, trust_env=False, verify=False, timeout=20) as made:
        yield made


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(20):
        while not await condition():
            await trio.sleep(0.01)


async def has_counted(engine: RunningFakeEngine, name: str, count: int) -> None:
    async def counted() -> bool:
        return bool((await engine.state())[name] == count)

    await eventually(counted)


async def ended(engine: RunningFakeEngine) -> int:
    with trio.fail_after(20):
        return await engine.process.wait()


def run_to_its_end(*flags: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **fake_engine_env()}
    return subprocess.run([*COMMAND, *flags], env=env, capture_output=True, text=True, timeout=20, check=False)


async def events_of(client: httpx2.AsyncClient) -> tuple[list[str], Exception | None]:
    """The events of a stream, and how it broke if it did."""
    events: list[str] = []
    try:
        async with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
            async for line in answer.aiter_lines():
                if line:
                    events.append(line.removeprefix("data: "))  # noqa: PERF401 - what came before it broke counts
    except httpx2.TransportError as broke:
        return events, broke
    return events, None


# At the start


def test_it_exits_at_once_with_its_last_words() -> None:
    ran = run_to_its_end("--exit-at-start", "7", "--message", "CUDA out of memory")
    assert (ran.returncode, ran.stderr, ran.stdout) == (7, "CUDA out of memory\n", "")


def test_a_flag_that_is_no_fault_is_refused_by_name() -> None:
    ran = run_to_its_end("--explode")
    assert ran.returncode == 2
    assert "unrecognized arguments: --explode" in ran.stderr


def test_a_value_that_can_not_be_is_refused_with_the_fault_it_is_for() -> None:
    ran = run_to_its_end("--die-after-chunks", "soon")
    assert ran.returncode == 2
    assert "fault 'die_after_chunks' must be a whole number, not 'soon'" in ran.stderr


def test_a_port_that_is_taken_ends_it_with_the_reason() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ran = run_to_its_end("--port", str(port))
    assert ran.returncode == 1
    assert f"can't listen on 127.0.0.1:{port}: [Errno 98] Address already in use" in ran.stderr


@pytest.mark.parametrize("field", attrs.fields(Faults), ids=lambda field: field.name)
def test_every_fault_can_be_told_by_flags(field: Any) -> None:
    values: dict[type, object] = {bool: True, float: 1.5, str: "words of its own", type(None): 3}
    faults = Faults().changed({field.name: values[type(field.default)]})
    assert faults != Faults()
    options = build_parser().parse_args(list(faults.flags()))
    assert Faults().changed({one.name: getattr(options, one.name) for one in attrs.fields(Faults)}) == faults


def test_an_unknown_fault_is_answered_with_those_there_are() -> None:
    with pytest.raises(UnknownFault, match="there is no fault 'explode'; there are: start_delay_seconds, exit_at"):
        Faults().changed({"explode": True})


async def test_processes_it_leaves_outlive_it_each_where_it_was_told() -> None:
    faults = Faults(child=True, setsid_grandchild=True, double_fork=True)
    async with open_fake_engine(faults=faults) as engine:
        child, middle, grandchild, daemon = (await engine.state())["children"]
        sessions = [os.getsid(pid) for pid in (child, middle, grandchild, daemon)]
        assert sessions == [engine.pid, engine.pid, grandchild, daemon]
        parents = [parent_of(pid) for pid in (child, middle, grandchild)]
        assert parents == [engine.pid, engine.pid, middle]
        assert parent_of(daemon) not in {engine.pid, middle}
        engine.kill()
        assert await ended(engine) == -signal.SIGKILL
        assert not any(is_gone(pid) for pid in (child, middle, grandchild, daemon))

    async def all_are_gone() -> bool:
        return all(is_gone(pid) for pid in (child, middle, grandchild, daemon))

    await eventually(all_are_gone)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def is_gone(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


# Health and signals


async def test_it_loads_before_it_is_healthy() -> None:
    async with open_fake_engine(faults=Faults(never_ready=True)) as engine, httpx2.AsyncClient(verify=False) as client:
        assert (await client.get(f"{engine.base_url}/health")).status_code == 503
        await engine.clear_faults()
        assert (await client.get(f"{engine.base_url}/health")).status_code == 200
        await engine.change_faults(health_fails=True)
        assert (await client.get(f"{engine.base_url}/health")).status_code == 500


async def test_health_can_hang_while_requests_are_answered(
    engine: RunningFakeEngine, client: httpx2.AsyncClient
) -> None:
    await engine.change_faults(health_hangs=True)
    with pytest.raises(httpx2.ReadTimeout):
        await client.get("/health", timeout=0.1)
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_sigterm_ends_it_with_code_0(engine: RunningFakeEngine) -> None:
    engine.process.terminate()
    assert await ended(engine) == 0


async def test_it_does_not_outlive_the_test_that_started_it(engine: RunningFakeEngine) -> None:
    assert engine.process.stdin is not None
    await engine.process.stdin.aclose()
    assert await ended(engine) == 0


async def test_sigterm_can_be_ignored(engine: RunningFakeEngine) -> None:
    await engine.change_faults(ignore_sigterm=True)
    for count in (1, 2):
        engine.process.terminate()
        await has_counted(engine, "sigterms", count)


async def test_the_first_sigterm_can_be_lost(engine: RunningFakeEngine) -> None:
    await engine.change_faults(lose_first_sigterm=True)
    engine.process.terminate()
    await has_counted(engine, "sigterms", 1)
    engine.process.terminate()
    assert await ended(engine) == 0


async def test_sigterm_can_wait_for_as_long_as_a_client_stays(
    engine: RunningFakeEngine, client: httpx2.AsyncClient
) -> None:
    await engine.change_faults(sigterm_waits=True, stall_after_chunks=1)
    async with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}):
        engine.process.terminate()
        await has_counted(engine, "sigterms", 1)
        assert engine.process.poll() is None
    assert await ended(engine) == 0


async def test_it_refuses_connections_until_sigusr1(engine: RunningFakeEngine) -> None:
    await engine.change_faults(refuse_connections=True)
    await eventually(lambda: refuses(engine.port))
    engine.process.send_signal(signal.SIGUSR1)

    async def accepts() -> bool:
        return not await refuses(engine.port)

    await eventually(accepts)
    assert (await engine.state())["faults"]["refuse_connections"] is False


async def refuses(port: int) -> bool:
    try:
        connection = await trio.open_tcp_stream("127.0.0.1", port)
    except OSError:
        return True
    await connection.aclose()
    return False


# Requests


async def test_it_answers_with_the_status_it_is_told(engine: RunningFakeEngine, client: httpx2.AsyncClient) -> None:
    await engine.change_faults(status=429, retry_after_seconds=3)
    answer = await client.post("/v1/chat/completions", json=CHAT)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["message"] == "told to fail"


async def test_faults_can_strike_the_first_requests_only(engine: RunningFakeEngine, client: httpx2.AsyncClient) -> None:
    await engine.change_faults(status=503, first_requests=2)
    answers = [(await client.post("/v1/chat/completions", json=CHAT)).status_code for _ in range(3)]
    assert answers == [503, 503, 200]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"reset": True}, httpx2.ReadError),
        ({"garbage": True}, httpx2.RemoteProtocolError),
        ({"half_answer": True}, httpx2.RemoteProtocolError),
        ({"hang": True}, httpx2.ReadTimeout),
    ],
    ids=str,
)
async def test_an_answer_can_break(
    engine: RunningFakeEngine, client: httpx2.AsyncClient, fault: dict[str, object], error: type[Exception]
) -> None:
    await engine.change_faults(**fault)
    with pytest.raises(error):
        await client.post("/v1/chat/completions", json=CHAT, timeout=0.5)
    await engine.clear_faults()
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200


async def test_informational_answers_can_come_without_an_end(engine: RunningFakeEngine) -> None:
    await engine.change_faults(informational=True)
    body = json.dumps(CHAT).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", engine.port) as stream:
        await stream.send_all(head.encode() + body)
        answers = b""
        while len(answers) < 1_000_000:
            answers += await stream.receive_some()
    assert set(answers.split(b"\r\n")[:-3]) == {b"HTTP/1.1 103 Early Hints", b"link: </a>", b""}


async def test_an_answer_can_be_a_gzip_bomb(engine: RunningFakeEngine, client: httpx2.AsyncClient) -> None:
    await engine.change_faults(bomb_bytes=5_000_000)
    async with client.stream("POST", "/v1/chat/completions", json=CHAT) as response:
        small = b"".join([piece async for piece in response.aiter_raw()])
    assert len(small) < 20_000
    assert gzip.decompress(small) == bytes(5_000_000)


async def test_the_head_of_an_answer_can_be_too_big(engine: RunningFakeEngine) -> None:
    await engine.change_faults(head_bytes=100_000)
    async with await trio.open_tcp_stream("127.0.0.1", engine.port) as connection:
        await connection.send_all(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 14\r\n")
        await connection.send_all(b'Connection: close\r\n\r\n{"prompt":"a"}')
        received = b"".join([piece async for piece in connection])
    assert len(received.partition(b"\r\n\r\n")[0]) > 100_000


async def test_it_exits_with_code_0_after_so_many_answers(
    engine: RunningFakeEngine, client: httpx2.AsyncClient
) -> None:
    await engine.change_faults(exit_after_requests=2)
    for _ in range(2):
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    assert await ended(engine) == 0


# Streams


@pytest.mark.parametrize(("fault", "code"), [("die_after_chunks", -signal.SIGKILL), ("exit_after_chunks", 0)])
async def test_it_dies_in_mid_stream(
    engine: RunningFakeEngine, client: httpx2.AsyncClient, fault: str, code: int
) -> None:
    await engine.change_faults(**{fault: 3})
    events, broke = await events_of(client)
    assert len(events) == 3
    assert isinstance(broke, httpx2.TransportError)
    assert await ended(engine) == code


async def test_a_stream_can_be_reset_after_its_head(engine: RunningFakeEngine, client: httpx2.AsyncClient) -> None:
    await engine.change_faults(reset_after_chunks=0)
    events, broke = await events_of(client)
    assert (events, type(broke)) == ([], httpx2.ReadError)


async def test_a_stream_can_be_cut_in_the_middle_of_an_event(
    engine: RunningFakeEngine, client: httpx2.AsyncClient
) -> None:
    await engine.change_faults(cut_after_chunks=2)
    async with await trio.open_tcp_stream("127.0.0.1", engine.port) as connection:
        request = client.build_request("POST", "/v1/chat/completions", json={**CHAT, "stream": True})
        head = f"POST {request.url.path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(request.content)}\r\n\r\n"
        await connection.send_all(head.encode() + request.content)
        received = b"".join([piece async for piece in connection])
    assert received.count(b"data: ") == 3
    assert received.count(b"\n\n") == 2
    assert not received.endswith(b"0\r\n\r\n")


async def test_a_stream_can_end_properly_but_too_early(engine: RunningFakeEngine, client: httpx2.AsyncClient) -> None:
    await engine.change_faults(end_after_chunks=2)
    events, broke = await events_of(client)
    assert (len(events), broke) == (2, None)


async def test_a_stream_can_tell_of_an_error_and_then_be_done(
    engine: RunningFakeEngine, client: httpx2.AsyncClient
) -> None:
    await engine.change_faults(error_after_chunks=2)
    events, broke = await events_of(client)
    assert broke is None
    assert len(events) == 4
    assert '"error"' in events[2]
    assert events[3] == "[DONE]"


async def test_a_stalled_stream_leaves_the_engine_healthy(
    engine: RunningFakeEngine, client: httpx2.AsyncClient
) -> None:
    await engine.change_faults(stall_after_chunks=1)
    async with client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        assert answer.status_code == 200
        await has_counted(engine, "active", 1)
        assert (await client.get("/health")).status_code == 200
    await has_counted(engine, "cancelled", 1)
    assert (await engine.state())["active"] == 0


async def test_without_faults_a_stream_is_whole(client: httpx2.AsyncClient) -> None:
    events, broke = await events_of(client)
    assert (len(events), events[-1], broke) == (ALL_EVENTS, "[DONE]", None)


def test_an_engine_that_is_not_asked_for_faults_needs_no_tools_of_tests() -> None:
    code = (
        "import sys, stoker.testing.fake_engine.__main__\n"
        "print(sorted({'pytest', 'hypothesis', 'httpx2', 'cattrs', 'pluggy'} & sys.modules.keys()))"
    )
    env = {**os.environ, **fake_engine_env()}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
