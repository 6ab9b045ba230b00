"""Probes, against servers on real sockets that answer what a test wants."""

from __future__ import annotations

import gzip
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import attrs
import pytest
import trio

from stoker.core.liveness import Verdict
from stoker.model import Activity, EngineLoad, EngineSpec, LaunchPlan, SleepPaths, TokenProbe
from stoker.supervise.probe import Prober, make_client

SPEC = EngineSpec(model="m", probe_timeout_seconds=0.5, stall_seconds=60)
Answer = Callable[[str], Awaitable[str | None]]
"""From the request's first line to the status and body of the answer; None closes without one."""


async def healthy(_line: str) -> str | None:
    return "200 OK"


async def silent(_line: str) -> str | None:
    await trio.sleep_forever()
    raise AssertionError


@asynccontextmanager
async def prober(
    answer: Answer, activity: Activity, spec: EngineSpec = SPEC, scrape: Callable[[str], EngineLoad] | None = None
) -> AsyncIterator[Prober]:
    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            line = (await stream.receive_some(65536)).split(b"\r\n")[0].decode()
            told = await answer(line)
            if told is not None:
                head, _, body = told.partition("\n")
                await stream.send_all(
                    f"HTTP/1.1 {head}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode()
                )

    async with trio.open_nursery() as nursery, make_client() as client:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        port = listeners[0].socket.getsockname()[1]
        plan = LaunchPlan(
            base_url=f"http://127.0.0.1:{port}",
            metrics_path="/metrics" if scrape else None,
            token_probe=TokenProbe(path="/v1/completions", body={"max_tokens": 1}),
        )
        yield Prober(client, plan, lambda: spec, lambda: activity, scrape or (lambda _: EngineLoad()), {})
        nursery.cancel_scope.cancel()


OpenProber = Callable[..., AbstractAsyncContextManager[Prober]]


@pytest.fixture
def prober_of() -> OpenProber:
    """Opens a prober of whatever handles its connections byte by byte."""
    return _prober_of


@asynccontextmanager
async def _prober_of(
    handle: Callable[[trio.SocketStream], Awaitable[None]], scrape: Callable[[str], EngineLoad] = lambda _: EngineLoad()
) -> AsyncIterator[Prober]:
    async with trio.open_nursery() as nursery, make_client() as client:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        plan = LaunchPlan(base_url=f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}", metrics_path="/metrics")
        yield Prober(client, plan, lambda: SPEC, Activity, scrape, {})
        nursery.cancel_scope.cancel()


async def test_nothing_is_asked_of_an_address_that_no_engine_can_have() -> None:
    heard: list[bytes] = []

    async def handle(stream: trio.SocketStream) -> None:
        heard.append(bytes(await stream.receive_some(65536)))

    async with trio.open_nursery() as nursery, make_client(lambda address: address == "127.0.0.1") as client:
        listeners = await nursery.start(trio.serve_tcp, handle, 0)
        port = listeners[0].socket.getsockname()[1]
        plan = LaunchPlan(base_url=f"http://localhost:{port}")
        asking = Prober(client, plan, lambda: SPEC, lambda: Activity(), lambda _: EngineLoad(), {})
        found = await asking.probe()
        assert "localhost is 127.0.0.1, where no engine can be" in found.error
        while not heard:
            await trio.lowlevel.checkpoint()
        assert heard == [b""]
        nursery.cancel_scope.cancel()


async def test_a_200_is_alive() -> None:
    async with prober(healthy, Activity()) as asking:
        assert (await asking.probe()).verdict is Verdict.ALIVE


