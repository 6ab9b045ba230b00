"""The instruments tell the truth: the fake engine, the load client that has to notice a wrong answer, and the table."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from .building import build_program, compiler
from .command import PAGE, start_engine
from .loads import EMBEDDING, SMALL, Bench, Request, loads, stream
from .machine import BenchError, cpu_seconds
from .measuring import Results
from .running import LoadClient, Running, WrongAnswerError
from .table import BEGIN, END, table, write

needs_compiler = pytest.mark.skipif(
    compiler() is None, reason="there is no C compiler for the engine and the load client"
)
STREAM = stream("stream", 0, 20)


@pytest.fixture(scope="module")
def cpu() -> int:
    return min(os.sched_getaffinity(0))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, cpu: int) -> Iterator[Running]:
    with start_engine(tmp_path_factory.mktemp("engine"), cpu, in_step=False) as process:
        yield process


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, cpu: int) -> LoadClient:
    return LoadClient(build_program("load", tmp_path_factory.mktemp("load")), cpu)


@pytest.fixture
def bench(engine: Running, client: LoadClient, tmp_path: Path) -> Bench:
    return Bench(client, engine.port, tmp_path, seconds=1)


def exchange(engine: Running, request: bytes) -> bytes:
    """What the engine says to these bytes, until it closes."""
    with socket.create_connection(("127.0.0.1", engine.port), timeout=10) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def post(*headers: str, body: str = "{}") -> bytes:
    return "\r\n".join(["POST /v1/completions HTTP/1.1", "Host: e", *headers, "", body]).encode()


@needs_compiler
def test_every_answer_is_right_when_nothing_is_between(bench: Bench, engine: Running) -> None:
    before = cpu_seconds(engine.pid)
    for request in (SMALL, EMBEDDING):
        found = bench.run(engine.port, request, "--connections", "4", "--requests", "40")
        assert (found["requests"], found["wrong"], found["reconnects"]) == (40, 0, 0)
    assert found["bytes"] == 40 * 1024 * 1024
    assert cpu_seconds(engine.pid) > before


@needs_compiler
@pytest.mark.parametrize("rate", [0, 500])
def test_every_chunk_of_every_stream_is_counted(bench: Bench, engine: Running, rate: int) -> None:
    found = bench.run(engine.port, stream(f"at-{rate}", rate, 20), "--connections", "4", "--requests", "8")
    assert (found["requests"], found["events"]) == (8, 160)


@needs_compiler
@pytest.mark.parametrize("request_", [SMALL, STREAM], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("status", "not a 200"),
        ("cut", "closed in the middle of an answer"),
        ("wrong", "not the (body|event) that was expected"),
    ],
)
def test_a_wrong_answer_is_noticed(
    client: LoadClient, bench: Bench, tmp_path: Path, request_: Request, fault: str, complaint: str
) -> None:
    arguments = bench.arguments(bench.engine_port, request_)
    assert client.run(*arguments, "--requests", "1")["wrong"] == 0
    faulty = tmp_path / "faulty.json"
    faulty.write_bytes(request_.body.replace(b"Hello", f"[fault={fault}]".encode()))
    with pytest.raises(WrongAnswerError, match=complaint):
        client.run(*arguments, "--body", str(faulty), "--requests", "1")


@needs_compiler
def test_an_answer_that_never_comes_is_a_wrong_one(client: LoadClient, bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        arguments = bench.arguments(silent.getsockname()[1], SMALL)
        with pytest.raises(WrongAnswerError, match="no byte came"):
            client.run(*arguments, "--requests", "1", "--timeout", "0")


@needs_compiler
def test_idle_connections_must_stay_open(client: LoadClient, bench: Bench, cpu: int, tmp_path: Path) -> None:
    arguments = bench.arguments(bench.engine_port, SMALL)
    with client.holding(*arguments, "--connections", "5"):
        pass
    (tmp_path / "second").mkdir()
    with start_engine(tmp_path / "second", cpu, in_step=True) as leaving:
        arguments = bench.arguments(leaving.port, SMALL)
        with (
            pytest.raises(WrongAnswerError, match=r"^5 wrong answers, .*: idle connections were closed$"),
            client.holding(*arguments, "--connections", "5"),
        ):
            leaving.stop()


@needs_compiler
@pytest.mark.parametrize(
    "request_bytes",
    [
        post("Content-Length: 2", "Transfer-Encoding: chunked"),
        post("Content-Length: 2", "Content-Length: 2"),
        post("Content-Length: +2"),
        post("Content-Length : 2"),
        post("Content-Length: 2", "Host: other"),
        post("Content-Length: 2", body="{]"),
        post("Content-Length: 3", body="{}\0"),
        post("Transfer-Encoding: chunked", body="+2\r\n{}\r\n0\r\n\r\n"),
        post("Content-Length: 2", " folded: 1"),
        b"GET /health HTTP/1.0\r\nHost: e\r\n\r\n",
    ],
)
def test_the_engine_refuses_a_mangled_request(engine: Running, request_bytes: bytes) -> None:
    said = len(engine.said())
    assert exchange(engine, request_bytes).startswith(b"HTTP/1.1 400 ")
    assert "answered 400" in engine.said()[said:]


@needs_compiler
def test_the_engine_understands_a_chunked_request(engine: Running) -> None:
    headers = ["Transfer-Encoding: chunked", "Connection: close"]
    said = exchange(engine, post(*headers, body='1\r\n{\r\n8;x=y\r\n"a":"b"}\r\n0\r\n\r\n'))
    assert said.startswith(b"HTTP/1.1 200 ")
    assert said.endswith(b"}}")


# What becomes of the figures


def two_rounds() -> Results:
    results = Results()
    for ours, theirs in ((50.0, 100.0), (90.0, 100.0), (160.0, 200.0)):
        results.add("chat", "stoker", {"cpu_us": ours})
        results.add("chat", "vllm-router", {"cpu_us": theirs})
    return results


def test_a_ratio_is_between_neighbours_in_time() -> None:
    results = two_rounds()
    assert results.median("chat", "cpu_us", "stoker") == 90
    assert results.ratio("chat", "cpu_us") == 0.8  # not 90 / 100


def test_a_load_with_a_wrong_answer_has_no_figure() -> None:
    results = two_rounds()
    results.failures["chat", "stoker"] = "1 wrong answers"
    text = table([loads()["chat"]], ["stoker", "vllm-router"], results, {"date": "today"})
    first = next(line for line in text.splitlines() if "small chat" in line)
    assert first.endswith("| wrong | 100.0 | - |")
    assert "- chat at stoker: 1 wrong answers" in text


def test_the_table_stands_between_the_markers_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    write(page, "new\n")
    assert page.read_text() == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    page.write_text("no place")
    with pytest.raises(BenchError, match="has no lines"):
        write(page, "new\n")
    assert BEGIN in PAGE.read_text()
    assert END in PAGE.read_text()
