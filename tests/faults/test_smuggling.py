"""Requests that two readers read differently: every one of them is refused, and its connection closed.

Where haproxy and nginx are installed, the corpus also goes through them: whatever of it they pass on, Stoker reads
exactly one request in it, or none.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.running import HANG_GUARD_SECONDS, until

from .fleet import question
from .stoker_up import Stoker, read_to_the_end, statuses

BODY = json.dumps(question(max_tokens=2)).encode()
HIDDEN = b"POST /v1/hidden HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
POST = b"POST /v1/chat/completions HTTP/1.1"
LENGTH = b"Content-Length: %d" % len(BODY)
CODING = b"Transfer-Encoding: chunked"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


def lines(*headers: bytes, first: bytes = POST, host: bytes = b"Host: localhost") -> bytes:
    """A head of these headers."""
    return b"\r\n".join([first, *([host] if host else []), *headers, b"", b""])


def first(line: bytes) -> bytes:
    return lines(LENGTH, first=line) + BODY


def coded(value: bytes) -> bytes:
    return lines(b"Transfer-Encoding:" + value) + IN_CHUNKS


def measured(value: bytes) -> bytes:
    return lines(b"Content-Length:" + value) + BODY


def in_chunks(chunks: bytes) -> bytes:
    return lines(CODING) + chunks


SIZE = b"%x" % len(BODY)
AMBIGUOUS: dict[str, bytes] = {
    "length, then coding": lines(LENGTH, CODING) + IN_CHUNKS,
    "coding, then length": lines(CODING, LENGTH) + IN_CHUNKS,
    "no length, then coding": lines(b"Content-Length: 0", CODING) + IN_CHUNKS,
    "two lengths": lines(LENGTH, b"Content-Length: 0") + BODY,
    "the same length twice": lines(LENGTH, LENGTH) + BODY,
    "a length in two cases": lines(LENGTH, LENGTH.lower()) + BODY,
    "a list of lengths": measured(b" %d, %d" % (len(BODY), len(BODY))),
    "a length with a sign": measured(b" +%d" % len(BODY)),
    "a negative length": measured(b" -1"),
    "a length in hex": measured(b" 0x10"),
    "a length with an underscore": measured(b" 1_0"),
    "a length with a point": measured(b" 10.0"),
    "a length with a space in it": measured(b" 1 0"),
    "a length in other digits": measured(b" \xd9\xa1"),
    "an empty length": measured(b" "),
    "a length over 64 bits": measured(b" 18446744073709551617"),
    "a length and a NUL": measured(b" %d\0" % len(BODY)),
    "a length and a vertical tab": measured(b"\x0b%d" % len(BODY)),
    "coding: identity": coded(b" identity"),
    "coding: chunked, identity": coded(b" chunked, identity"),
    "coding: identity, chunked": coded(b" identity, chunked"),
    "coding: gzip, chunked": coded(b" gzip, chunked"),
    "coding: chunked twice": coded(b" chunked, chunked"),
    "coding: xchunked": coded(b" xchunked"),
    "coding: chunked in quotes": coded(b' "chunked"'),
    "coding: empty": coded(b" "),
    "coding: with a parameter": coded(b" chunked;q=1"),
    "coding: with a vertical tab": coded(b" \x0bchunked"),
    "coding: with a tab behind it": coded(b" chunked\t"),
    "coding: with a comma": coded(b" ,chunked"),
    "coding: with a NUL": coded(b" chunked\0"),
    "two codings": lines(CODING, b"Transfer-Encoding: identity") + IN_CHUNKS,
    "a space before the colon": lines(b"Content-Length : %d" % len(BODY)) + BODY,
    "a coding with a space before the colon": lines(b"Transfer-Encoding : chunked", LENGTH) + IN_CHUNKS,
    "a tab before the colon": lines(b"Content-Length\t: %d" % len(BODY)) + BODY,
    "a folded header": lines(b"X: a\r\n b", LENGTH) + BODY,
    "a folded coding": lines(b"Transfer-Encoding:\r\n chunked", LENGTH) + IN_CHUNKS,
    "a folded first header": lines(b" X: a", LENGTH, host=b"") + BODY,
    "LF alone after a header": lines(b"X: a\nY: b", LENGTH) + BODY,
    "LF alone before a coding": lines(b"X: a\nTransfer-Encoding: chunked", LENGTH) + IN_CHUNKS,
    "LF alone everywhere": (lines(LENGTH) + BODY).replace(b"\r\n", b"\n"),
    "CR alone": lines(b"X: a\rTransfer-Encoding: chunked", LENGTH) + IN_CHUNKS,
    "CR CR LF": lines(b"X: a\r", LENGTH) + BODY,
    "a name in quotes": lines(b'"Content-Length": 1', LENGTH) + BODY,
    "a name with a NUL": lines(b"Transfer\0-Encoding: chunked", LENGTH) + IN_CHUNKS,
    "a name with a letter that is none": lines(b"Transfer-Encod\xeeng: chunked", LENGTH) + IN_CHUNKS,
    "no colon": lines(b"Transfer-Encoding chunked", LENGTH) + IN_CHUNKS,
    "no name": lines(b": chunked", LENGTH) + IN_CHUNKS,
    "no Host": lines(LENGTH, host=b"") + BODY,
    "two Hosts": lines(b"Host: elsewhere", LENGTH) + BODY,
    "HTTP/2.0": first(b"POST /v1/chat/completions HTTP/2.0"),
    "HTTP/1.2": first(b"POST /v1/chat/completions HTTP/1.2"),
    "HTTP/1.10": first(b"POST /v1/chat/completions HTTP/1.10"),
    "http/1.1": first(b"POST /v1/chat/completions http/1.1"),
    "no version": first(b"POST /v1/chat/completions"),
    "two spaces": first(b"POST  /v1/chat/completions HTTP/1.1"),
    "a tab for a space": first(b"POST\t/v1/chat/completions HTTP/1.1"),
    "a space in the target": first(b"POST /v1/chat/completions x HTTP/1.1"),
    "a NUL in the target": first(b"POST /v1/chat\0/completions HTTP/1.1"),
    "a method in lower case": first(b"post /v1/chat/completions HTTP/1.1"),
    "a space before the method": first(b" POST /v1/chat/completions HTTP/1.1"),
    "3,000 headers": lines(*(b"X-%d: y" % number for number in range(3000)), LENGTH) + BODY,
    "a chunk with a sign": in_chunks(b"+%b\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)),
    "a chunk with 0x": in_chunks(b"0x%b\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)),
    "a chunk size with an underscore": in_chunks(b"1_0\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"),
    "a chunk with LF alone": in_chunks(b"%b\n%b\r\n0\r\n\r\n" % (SIZE, BODY)),
    "a chunk that is longer than it says": in_chunks(b"2\r\n%b\r\n0\r\n\r\n" % BODY),
    "a chunk that ends in something else": in_chunks(b"%b\r\n%bxx0\r\n\r\n" % (SIZE, BODY)),
    "a chunk of over 64 bits": in_chunks(b"1%b\r\n%b\r\n0\r\n\r\n" % (b"0" * 20, BODY)),
    "a chunk extension with LF alone": in_chunks(b"%b;a\nb\r\n%b\r\n0\r\n\r\n" % (SIZE, BODY)),
    "an empty chunk size": in_chunks(b"\r\n%b\r\n0\r\n\r\n" % BODY),
}


@pytest.fixture(autouse=True)
def _unharmed(stoker: Stoker) -> Iterator[None]:
    yield
    assert "Traceback" not in stoker.said


@pytest.mark.parametrize("request_", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(stoker: Stoker, request_: bytes) -> None:
    before = stoker.engine_state()["requests"]
    with stoker.connect() as sock:
        sock.sendall(request_ + HIDDEN)
        received = read_to_the_end(sock)
    assert statuses(received) in ([400], [431])
    assert stoker.engine_state()["requests"] == before


def test_the_corpus_is_what_it_should_be(stoker: Stoker) -> None:
    """Without what is wrong with them they are fine."""
    assert len(AMBIGUOUS) >= 60
    for good in (lines(LENGTH) + BODY, lines(CODING) + IN_CHUNKS):
        with stoker.connect() as sock:
            sock.sendall(good.replace(b"Host:", b"Connection: close\r\nHost:"))
            assert statuses(read_to_the_end(sock)) == [200]


HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  option http-keep-alive
  http-reuse always
frontend in
  bind 127.0.0.1:{port}
  default_backend out
backend out
  server stoker 127.0.0.1:{stoker}
"""
NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; worker_processes 1;
events {{ worker_connections 64; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream stoker {{ server 127.0.0.1:{stoker}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port}; keepalive_timeout 1;
    location / {{
      proxy_pass http://stoker; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header Host localhost; proxy_request_buffering off;
    }}
  }}
}}
"""
PROXIES: dict[str, tuple[str, Callable[[str, Path], list[str]]]] = {
    "haproxy": (HAPROXY, lambda program, conf: [program, "-db", "-q", "-f", str(conf)]),
    "nginx": (NGINX, lambda program, conf: [program, "-e", str(conf.parent / "e.log"), "-c", str(conf)]),
}


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest, stoker: Stoker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a proxy before Stoker, where there is one."""
    program = shutil.which(request.param, path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip(f"{request.param} is not installed")
    template, command = PROXIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    conf = folder / "conf"
    conf.write_text(template.format(port=port, stoker=stoker.address[1], folder=folder))
    process = subprocess.Popen(command(program, conf), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port), f"{request.param} listens")
        yield port
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def test_a_proxy_in_front_reads_the_same_or_refuses(proxy: int, stoker: Stoker) -> None:
    """No request of one client is answered to the next, and none is found in another's body."""
    for name, ambiguous in AMBIGUOUS.items():
        before = stoker.engine_state()["requests"]
        with socket.create_connection(("127.0.0.1", proxy), HANG_GUARD_SECONDS) as sock:
            with contextlib.suppress(OSError):  # it refuses before it has heard all, and resets the connection
                sock.sendall(ambiguous)
                sock.shutdown(socket.SHUT_WR)
            first_ = statuses(read_to_the_end(sock))
        assert sum(status < 400 for status in first_) <= 1, f"{name}: {first_}"  # what follows may be refused
        assert stoker.engine_state()["requests"] <= before + 1, name
        with socket.create_connection(("127.0.0.1", proxy), HANG_GUARD_SECONDS) as sock:
            sock.sendall(lines(b"Connection: close", first=b"GET /health HTTP/1.1"))
            assert statuses(read_to_the_end(sock)) == [200], f"after {name}"