@pytest.mark.parametrize(
    ("said", "asleep"),
    [
        ('{"is_sleeping": true}', True),
        ('{"is_sleeping": false}', False),
        ('{"level": 1, "asleep": true}', True),
        ('{"a": true, "b": false}', None),
        ("[true]", None),
        ("<html>", None),
    ],
)
async def test_an_engine_that_can_sleep_is_asked_whether_it_does(said: str, asleep: bool | None) -> None:
    async def answer(line: str) -> str | None:
        return f"200 OK\n{said}" if "/is_sleeping" in line else "200 OK"

    async with prober(answer, Activity(active_requests=1), attrs.evolve(SPEC, stall_seconds=1e9)) as asking:
        asking.plan = attrs.evolve(asking.plan, sleeping=SleepPaths(sleep="/s", wake="/w", asleep="/is_sleeping"))
        result = await asking.probe()
    assert (result.verdict, result.asleep) == (Verdict.ALIVE, asleep)


async def test_an_engine_that_does_not_say_whether_it_sleeps_is_alive_all_the_same() -> None:
    async def answer(line: str) -> str | None:
        return await silent(line) if "/is_sleeping" in line else "200 OK"

    async with prober(answer, Activity(), attrs.evolve(SPEC, probe_timeout_seconds=0.1)) as asking:
        asking.plan = attrs.evolve(asking.plan, sleeping=SleepPaths(sleep="/s", wake="/w", asleep="/is_sleeping"))
        result = await asking.probe()
    assert (result.verdict, result.asleep) == (Verdict.ALIVE, None)


async def test_a_503_fails_and_says_so() -> None:
    async def loading(_line: str) -> str | None:
        return "503 Loading"

    async with prober(loading, Activity()) as asking:
        result = await asking.probe()
    assert result.verdict is Verdict.FAILED
    assert result.error == "/health answered 503"


async def test_an_endless_health_answer_is_judged_by_its_status(prober_of: OpenProber) -> None:
    """A probe once read it all: a gigabyte in a few rounds."""

    async def endless(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        await stream.send_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        left.set()

    left = trio.Event()
    async with prober_of(endless) as asking:
        assert (await asking.probe()).verdict is Verdict.ALIVE
        with trio.fail_after(10):
            await left.wait()


async def test_a_compressed_page_is_not_opened(prober_of: OpenProber) -> None:
    """A probe once took 256 MiB out of a metrics page of a few hundred kilobytes."""

    async def bomb(stream: trio.SocketStream) -> None:
        asked.append(bytes(await stream.receive_some(65536)))
        page = gzip.compress(bytes(32 * 1024 * 1024))
        head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(page)}\r\n\r\n"
        with suppress(trio.BrokenResourceError):
            await stream.send_all(head.encode() + page)

    def scrape(text: str) -> EngineLoad:
        opened.append(len(text))
        return EngineLoad()

    asked: list[bytes] = []
    opened: list[int] = []
    async with prober_of(bomb, scrape) as asking:
        assert await asking.load() is None
    assert not opened
    assert b"accept-encoding: identity\r\n" in asked[0].lower()


async def test_informational_answers_without_an_end_are_no_answer(prober_of: OpenProber) -> None:
    async def flood(stream: trio.SocketStream) -> None:
        await stream.receive_some(65536)
        with suppress(trio.BrokenResourceError):
            while True:
                await stream.send_all(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)

    async with prober_of(flood) as asking:
        result = await asking.probe()
    assert result.verdict is Verdict.FAILED
    assert "did not answer within 0.5 s" in result.error


async def test_a_closed_connection_fails_and_says_so() -> None:
    async def rude(_line: str) -> str | None:
        return None

    async with prober(rude, Activity(active_requests=5)) as asking:
        result = await asking.probe()
    assert result.verdict is Verdict.FAILED
    assert "/health" in result.error


