"""A call ends within its time-out however what answers drips, and at once when its user interrupts it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import pytest

from stoker import UnifiedInferenceClient
from stoker.client import BadRequest, ClientError, Timeout
from stoker.testing.engines import fake_engine_env
from tests.e2e.running import Program, until
from tests.faults.fleet import change_faults, fake_state, info_of

from .conftest import Create, close_while_another_thread_asks

TIMEOUT_SECONDS = 0.8
SLACK_SECONDS = 0.5
DRIPS = 14  # and then silence, which a limit for each read would take for the beginning of a new time-out
DRIP_SECONDS = 0.05

# What is sent at once, and what then drips without an end.
HEAD = b"HTTP/1.1 200 OK\r\n"
JSON = HEAD + b"content-type: application/json\r\ncontent-length: 100000\r\n\r\n"
EVENTS = HEAD + b"content-type: text/event-stream\r\n\r\n"
EVENT = b'data: {"choices": [{"delta": {"content": "one"}}]}\n\n'
ANSWERS = {
    "head": (HEAD, b"x-a: b\r\n"),
    "informational": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "body": (JSON, b" "),
    "stream: head": (HEAD, b"x-a: b\r\n"),
    "stream: first event": (EVENTS, b"x"),
    "stream: comments": (EVENTS, b": wait\n\n"),
    "stream: next event": (EVENTS + EVENT, b"x"),
}


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server whose connections are ``answer``'s, each in a thread. It ends when they have."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(2 * len(ANSWERS) + 1) as pool:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    pool.submit(answer, server.accept()[0])

        pool.submit(serve)
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def dripping() -> Iterator[str]:
    """A server that answers as the model's name says, a bit now and then, and then holds its tongue."""
    over = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            heard = b""
            while (name := re.search(rb'"model":"([^"]*)"', heard)) is None:
                heard += connection.recv(65536)
            if b'"bad"' in heard:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                return
            first, drip = ANSWERS[name[1].decode()]
            connection.sendall(first)
            for _ in range(DRIPS):
                if over.wait(DRIP_SECONDS):
                    return
                connection.sendall(drip)
            over.wait()

    with serving(answer) as url:
        try:
            yield url
        finally:
            over.set()


def test_whatever_drips_ends_in_time(create: Create) -> None:
    """A limit for each read let a head drip for ever, and a body for twice the time-out."""

    def took(name: str) -> tuple[type, float]:
        began = time.monotonic()
        stream = name.startswith("stream: ")
        try:
            answer = client.chat("hi", model=name, stream=stream)
            assert stream
            assert next(iter(answer)) == "one"
            began = time.monotonic()
            list(answer)
        except ClientError as error:
            return type(error), time.monotonic() - began
        raise AssertionError(f"{name} ended well")

    with dripping() as url, create(url, timeout=TIMEOUT_SECONDS) as client, ThreadPoolExecutor(len(ANSWERS)) as pool:
        outcomes = dict(zip(ANSWERS, pool.map(took, ANSWERS), strict=True))
    assert {name: kind for name, (kind, _) in outcomes.items()} == dict.fromkeys(ANSWERS, Timeout)
    late = {name: seconds for name, (_, seconds) in outcomes.items() if seconds > TIMEOUT_SECONDS + SLACK_SECONDS}
    assert not late
    early = {name: seconds for name, (_, seconds) in outcomes.items() if seconds < TIMEOUT_SECONDS / 2}
    assert not early


def test_a_question_before_the_question_counts_too(create: Create) -> None:
    """Which model there is, is asked first where none is named."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.monotonic()
        with create(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.3) as client, pytest.raises(Timeout):
            client.chat("hi")
        assert time.monotonic() - began < 0.3 + SLACK_SECONDS


def hesitating(before_seconds: float, between_seconds: float) -> AbstractContextManager[str]:
    """A server that takes its time to name its model, and again between two events of its one stream."""
    models = b'{"object": "list", "data": [{"id": "m", "kind": "llm"}]}'
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n"

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            if connection.recv(65536).startswith(b"GET /v1/models"):
                time.sleep(before_seconds)
                connection.sendall(head + b"content-type: application/json\r\n\r\n" + models)
            else:
                connection.sendall(head + b"content-type: text/event-stream\r\n\r\n" + EVENT)
                time.sleep(between_seconds)
                connection.sendall(EVENT + b"data: [DONE]\n\n")

    return serving(answer)


def test_what_was_used_up_before_a_stream_began_is_not_taken_from_the_time_between_its_events(create: Create) -> None:
    """It was: what was left of the time-out then remained the limit of every read."""
    with hesitating(1.0, 0.8) as url, create(url, timeout=1.5) as client:
        assert list(client.chat("hi", stream=True)) == ["one", "one"]


# An interrupt, and an end by another thread

INTERRUPTED = """
import json, sys, threading, time
from tests.client.test_nothing_left import sockets
from stoker import UnifiedInferenceClient

with UnifiedInferenceClient.create(batch_size=1, parallel=4, direct=sys.argv[1] == "direct") as client:
    client.embed("warm up", model="vectors")
    print("ready", flush=True)
    sys.stdin.readline()
    threads, before = threading.active_count(), len(sockets())
    try:
        client.embed(["text"] * 40, model="vectors")
    except KeyboardInterrupt:
        left = {"threads": threading.active_count() - threads, "sockets": len(sockets()) - before}
        print(json.dumps(left), flush=True)
"""


@pytest.mark.parametrize("way", ["by the gateway", "direct"])
def test_an_interrupt_ends_every_batch_that_is_under_way(here: Program, way: str) -> None:
    """It waited for those that were under way, with a time-out of ten minutes."""
    info = info_of(here, "vectors")
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, way],
        env={**os.environ, **fake_engine_env(), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "ready\n"
            change_faults(info, hang=True)
            program.stdin.write("\n")
            program.stdin.flush()
            until(lambda: fake_state(info)["active"] == 4, "four batches are under way")
            began = time.monotonic()
            program.send_signal(signal.SIGINT)
            left = json.loads(program.stdout.readline())
            took = time.monotonic() - began
            assert left["threads"] == 0
            assert left["sockets"] <= 0
            assert took < 5
            assert program.wait(30) == 0
            until(lambda: fake_state(info)["active"] == 0, "the engine works for nobody any more")
        finally:
            program.kill()
            change_faults(info, hang=False)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_is_closed_ends_what_other_threads_wait_for(here: Program, stream: bool) -> None:
    """A socket that is closed does not wake who reads from it: they waited until their time-out."""
    close_while_another_thread_asks(UnifiedInferenceClient.create(default_model="fake"), info_of(here), stream=stream)


def test_one_batch_that_fails_ends_the_others(create: Create) -> None:
    """Its error was held back until they had ended by themselves."""
    with dripping() as url, create(url, batch_size=1, parallel=3) as client:
        began = time.monotonic()
        with pytest.raises(BadRequest):
            client.embed(["good", "good", "bad"], model="body", timeout=60)
        assert time.monotonic() - began < 10
