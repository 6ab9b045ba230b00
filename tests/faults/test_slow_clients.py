"""Clients that are slow, idle, or gone: each costs what it may and no more, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import logging
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import HANG_GUARD_SECONDS, until

from .fleet import ask, question, within
from .stoker_up import Stoker, configuration, count, post, read_to_the_end, running, status_of

log = logging.getLogger(__name__)
ENDLESS = question(max_tokens=1_000_000, stream=True)


@pytest.fixture(scope="module")
def stoker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stoker]:
    """Its engine takes its time, or those who wait for much of it would keep this machine busy."""
    with running(tmp_path_factory.mktemp("slow"), configuration("--token-seconds", "0.01")) as stoker:
        yield stoker


@pytest.fixture(autouse=True)
def _unharmed(stoker: Stoker) -> Iterator[None]:
    before = stoker.footprint()
    yield
    stoker.serves()
    stoker.has_let_go(before)


def test_who_is_slow_with_a_head_or_a_body_is_closed_in_time(stoker: Stoker) -> None:
    """All at once, since what is tested is that they have to wait for it."""
    starts = {
        "nothing": (b"", 0),
        "half a head": (b"POST /v1/chat/completions HTTP/1.1\r\nHost: loc", 0),
        "half a body": (post(question())[:-5], 408),
        "half a chunk": (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            408,
        ),
        "half a body for management": (post(question(), "/v1/management/reload")[:-5], 401),
    }
    with contextlib.ExitStack() as stack:
        socks = {name: stack.enter_context(stoker.connect()) for name in starts}
        for name, sock in socks.items():
            sock.sendall(starts[name][0])
        for name, sock in socks.items():
            assert status_of(read_to_the_end(sock)) == starts[name][1], name
        assert "Traceback" not in stoker.said


def test_a_slow_reader_gets_all_of_it(stoker: Stoker) -> None:
    with stoker.connect(receive_buffer=4096) as sock:
        sock.sendall(post(question(max_tokens=500, stream=True), "/v1/chat/completions", "Connection: close"))
        until(lambda: stoker.engine_works() == 1, "it is relayed")
        stoker.serves()
        received = read_to_the_end(sock)
    assert b"data: [DONE]" in received[-200:]


def raised_limit(wanted: int) -> int:
    """How many files this process may have open, after a try to have it be enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, hard)), hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def latency(stoker: Stoker, times: int) -> float:
    """What the slowest but one in a hundred waits for, in seconds."""
    taken = []
    with stoker.connect() as sock:
        for _ in range(times):
            began = time.perf_counter()
            sock.sendall(post(question(max_tokens=1)))
            hear_out(sock)
            taken.append(time.perf_counter() - began)
    return sorted(taken)[int(times * 0.99)]


def hear_out(sock: socket.socket) -> None:
    """Read the answer to a question."""
    received = b""
    while b'"usage"' not in received:
        more = sock.recv(65536)
        assert more, f"closed after {received!r}"
        received += more


def test_idle_connections_are_cheap(stoker: Stoker) -> None:
    wanted = count(10_000)
    most = (min(raised_limit(wanted + 200), wanted + 200)) - 200
    quiet = latency(stoker, 200)
    before = stoker.footprint()
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(stoker.connect()) for _ in range(min(wanted, most, 9_900))]
        asked = socks[::2]  # half of them have asked before
        for some in (asked[start : start + 10] for start in range(0, len(asked), 10)):
            for sock in some:
                sock.sendall(post(question(max_tokens=1)))
            for sock in some:  # few at a time, or what is measured is the memory of requests
                hear_out(sock)
        crowded = latency(stoker, 200)
        each = (stoker.footprint().rss_bytes - before.rss_bytes) / len(socks)
        figures = (len(socks), each, quiet * 1e3, crowded * 1e3)
        log.info("%d idle connections of %.0f bytes; p99 is %.2f ms without them, %.2f ms with them", *figures)
        assert each < 30_000
        assert stoker.process.poll() is None


@pytest.mark.parametrize("more", [b"", post(question())], ids=["", "with a request behind it"])
@pytest.mark.parametrize("streams", [True, False], ids=["streams", "whole answers"])
@pytest.mark.parametrize("lane", ["express", "other"])
def test_who_leaves_ends_the_work_for_him(stoker: Stoker, lane: str, more: bytes, *, streams: bool) -> None:
    """A thousand of them, in rounds of twenty-five, half by a reset."""
    body = ENDLESS if streams else question(max_tokens=1_000_000)
    before = stoker.engine_state()["cancelled"]
    rounds = max(1, count(1_000) // 8 // 25)
    for _ in range(rounds):
        with contextlib.ExitStack() as stack:
            socks = [stack.enter_context(stoker.connect()) for _ in range(25)]
            for sock in socks:
                sock.sendall((post(body) if lane == "express" else chunked(body)) + more)
            until(lambda: stoker.engine_works() == 25, "the engine works for all of them")
            for number, sock in enumerate(socks):
                if number % 2:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()
            with within(1, "the end of the engine's work"):
                until(lambda: stoker.engine_works() == 0, "the engine has stopped")
    assert stoker.engine_state()["cancelled"] >= before + 25 * rounds


def chunked(body: object) -> bytes:
    data = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)


def test_without_descriptors_clients_are_told_and_it_recovers_at_once(tmp_path: Path) -> None:
    """They waited in the backlog."""
    with running(tmp_path, configuration()) as stoker, contextlib.ExitStack() as stack:
        stoker.serves()
        held = len(list(Path(f"/proc/{stoker.process.pid}/fd").iterdir()))
        address = stoker.address
        resource.prlimit(stoker.process.pid, resource.RLIMIT_NOFILE, (held + 10, held + 10))
        idle = [stack.enter_context(socket.create_connection(address, HANG_GUARD_SECONDS)) for _ in range(40)]
        told = []
        for _ in range(6):
            with socket.create_connection(address, HANG_GUARD_SECONDS) as sock:
                sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
                told.append(status_of(read_to_the_end(sock)))
        assert set(told) <= {200, 503}, "each is answered, though perhaps there was a descriptor for it"
        assert 503 in told
        assert stoker.process.poll() is None
        for sock in idle:
            sock.close()
        until(lambda: ask(stoker, max_tokens=2).status_code == 200, "it recovers", 5)
        complaints = [line for line in stoker.said.splitlines() if "no more connections for now" in line]
        seconds = {line[:19] for line in complaints}
        assert 1 <= len(complaints) <= len(seconds) + 1


def test_stalled_readers_hold_up_no_stop(tmp_path: Path) -> None:
    """Whatever they hold: the drain time, five seconds, and it is over."""
    drain, readers = 2, count(200)
    toml = configuration(engine=f"drain_timeout_seconds = {drain}")
    with running(tmp_path, toml) as stoker, contextlib.ExitStack() as stack:
        for _ in range(readers):
            stack.enter_context(stoker.connect(receive_buffer=4096)).sendall(post(ENDLESS))
        until(lambda: stoker.engine_works() == readers, "the engine works for all of them")
        half = [post(question())[:-5], b"POST /v1/chat", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b""]
        others = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", chunked(question())[:-9], b"GET /health HTTP/1.1\r\n"]
        for start in half + others:
            stack.enter_context(stoker.connect()).sendall(start)
        with within(drain + 5, "the stop"):
            stoker.process.send_signal(signal.SIGTERM)
            assert stoker.process.wait(HANG_GUARD_SECONDS) == 0
