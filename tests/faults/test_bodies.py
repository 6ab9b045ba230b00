"""Bodies that mean harm: refused with a word about why, never a 500, and never read much further than their limit."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest

from .fleet import CHAT, question
from .stoker_up import Stoker, post, read_to_the_end, status_of, statuses

LIMIT = 64 * 1024 * 1024
MIB = 1024 * 1024
CHUNKED = b"Transfer-Encoding: chunked"
CLOSE = "Connection: close"


@pytest.fixture(autouse=True)
def _unharmed(stoker: Stoker) -> Iterator[None]:
    before, said = stoker.footprint(), len(stoker.said)
    yield
    stoker.serves()
    stoker.has_let_go(before)
    assert "Traceback" not in stoker.said[said:]
    assert "a connection failed" not in stoker.said[said:]


def answer_to(stoker: Stoker, request: bytes) -> bytes:
    with stoker.connect() as sock:
        with contextlib.suppress(ConnectionError):
            sock.sendall(request)
        return read_to_the_end(sock)


def head(*lines: bytes, path: str = CHAT) -> bytes:
    return b"\r\n".join([b"POST %b HTTP/1.1" % path.encode(), b"Host: localhost", *lines, b"", b""])


@pytest.mark.parametrize("path", [CHAT, "/v1/management/engines/start"])
@pytest.mark.parametrize("way", ["told", "told and expected", "chunked"])
def test_a_hundred_megabytes_are_refused_and_not_read(stoker: Stoker, way: str, path: str) -> None:
    """What still comes is left where it is: the sender gets stuck, and not the gateway."""
    limit = LIMIT if path == CHAT else MIB
    lines = {
        "told": [b"Content-Length: 100000000"],
        "told and expected": [b"Content-Length: 100000000", b"Expect: 100-continue"],
        "chunked": [CHUNKED],
    }[way]
    token = stoker.home.admin_token.read_text().strip().encode()
    sent = 0
    with stoker.connect() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * 1024)
        sock.sendall(head(*lines, b"Authorization: Bearer " + token, path=path))
        piece = b"x" * 65536
        piece = b"%x\r\n%b\r\n" % (len(piece), piece) if way == "chunked" else piece
        sock.settimeout(1)
        with contextlib.suppress(OSError):
            while sent < 100_000_000 and way != "told and expected":
                sent += sock.send(piece[sent % len(piece) :])
        sock.settimeout(30)
        received = read_to_the_end(sock)
    in_buffers = 12 * MIB  # what the system takes on both sides, whoever reads
    assert sent < (limit if way == "chunked" else 0) + MIB + in_buffers
    if way == "told and expected":
        assert statuses(received)[-1] == 413
    else:
        assert status_of(received) in (413, 0)  # 0: reset, because what it sent was not read


def deep(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'{"model": "fake", "messages": [], "x": %b0%b}' % (opening * depth, closing * depth)


REFUSED = {
    "depth 65": deep(64),
    "depth 990": deep(990),
    "depth 100,000": deep(100_000),
    "objects": deep(100_000, b'{"a":', b"}"),
    "never closed": b"[" * 1_000_000,
    "UTF-16": json.dumps(question()).encode("utf-16"),
    "UTF-32": json.dumps(question()).encode("utf-32"),
    "bad UTF-8": b'{"model": "fake", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
    "an overlong encoding": b'{"model": "fa\xc0\xabke"}',
    "half a surrogate pair for a model": rb'{"model": "\ud800"}',
    "a surrogate as bytes": b'{"model": "\xed\xa0\x80"}',
    "nothing": b"",
    "white space": b" " * 100_000,
    "a NUL": b"\0",
    "a list": b"[1, 2]",
    "a number of a million digits": b"1" * 1_000_000,
    "half of it": json.dumps(question()).encode()[:-3],
    "two of them": json.dumps(question()).encode() * 2,
    "NaN for a model": b'{"model": NaN}',
}
PASSED = {
    "NaN": b'{"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "x": [NaN, Infinity]}',
    "half a surrogate pair": b'{"model": "fake", "messages": [{"role": "user", "content": "\\udc00"}], "n": 1}',
    "twice a member": b'{"model": "nobody", "model": "fake", "messages": [{"role": "user", "content": "Hi"}], '
    b'"max_tokens": 1, "max_tokens": 2}',
    "depth 64": b'{"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2, "x": %b%b}'
    % (b"[" * 63, b"]" * 63),
}


@pytest.mark.parametrize("lane", ["express", "other"])
@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_what_is_no_json_is_refused(stoker: Stoker, body: bytes, lane: str) -> None:
    request = post(body, CHAT, CLOSE)
    if lane == "other":
        pieces = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        request = head(CHUNKED, CLOSE.encode()) + pieces + b"0\r\n\r\n"
    received = answer_to(stoker, request)
    assert status_of(received) == 400
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["message"]


@pytest.mark.parametrize("body", PASSED.values(), ids=PASSED)
def test_what_is_the_engines_to_judge_gets_there(stoker: Stoker, body: bytes) -> None:
    before = stoker.engine_state()["requests"]
    answer_to(stoker, post(body, CHAT, CLOSE))
    assert stoker.engine_state()["requests"] == before + 1


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
def test_nor_does_management_fail_at_any(stoker: Stoker, body: bytes) -> None:
    token = stoker.home.admin_token.read_text().strip()
    request = post(body, "/v1/management/engines/register", f"Authorization: Bearer {token}")
    assert status_of(answer_to(stoker, request)) == 400


@pytest.mark.parametrize("target", ["?a", "?", "*", "//", "/%00", "/%ff", "/..", "/\\", "http://x", "http://[", "/a#b"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
def test_no_target_is_a_defect(stoker: Stoker, method: str, target: str) -> None:
    """Quart answered 500 to the first."""
    received = answer_to(stoker, f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".encode())
    assert 200 <= status_of(received) < 500
