"""The client against whatever may answer in a gateway's place."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stoker.cli.client import Client, engine_path
from stoker.cli.finding import Address
from stoker.errors import ConflictError, NotFoundError, NotRunningError, StokerError

PROBLEM = b'{"error": {"message": "no engine x", "type": "t", "param": null, "code": "c"}}'


@contextlib.contextmanager
def answering(status: int, body: bytes, token: str | None = None) -> Iterator[tuple[Client, list[str]]]:
    """A client of something that always answers the same, and the requests it sent."""
    seen: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(f"{self.command} {self.path} {self.headers['authorization']}")
            if status == 0:
                return  # the connection is closed without a word
            self.send_response(status)
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_DELETE = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with Client(Address(f"http://127.0.0.1:{server.server_port}", token)) as client:
                yield client, seen
        finally:
            server.shutdown()
            thread.join()


def test_an_object_is_handed_on_and_the_token_sent() -> None:
    with answering(200, b'{"data": [{"a": 1}]}', "secret") as (client, seen):
        assert client.listing("/engines") == [{"a": 1}]
        assert client.post(engine_path("a b/ü", "stop"), {}) == {"data": [{"a": 1}]}
    assert seen == [
        "GET /v1/management/engines Bearer secret",
        "POST /v1/management/engines/a%20b%2F%C3%BC/stop Bearer secret",
    ]


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        (404, NotFoundError, "no engine x"),
        (409, ConflictError, "no engine x"),
        (400, StokerError, "no engine x"),
        (502, StokerError, "no engine x"),
        (401, StokerError, "set STOKER_API_KEY"),
    ],
)
def test_a_problem_becomes_an_error_with_its_own_words(status: int, kind: type[StokerError], says: str) -> None:
    with answering(status, PROBLEM) as (client, _), pytest.raises(kind, match=says) as caught:
        client.get("/engines/x")
    assert type(caught.value) is kind
    with answering(status, PROBLEM) as (client, _), pytest.raises(kind, match=says):
        list(client.text("/engines/x/logs", tail=1))


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (200, b"[1]"), (200, b"\xff"), (500, b"oops"), (302, b""), (404, b'{"error": "x"}'), (204, b"")],
)
def test_a_stranger_is_recognised(status: int, body: bytes) -> None:
    with answering(status, body) as (client, seen), pytest.raises(StokerError, match="is not a Stoker gateway"):
        client.get("/status")
    assert len(seen) == 1  # and no redirection was followed


def test_a_listing_without_a_list_is_a_stranger_too() -> None:
    with answering(200, b"{}") as (client, _), pytest.raises(StokerError, match="is not a Stoker gateway"):
        client.listing("/engines")


def test_a_connection_that_is_cut_is_said_so() -> None:
    with answering(0, b"") as (client, _), pytest.raises(StokerError, match="broke off"):
        client.get("/status")


def test_nobody_there_is_not_running() -> None:
    with answering(200, b"") as (client, _):
        pass
    with Client(client.address) as again, pytest.raises(NotRunningError, match="gateway start"):
        again.get("/status")


def test_a_proxy_of_the_environment_is_not_asked_about_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with answering(200, b"{}") as (client, _):
        assert client.get("/status") == {}
