"""What goes wrong, and as what it is raised: the same for every way of using a client."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stoker.client import (
    AuthenticationFailed,
    BadRequest,
    ClientError,
    Conflict,
    EngineFailed,
    EngineNotFound,
    EngineUnavailable,
    GatewayUnreachable,
    PermissionDenied,
    RateLimited,
    StreamInterrupted,
    Timeout,
    UnexpectedAnswer,
)
from stoker.errors import NotRunningError
from tests.e2e.running import HANG_GUARD_SECONDS, Program, until
from tests.faults.fleet import change_faults, fake_state, info_of, wait_for

from .conftest import Create


@contextlib.contextmanager
def faults(program: Program, **changes: object) -> Iterator[None]:
    """The engine ``fake`` has these faults in this block."""
    info = info_of(program)
    change_faults(info, **changes)
    try:
        yield
    finally:
        httpx2.delete(f"{info['base_url']}/fake/faults", timeout=HANG_GUARD_SECONDS, verify=False).raise_for_status()
        wait_for(program, state="READY")


def _missing(request: bytes) -> int:
    """How many bytes, at least, are still to come of it."""
    head, end, body = request.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    if not end:
        return 1
    return 0 if length is None else int(length[1]) - len(body)


@contextlib.contextmanager
def listener(answer: bytes) -> Iterator[str]:
    """A server that says this, whatever it is asked, and its URL. It hears the client out, and ends each connection."""
    answer = answer.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n", 1)

    def hear_out(connection: socket.socket) -> None:
        heard = b""
        while (missing := _missing(heard)) and (data := connection.recv(min(missing, 65536))):
            heard += data

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    hear_out(connection)
                    connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


# No gateway


def test_nobody_answers(create: Create, here: Program) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with create(url, default_model="m") as client:
        with pytest.raises(GatewayUnreachable, match=rf"{url}: .*stoker gateway start") as caught:
            client.chat("hi")
        assert isinstance(caught.value, NotRunningError)
        assert isinstance(caught.value, ClientError)
        with pytest.raises(GatewayUnreachable):
            client.engines()
        with pytest.raises(GatewayUnreachable):
            client.chat("hi", stream=True)


def test_what_is_no_address(create: Create) -> None:
    with pytest.raises(BadRequest, match="'ftp://x', which is not a URL"), create("ftp://x"):
        pass


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"timeout": 0}, "timeout"),
        ({"timeout": "ten"}, "timeout"),
        ({"batch_size": 0}, "batch_size"),
        ({"parallel": 1.5}, "parallel"),
        ({"default_model": ["m"]}, "default_model"),
    ],
)
def test_settings_that_can_not_be(create: Create, settings: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong), create("http://127.0.0.1:1", **settings):
        pass


def test_a_setting_that_there_is_not(create: Create) -> None:
    """It was left out without a word."""
    with pytest.raises(TypeError, match=r"no setting 'defualt_model'; did you mean default_model\?"):
        create("http://127.0.0.1:1", defualt_model="m").__enter__()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", UnexpectedAnswer),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", UnexpectedAnswer),
        (b"HTTP/1.1 500 No\r\ncontent-length: 4\r\n\r\noops", EngineFailed),
        (b"HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", UnexpectedAnswer),
        (b"SSH-2.0-OpenSSH_9.2\r\n", GatewayUnreachable),
        (b"", GatewayUnreachable),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\nhalf", GatewayUnreachable),
    ],
    ids=["text", "empty object", "500", "redirect", "no HTTP", "nothing", "half"],
)
def test_a_stranger_answers(create: Create, answer: bytes, error: type[ClientError]) -> None:
    with listener(answer) as url, create(url, default_model="m", default_embedding_model="m") as client:
        for call in (client.chat, client.embed):
            with pytest.raises(error):
                call("hi")
        with pytest.raises(error):
            client.engines()


# The gateway refuses


def test_keys(here: Program, create: Create, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STOKER_HOME", str(tmp_path))  # somebody else's
    with create(here.url) as client:
        with pytest.raises(AuthenticationFailed) as caught:
            client.engines()
        assert (caught.value.status, caught.value.code) == (401, "invalid_api_key")
    with create(here.url, api_key="not-the-one") as client, pytest.raises(AuthenticationFailed):
        client.engines()
    with create(here.url, api_key=here.token) as client:
        assert len(client.engines()) == 2
    monkeypatch.setenv("STOKER_API_KEY", here.token)
    with create(here.url) as client:
        assert len(client.engines()) == 2


def test_management_says_what_is_wrong(client: Any) -> None:
    with pytest.raises(EngineNotFound, match=r"'no such\?'"):
        client.engine("no such?")
    with pytest.raises(EngineNotFound):
        client.stop_engine("nobody")
    with pytest.raises(BadRequest, match="future_setting"):
        client.start_engine("m", future_setting=1)
    with pytest.raises(BadRequest, match="model"):
        client.start_engine()
    with pytest.raises(PermissionDenied, match="register_hosts"):
        client.register_engine("m", "http://192.0.2.1:1")
    known = client.engine("fake").base_url
    try:
        client.register_engine("m", known, engine_id="twice")
        with pytest.raises(Conflict):
            client.register_engine("m", known, engine_id="twice")
    finally:
        client.unregister_engine("twice", wait=True)


def test_an_engine_that_does_not_become_ready(client: Any) -> None:
    with pytest.raises(EngineUnavailable, match="did not become READY"):
        client.start_engine(
            "m", label="broken", runtime="command", command=["false", "{port}"], restart_limit=0, wait=True
        )
    client.unregister_engine("broken", wait=True)
    with pytest.raises(Timeout, match="not READY within"):
        client.register_engine("m", "http://127.0.0.1:1", engine_id="nowhere", wait=True, timeout=0.3)
    client.unregister_engine("nowhere", wait=True)


# The engine fails


def test_an_engine_that_fails(here: Program, client: Any) -> None:
    with faults(here, status=429, retry_after_seconds=7):
        for stream in (False, True):
            with pytest.raises(RateLimited) as limited:
                client.chat("hi", stream=stream)
            assert limited.value.retry_after_seconds == 7
    with faults(here, status=500), pytest.raises(EngineFailed):
        client.chat("hi")
    with faults(here, reset=True), pytest.raises(EngineUnavailable, match="fake"):
        client.chat("hi")


@pytest.mark.parametrize("fault", ["cut_after_chunks", "reset_after_chunks", "error_after_chunks", "end_after_chunks"])
def test_a_stream_that_ends_before_its_answer(here: Program, client: Any, fault: str) -> None:
    with faults(here, **{fault: 3}):
        stream = client.chat("one two three four", max_tokens=9, stream=True)
        heard = []
        with pytest.raises(StreamInterrupted, match="ended before its answer did") as caught:
            heard.extend(stream)
        assert caught.value.engine == "fake"
    assert heard == ["one", " two"]
    with pytest.raises(RuntimeError):
        _ = stream.result
    assert list(stream) == []


def test_an_answer_that_takes_too_long(here: Program, client: Any) -> None:
    with faults(here, hang=True):
        with pytest.raises(Timeout, match=r"within 0\.3 s"):
            client.chat("hi", timeout=0.3)
        with pytest.raises(Timeout):
            client.chat("hi", timeout=0.3, stream=True)
    with faults(here, stall_after_chunks=2):
        stream = client.chat("one two three", max_tokens=9, stream=True, timeout=0.5)
        assert next(iter(stream)) == "one"
        with pytest.raises(Timeout, match="stalled"):
            list(stream)
    until(lambda: fake_state(info_of(here))["active"] == 0, "the engine works for nobody any more")


def test_a_stream_may_take_longer_than_its_time_out(here: Program, client: Any) -> None:
    """The limit is for the time between events."""
    with faults(here, token_seconds=0.1):
        assert len(list(client.chat("one two", max_tokens=9, stream=True, timeout=0.6))) == 9


def test_who_leaves_a_stream_ends_the_engines_work(here: Program, client: Any) -> None:
    with faults(here, token_seconds=0.05):
        with client.chat("one two", max_tokens=2000, stream=True) as stream:
            assert next(iter(stream)) == "one"
            assert fake_state(info_of(here))["active"] == 1
        assert list(stream) == []
        until(lambda: fake_state(info_of(here))["active"] == 0, "the engine works for nobody any more")
