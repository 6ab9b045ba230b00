"""Whatever is sent, the answer is a clear one of OpenAI's shape, and the app goes on."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
import trio
from tests.web.conftest import BEARER, World, error_of

from stoker.web.doors import MOST_BODY_BYTES

START = "/engines/start"


async def test_what_is_not_there_is_named(world: World) -> None:
    answer = await world.anyone.get("/v2/models?x=1")
    assert answer.status_code == 404
    assert "'/v2/models'" in error_of(answer)["message"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/health", {"GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/v1/models", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/v1/chat/completions", {"POST"}),
        ("GET", "/v1/audio/speech", {"POST"}),
    ],
)
async def test_a_method_that_does_not_fit_is_answered_with_those_that_do(
    world: World, method: str, path: str, allowed: set[str]
) -> None:
    answer = await world.anyone.request(method, path)
    assert answer.status_code == 405
    assert set(answer.headers["allow"].split(", ")) == allowed
    assert error_of(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/management/engines", "/v1/management/events"])
async def test_head_is_get_without_the_body(world: World, path: str) -> None:
    answer = await world.anyone.head(path, headers=BEARER)
    assert answer.status_code == 200
    assert answer.content == b""


async def test_a_slash_too_many_at_the_end_does_not_matter_and_nothing_redirects(world: World) -> None:
    assert (await world.anyone.get("/v1/models/")).status_code == 200
    assert (await world.anyone.get("//v1//models")).status_code == 404


# Bodies


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "line 1, column 2"),
        (b'{\n "model": m}', "line 2, column 11"),
        (b'{"model": "m",}', "line 1, column"),
        (b'{"model": "m"} x', "Extra data at line 1, column 16"),
        (b"[1]", "must be a JSON object, not a list"),
        (b'"m"', "not a text"),
        (b"1", "not a number"),
        (b"null", "not null"),
        (b"true", "not true or false"),
        (b"\xff\xfe", "not UTF-8 (at byte 0)"),
        ('{"model": "m"}'.encode("utf-16"), "not UTF-8"),
        ('{"model": "m"}'.encode("utf-16-le"), "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"model": "m", "gpus": ' + b"9" * 5000 + b"}", "not usable JSON"),
        (b'{"model": "m", "stall_seconds": NaN}', "NaN is not a JSON number"),
        (b'{"model": "m", "stall_seconds": -Infinity}', "-Infinity"),
        (b'{"model": "\\ud800"}', "half a surrogate pair"),
        (b'{"\\udc00": 1}', "half a surrogate pair"),
        (b"model=m", "line 1, column 1"),
    ],
)
async def test_a_body_that_is_not_a_json_object_is_told_what_is_wrong(world: World, body: bytes, words: str) -> None:
    answer = await world.api.post(START, content=body)
    assert answer.status_code == 400
    assert words in error_of(answer)["message"]


@pytest.mark.parametrize("body", [b" ", b"\r\n\t", b"\x0c"])
async def test_a_body_that_may_be_left_out_is_not_blank(world: World, body: bytes) -> None:
    """The document allows a JSON object or nothing; white space was taken for nothing."""
    await world.start("e")
    for path in ("/engines/e/restart", "/engines/e/stop"):
        answer = await world.api.post(path, content=body)
        assert answer.status_code == 400
        assert error_of(answer)["message"] == "the body is white space; send a JSON object, or no body at all"
        assert (await world.api.post(path, content=b"")).status_code == 202


async def test_a_deeply_nested_value_in_a_spec_is_refused_too(world: World) -> None:
    answer = await world.api.post(START, content=b'{"model": "m", "metadata": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}")
    assert answer.status_code == 400
    assert "nested too deeply" in error_of(answer)["message"]


async def test_a_body_may_begin_with_a_byte_order_mark_and_have_any_content_type(world: World) -> None:
    body = b'\xef\xbb\xbf{"model": "m"}'
    answer = await world.api.post(START, content=body, headers={"Content-Type": "text/plain"})
    assert answer.status_code == 202


async def test_a_body_over_the_limit_is_refused(world: World) -> None:
    whole = json.dumps({"model": "m", "metadata": {"x": "y" * MOST_BODY_BYTES}}).encode()

    async def in_chunks() -> Any:
        for start in range(0, len(whole), 65536):
            yield whole[start : start + 65536]

    for content in (whole, in_chunks()):
        answer = await world.api.post(START, content=content)
        assert answer.status_code == 413
        assert "1048576 bytes" in error_of(answer)["message"]
    assert not world.supervisor.infos()


@pytest.mark.parametrize("framing", ["Content-Length: 200000000", "Transfer-Encoding: chunked"])
async def test_no_more_of_it_is_read_however_long_the_refusal_takes(
    world: World, monkeypatch: pytest.MonkeyPatch, framing: str
) -> None:
    """While the audit trail was written, as long as a busy machine took for that, the rest of the body was read."""
    written = trio.Event()

    async def write_slowly(*_: object) -> None:
        await written.wait()

    monkeypatch.setattr(type(world.app.auditor), "note", write_slowly)
    head = f"POST /v1/management{START} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {BEARER['Authorization']}\r\n"
    piece = b"x" * 65536 if "Length" in framing else b"10000\r\n" + b"x" * 65536 + b"\r\n"
    sent = 0
    async with await trio.open_tcp_stream("127.0.0.1", world.port) as stream:
        await stream.send_all(f"{head}{framing}\r\n\r\n".encode())
        with trio.move_on_after(1):  # as much as it would take to send all
            while sent < 200_000_000:
                await stream.send_all(piece)
                sent += len(piece)
        written.set()
    assert sent < 2 * MOST_BODY_BYTES + 16_000_000, "what the system buffers on both sides, and no more"


async def test_a_body_that_does_not_come_is_not_waited_for(world: World) -> None:
    world.app.config["BODY_TIMEOUT"] = 0.01
    head = f"POST /v1/management{START} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {BEARER['Authorization']}\r\n"
    with trio.fail_after(10):
        status, body = await world.send_raw(f"{head}Content-Length: 9\r\n\r\n{{".encode())
    assert status == 408
    assert json.loads(body)["error"]["code"] == "request_timeout"


# Odd requests


@pytest.mark.parametrize("target", ["?a", "x", "http://[", "http:", "foo/../health", "*"])
async def test_a_target_that_is_no_path_is_a_bad_request(world: World, target: str) -> None:
    status, body = await world.send_raw(
        f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert status == 400
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


async def test_a_target_may_be_a_whole_url(world: World) -> None:
    target = "http://localhost/v1/models/http://x/y"
    status, body = await world.send_raw(
        f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert (status, "http://x/y" in json.loads(body)["error"]["message"]) == (404, True)


@pytest.mark.parametrize(
    "target",
    ["/%ff%fe", "/%00", "/v1/models/%0d%0aX: y", "/?%ff=%ff", "/health?" + "a=1&" * 2000, "/v1/management/%2e%2e/x"],
)
async def test_strange_targets_get_ordinary_answers(world: World, target: str) -> None:
    head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    status, body = await world.send_raw(head.replace("X: y", "X").encode())
    assert status in (200, 401, 404)
    json.loads(body)


async def test_an_old_client_needs_no_host(world: World) -> None:
    status, body = await world.send_raw(b"GET /health HTTP/1.0\r\n\r\n")
    assert (status, json.loads(body)) == (200, {"status": "ok"})


async def test_a_websocket_is_refused(world: World) -> None:
    head = (
        "GET /v1/management/events HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    status, _ = await world.send_raw(head.encode())
    assert status == 403
    assert (await world.anyone.get("/health")).status_code == 200


# The token


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/engines"),
        ("POST", "/engines/start"),
        ("POST", "/engines/m/stop"),
        ("DELETE", "/engines/m"),
        ("GET", "/backends"),
        ("GET", "/events"),
        ("POST", "/reload"),
        ("PUT", "/engines"),
        ("OPTIONS", "/engines"),
        ("GET", "/nothing"),
        ("GET", ""),
        ("GET", "/"),
    ],
)
async def test_management_needs_the_token(world: World, method: str, path: str) -> None:
    answer = await world.anyone.request(method, f"/v1/management{path}")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "$STOKER_HOME/admin-token" in error_of(answer)["message"]


@pytest.mark.parametrize("given", [b"Bearer wrong", b"Basic dGhl", b"Bearer \xe9\xff", b"Bearer", b"\xff"])
async def test_another_token_does_not_do(world: World, given: bytes) -> None:
    answer = await world.anyone.get("/v1/management/engines", headers={b"authorization": given})
    assert answer.status_code == 401


async def test_with_the_token_unknown_management_paths_are_just_not_found(world: World) -> None:
    assert (await world.api.get("/nothing")).status_code == 404


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/v1/managementx"])
async def test_everything_else_needs_none(world: World, path: str) -> None:
    assert (await world.anyone.get(path)).status_code != 401


# Every answer


async def test_a_request_keeps_its_id_or_gets_one(world: World) -> None:
    kept = await world.anyone.get("/health", headers={"X-Request-ID": "abc-1"})
    assert kept.headers["x-request-id"] == "abc-1"
    made = [(await world.anyone.get("/nowhere")).headers["x-request-id"] for _ in range(2)]
    assert made[0] != made[1]
    unfit = await world.anyone.get("/health", headers={"X-Request-ID": "a b"})
    assert " " not in unfit.headers["x-request-id"]


async def test_a_defect_is_contained_logged_and_named_by_its_request_id(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError("a secret detail")

    monkeypatch.setattr(type(world.supervisor), "infos", fail)
    with caplog.at_level(logging.ERROR):
        answer = await world.api.get("/engines", headers={"X-Request-ID": "abc-1"})
    assert answer.status_code == 500
    error = error_of(answer)
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "abc-1" in error["message"]
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] == "abc-1"
    (record,) = [record for record in caplog.records if record.name.startswith("stoker")]
    assert "abc-1" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert (await world.anyone.get("/health")).status_code == 200


async def test_a_defect_while_several_engines_are_waited_for_is_contained_too(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise ZeroDivisionError

    monkeypatch.setattr(type(world.supervisor), "wait_until_settled", fail)
    answer = await world.api.post("/engines/start?wait=ready", json={"model": "m", "replicas": 2})
    assert answer.status_code == 500
    assert error_of(answer)["code"] == "internal_error"
    assert "ZeroDivisionError" in caplog.text