async def test_a_connection_that_is_reset_as_soon_as_it_is_there_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by an engine that is killed in that moment. It once ended Stoker: such a socket names no peer."""
    connect = trio.open_tcp_stream

    async def connect_and_be_reset(*args: Any, **options: Any) -> trio.SocketStream:
        stream = await connect(*args, **options)
        await trio.lowlevel.wait_readable(stream.socket)
        return stream

    async def reset(stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        stream.socket.close()

    monkeypatch.setattr(trio, "open_tcp_stream", connect_and_be_reset)
    async with _prober_of(reset) as asking:
        result = await asking.probe()
    assert result.verdict is Verdict.FAILED
    assert "not connected" in result.error


async def test_a_time_out_counts_for_an_idle_engine_and_not_for_one_at_work() -> None:
    async with prober(silent, Activity()) as asking:
        result = await asking.probe()
        assert result.verdict is Verdict.FAILED
        assert "did not answer within 0.5 s" in result.error
    async with prober(silent, Activity(active_requests=1, progress_at=trio.current_time())) as asking:
        assert (await asking.probe()).verdict is Verdict.EXCUSED


@pytest.mark.parametrize("token_status", ["200 OK", "400 Bad", "500 Dead", "hang"])
async def test_healthy_but_producing_nothing_is_asked_for_a_token(token_status: str) -> None:
    asked: list[str] = []

    async def answer(line: str) -> str | None:
        asked.append(line)
        if "completions" not in line:
            return "200 OK"
        return await silent(line) if token_status == "hang" else token_status

    impatient = EngineSpec(model="m", probe_timeout_seconds=0.2, stall_seconds=0)
    async with prober(answer, Activity(active_requests=1), impatient) as asking:
        result = await asking.probe()
    assert asked[-1] == "POST /v1/completions HTTP/1.1"
    if token_status in ("200 OK", "400 Bad"):  # whoever refuses still works
        assert result.verdict is Verdict.ALIVE
    else:
        assert result.stalled
        assert "no progress for 0 s; a one-token request" in result.error
        assert ("no answer within 0.8 s" if token_status == "hang" else "500") in result.error


async def test_an_engine_that_can_not_be_asked_for_a_token_is_judged_by_its_health() -> None:
    impatient = EngineSpec(model="m", probe_timeout_seconds=0.2, stall_seconds=0)
    for answer, verdict in ((healthy, Verdict.ALIVE), (silent, Verdict.FAILED)):
        async with prober(answer, Activity(active_requests=1), impatient) as asking:
            asking.plan = attrs.evolve(asking.plan, token_probe=None)
            assert (await asking.probe()).verdict is verdict


async def test_one_that_has_stalled_is_alive_again_when_it_has_answered_a_request() -> None:
    """Once its requests had failed it was idle and healthy, and was given the next ones."""
    computes = False

    async def answer(line: str) -> str | None:
        return "200 OK" if computes or "completions" not in line else await silent(line)

    activity = Activity(active_requests=1)
    impatient = EngineSpec(model="m", probe_timeout_seconds=0.1, stall_seconds=0)
    async with prober(answer, activity, impatient) as asking:
        assert (await asking.probe()).stalled
        asking.activity = Activity
        result = await asking.probe()
        assert result.stalled
        assert result.error.startswith("it has made no progress for 0 s; a one-token request failed too")
        computes = True
        assert (await asking.probe()).verdict is Verdict.ALIVE
        computes = False
        assert (await asking.probe()).verdict is Verdict.ALIVE


async def test_one_that_refuses_is_silent_once_nothing_has_moved_that_it_holds() -> None:
    async def rude(_line: str) -> str | None:
        return None

    for stall_seconds, silent_by_then in ((60.0, False), (0.0, True)):
        spec = attrs.evolve(SPEC, stall_seconds=stall_seconds)
        async with prober(rude, Activity(active_requests=1), spec) as asking:
            result = await asking.probe()
        assert (result.verdict, result.stalled, result.silent) == (Verdict.FAILED, False, silent_by_then)


async def test_a_long_prefill_is_seen_in_the_counters_and_excused() -> None:
    counter = [0.0]

    async def answer(line: str) -> str | None:
        if "metrics" in line:
            counter[0] += 1
            return f"200 OK\n{counter[0]}"
        return "200 OK"

    patience = EngineSpec(model="m", stall_seconds=0.2, probe_interval_seconds=0.0)
    activity = Activity(active_requests=1)
    async with prober(answer, activity, patience, lambda text: EngineLoad(progress=float(text))) as asking:
        verdicts = set()
        end = trio.current_time() + 1
        while trio.current_time() < end:
            verdicts.add((await asking.probe()).verdict)
    assert verdicts == {Verdict.ALIVE}


async def test_the_load_is_what_the_metrics_page_says() -> None:
    async def answer(line: str) -> str | None:
        return "200 OK\n7" if line == "GET /metrics HTTP/1.1" else None

    async with prober(answer, Activity(), scrape=lambda text: EngineLoad(running=float(text))) as asking:
        assert await asking.load() == EngineLoad(running=7)
        asking.plan = attrs.evolve(asking.plan, metrics_path=None)
        assert await asking.load() is None


@pytest.mark.parametrize(
    "answer", ["404 Not Found\n7", "200 OK\n", None, "200 OK\nseven", "200 OK\nnan", "200 OK\ninf"]
)
async def test_a_load_that_can_not_be_had_is_none(answer: str | None) -> None:
    async def give(_line: str) -> str | None:
        return answer

    async with prober(give, Activity(), scrape=lambda text: EngineLoad(running=float(text))) as asking:
        assert await asking.load() is None


async def test_a_load_that_does_not_come_in_time_is_none() -> None:
    async with prober(
        silent, Activity(), attrs.evolve(SPEC, probe_timeout_seconds=0.1), lambda _: EngineLoad()
    ) as asking:
        with trio.fail_after(20):
            assert await asking.load() is None


async def test_a_metrics_page_that_never_comes_does_not_hold_up_the_verdict() -> None:
    impatient = EngineSpec(model="m", probe_timeout_seconds=0.2, probe_interval_seconds=0.0, stall_seconds=0.3)
    async with prober(silent, Activity(active_requests=1), impatient, lambda _: EngineLoad()) as asking:
        with trio.fail_after(20):
            while not (result := await asking.probe()).stalled:
                pass
    assert "a one-token request failed too" in result.error


async def test_a_runtime_that_can_not_read_its_metrics_costs_only_them(caplog: pytest.LogCaptureFixture) -> None:
    asked: list[str] = []

    async def answer(line: str) -> str | None:
        asked.append(line)
        return "200 OK\nnonsense"

    def scrape(text: str) -> EngineLoad:
        raise ZeroDivisionError(text)

    eager = EngineSpec(model="m", probe_timeout_seconds=5, probe_interval_seconds=0.0)
    async with prober(answer, Activity(active_requests=1), eager, scrape) as asking:
        with trio.fail_after(20):
            while "GET /metrics HTTP/1.1" not in asked:
                assert (await asking.probe()).verdict is Verdict.ALIVE
    assert "can't be read" in caplog.text


@pytest.mark.parametrize(
    ("url", "headers"),
    [("http://a..b:9", {}), (f"http://{'a' * 64}:9", {}), ("http://127.0.0.1:9", {"Authorization": "Bearer ké"})],
)
async def test_what_can_not_even_be_asked_fails(url: str, headers: dict[str, str]) -> None:
    async with make_client() as client:
        asking = Prober(client, LaunchPlan(base_url=url), lambda: SPEC, Activity, lambda _: EngineLoad(), headers)
        assert (await asking.probe()).verdict is Verdict.FAILED


async def test_an_engine_that_sleeps_is_not_asked_for_its_load() -> None:
    asked: list[str] = []

    async def answer(line: str) -> str | None:
        asked.append(line.split()[1])
        return '200 OK\n{"is_sleeping": true}'

    async with prober(answer, Activity(), scrape=lambda _: EngineLoad(running=1)) as asking:
        sleeping = SleepPaths(sleep="/sleep", wake="/wake_up", asleep="/is_sleeping")
        asking.plan = attrs.evolve(asking.plan, sleeping=sleeping)
        assert await asking.load() == EngineLoad(running=1)
        assert (await asking.probe()).asleep is True
        assert await asking.load() is None
    assert asked == ["/metrics", "/health", "/is_sleeping"]
