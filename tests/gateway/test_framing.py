"""Heads of requests: both parsers accept the same, with the same result, and refuse the same."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.gateway.framing import HEAD_END, MOST_HEADERS, Framing, FramingError, RequestHead
from stoker.gateway.h11_framing import H11Framing
from stoker.gateway.llhttp import LlhttpFraming, best_framing

FRAMINGS: tuple[Framing, ...] = (LlhttpFraming(httptools), H11Framing())
CONTROLS = [bytes([code]) for code in (*range(0x20), 0x7F) if code != ord("\t")]

Head = tuple[bytes, bytes, bytes, list[tuple[bytes, bytes]]]


def head(line: bytes = b"POST /x HTTP/1.1", *headers: bytes, host: bytes = b"host: h") -> bytes:
    lines = (line, *([host] if host else []), *headers)
    return b"\r\n".join(lines) + HEAD_END


def with_header(header: bytes) -> bytes:
    return head(b"POST /x HTTP/1.1", header)


def read(framing: Framing, data: bytes) -> Head | None:
    """What it makes of a head; None if it refuses it. Of a transfer coding the case does not matter."""
    try:
        read = framing.read_head(data)
    except FramingError:
        return None
    assert read.fields == dict(read.headers)
    assert read.repeated == (len(read.headers) > len(read.fields))
    headers = [(name, value.lower() if name == b"transfer-encoding" else value) for name, value in read.headers]
    return read.method, read.target, read.version, headers


@pytest.fixture(params=FRAMINGS, ids=lambda framing: framing.name)
def framing(request: pytest.FixtureRequest) -> Framing:
    found: Framing = request.param
    return found


def test_the_fastest_framing_there_is_is_taken() -> None:
    assert [best_framing(module).name for module in (httptools, None)] == ["httptools", "h11"]


HOST = (b"host", b"h")
GOOD: dict[bytes, Head] = {
    head(): (b"POST", b"/x", b"1.1", [HOST]),
    head(b"GET / HTTP/1.0", host=b""): (b"GET", b"/", b"1.0", []),
    head(b"OPTIONS * HTTP/1.1"): (b"OPTIONS", b"*", b"1.1", [HOST]),
    head(b"GET http://h:80/x?y#z HTTP/1.1"): (b"GET", b"http://h:80/x?y#z", b"1.1", [HOST]),
    head(b"GET https://[::1] HTTP/1.1"): (b"GET", b"https://[::1]", b"1.1", [HOST]),
    head(b"GET /?a=b&c=%20#d?e HTTP/1.1"): (b"GET", b"/?a=b&c=%20#d?e", b"1.1", [HOST]),
    head(b"GET /!\"$%&'()*+,-./:;<=>@[\\]^_`{|}~ HTTP/1.1"): (
        b"GET",
        b"/!\"$%&'()*+,-./:;<=>@[\\]^_`{|}~",
        b"1.1",
        [HOST],
    ),
    with_header(b"Content-Length: 0"): (b"POST", b"/x", b"1.1", [HOST, (b"content-length", b"0")]),
    with_header(b"CONTENT-LENGTH:\t 0012 \t"): (b"POST", b"/x", b"1.1", [HOST, (b"content-length", b"0012")]),
    with_header(b"content-length: " + b"9" * 19): (b"POST", b"/x", b"1.1", [HOST, (b"content-length", b"9" * 19)]),
    with_header(b"Transfer-Encoding: Chunked"): (b"POST", b"/x", b"1.1", [HOST, (b"transfer-encoding", b"chunked")]),
    head(b"POST /x HTTP/1.1", b"Empty:", b"Blank: \t ", b"After: x", b"Last:"): (
        b"POST",
        b"/x",
        b"1.1",
        [HOST, (b"empty", b""), (b"blank", b""), (b"after", b"x"), (b"last", b"")],
    ),
    head(b"POST /x HTTP/1.1", b"X: 1", b"x: 2", b"X: 1"): (
        b"POST",
        b"/x",
        b"1.1",
        [HOST, (b"x", b"1"), (b"x", b"2"), (b"x", b"1")],
    ),
    with_header(b"!#$%&'*+-.^_`|~0aZ: a  b\tc"): (b"POST", b"/x", b"1.1", [HOST, (b"!#$%&'*+-.^_`|~0az", b"a  b\tc")]),
    with_header(b"x: " + bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100))): (
        b"POST",
        b"/x",
        b"1.1",
        [HOST, (b"x", bytes(range(0x21, 0x7F)) + bytes(range(0x80, 0x100)))],
    ),
    head(b"GET / HTTP/1.1", b"Connection: Upgrade", b"Upgrade: websocket"): (
        b"GET",
        b"/",
        b"1.1",
        [HOST, (b"connection", b"Upgrade"), (b"upgrade", b"websocket")],
    ),
    head(b"POST / HTTP/1.1", *([b"a: b"] * (MOST_HEADERS - 1))): (
        b"POST",
        b"/",
        b"1.1",
        [HOST, *([(b"a", b"b")] * (MOST_HEADERS - 1))],
    ),
} | {head(method + b" / HTTP/1.1"): (method, b"/", b"1.1", [HOST]) for method in (b"HEAD", b"PUT", b"PATCH", b"DELETE")}


@pytest.mark.parametrize(("data", "expected"), GOOD.items(), ids=itertools.count())
def test_a_good_head_is_read(framing: Framing, data: bytes, expected: Head) -> None:
    assert read(framing, data) == expected


def test_a_head_has_the_last_value_of_each_name(framing: Framing) -> None:
    found = framing.read_head(head(b"POST /x HTTP/1.1", b"X: 1", b"x: 2"))
    assert isinstance(found, RequestHead)
    assert (found.fields, found.repeated) == ({b"host": b"h", b"x": b"2"}, True)


LENGTHS = (b"+2", b"-2", b"0x2", b"2 2", b"2, 2", b"2,2", b"", b"\t", b"two", b"2.0", b"1_0", b"2;", b"\xb2", b'"2"')
CODINGS = (
    *(b"gzip", b"identity", b"gzip, chunked", b"chunked, gzip", b"chunked, chunked", b"xchunked", b"chunkedx", b""),
    *(b",chunked", b"chunked,", b"chunked;q=1", b'"chunked"', b"\x0bchunked", b"chunked\t", b"chun ked"),
)
CL, TE = b"content-length: 2", b"transfer-encoding: chunked"
LINES = (
    *(b"GET / HTTP/0.9", b"GET / HTTP/1.2", b"GET / HTTP/2.0", b"GET / HTTP/11.1", b"GET / HTTP/1.11", b"GET / HTTP/1"),
    *(b"GET / HTTP/1.", b"GET / HTTP/.1", b"GET / RTSP/1.0", b"GET / ICE/1.0", b"GET / http/1.1", b"GET / HTTPS/1.1"),
    *(b"GET /", b"GET / ", b"GET", b"GET  HTTP/1.1", b"GET HTTP/1.1", b" GET / HTTP/1.1", b"GET  / HTTP/1.1"),
    *(
        b"GET /  HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET /\tHTTP/1.1",
        b"GET / HTTP/1.1 ",
        b"GET / HTTP/1.1\t",
        b"GET /a b ",
    ),
    *(
        b"get / HTTP/1.1",
        b"Post / HTTP/1.1",
        b"BREW / HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"PRI / HTTP/1.1",
        b"G@T / HTTP/1.1",
    ),
    *(b"CONNECT h:80 HTTP/1.1", b"CONNECT / HTTP/1.1", b"SOURCE / HTTP/1.1", b"M-SEARCH / HTTP/1.1"),
    *(b"GET x HTTP/1.1", b"GET x:1 HTTP/1.1", b"GET ?x HTTP/1.1", b"GET #x HTTP/1.1", b"GET *x HTTP/1.1"),
    *(b"GET http:/x HTTP/1.1", b"GET http:// HTTP/1.1", b"GET http://a b/ HTTP/1.1", b"GET http://a@b/ HTTP/1.1"),
    *(b"GET ftp://x/ HTTP/1.1", b"GET file:///x HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1", b"GET /?\xff HTTP/1.1"),
)
BAD: dict[str, bytes] = {
    **{f"length {value!r}": with_header(b"content-length: " + value) for value in LENGTHS},
    **{f"length of {digits} digits": with_header(b"content-length: " + b"1" * digits) for digits in (20, 21, 5000)},
    "length of 20 digits, most of them zeros": with_header(b"content-length: " + b"0" * 19 + b"2"),
    **{f"coding {value!r}": with_header(b"transfer-encoding: " + value) for value in CODINGS},
    "both, length first": head(b"POST /x HTTP/1.1", CL, TE),
    "both, coding first": head(b"POST /x HTTP/1.1", TE, CL),
    "both, the coding not chunked": head(b"POST /x HTTP/1.1", CL, b"transfer-encoding: identity"),
    "both, the coding empty": head(b"POST /x HTTP/1.1", CL, b"transfer-encoding:"),
    "length twice, equal": head(b"POST /x HTTP/1.1", CL, CL),
    "length twice, unequal": head(b"POST /x HTTP/1.1", CL, b"Content-Length: 3"),
    "length twice, one empty": head(b"POST /x HTTP/1.1", b"content-length:", CL),
    "coding twice": head(b"POST /x HTTP/1.1", TE, TE),
    "two codings in two lines": head(b"POST /x HTTP/1.1", b"transfer-encoding: gzip", TE),
    "folded by a space": head(b"POST /x HTTP/1.1", b"x: a", b" b"),
    "folded by a tab": head(b"POST /x HTTP/1.1", b"x: a", b"\tb"),
    "folded, and nothing but": head(b"POST /x HTTP/1.1", b"x: a", b" "),
    "folded before the first header": head(b"POST /x HTTP/1.1", b" x: a", host=b""),
    "folded length": head(b"POST /x HTTP/1.1", b"content-length:", b" 2"),
    "space before the colon": with_header(b"x : a"),
    "tab before the colon": with_header(b"x\t: a"),
    "space before the colon of a length": with_header(b"content-length : 2"),
    "no name": with_header(b": a"),
    "no colon": with_header(b"x"),
    "space in a name": with_header(b"x y: a"),
    "8-bit in a name": with_header(b"x\xe9: a"),
    **{f"{char!r} in a name": with_header(b"x%cy: a" % char) for char in b'"(),/;<=>?@[\\]{}'},
    **{f"line {line!r}": head(line) for line in LINES},
    "no host": head(host=b""),
    "host twice, equal": with_header(b"Host: h"),
    "host twice, unequal": with_header(b"host: other"),
    "host twice in 1.0": head(b"GET / HTTP/1.0", b"host: other"),
    "too many headers": head(b"POST / HTTP/1.1", *([b"a: b"] * MOST_HEADERS)),
    "nothing": HEAD_END,
    "an empty line before": b"\r\n" + head(),
    "all lines end in LF": head().replace(b"\r\n", b"\n") + HEAD_END,
    "all lines end in CR": head().replace(b"\r\n", b"\r") + HEAD_END,
}
WHERE: dict[str, Callable[[bytes], bytes]] = {
    "in the method": lambda char: head(b"PO%bST / HTTP/1.1" % char),
    "in the target": lambda char: head(b"POST /a%bb HTTP/1.1" % char),
    "in the query": lambda char: head(b"POST /a?%bb HTTP/1.1" % char),
    "in the version": lambda char: head(b"POST / HTTP/1%b.1" % char),
    "before the first line": lambda char: char + head(),
    "at the end of the first line": lambda char: head(b"POST / HTTP/1.1" + char),
    "before a name": lambda char: with_header(char + b"x: a"),
    "in a name": lambda char: with_header(b"x%by: a" % char),
    "before the colon": lambda char: with_header(b"x%b: a" % char),
    "at the begin of a value": lambda char: with_header(b"x:%ba" % char),
    "in a value": lambda char: with_header(b"x: a%bb" % char),
    "at the end of a value": lambda char: with_header(b"x: a" + char),
    "at the end of a length": lambda char: with_header(b"content-length: 2" + char),
    "in a length": lambda char: with_header(b"content-length: 2%b2" % char),
    "alone in a value": lambda char: with_header(b"x: " + char),
    "at the end": lambda char: head(b"POST /x HTTP/1.1", b"x: a")[:-2] + char + b"\r\n",
}


@pytest.mark.parametrize("data", BAD.values(), ids=BAD.keys())
def test_a_bad_head_is_refused(framing: Framing, data: bytes) -> None:
    assert read(framing, data) is None


@pytest.mark.parametrize("make", WHERE.values(), ids=WHERE.keys())
def test_no_control_character_stands_anywhere(framing: Framing, make: Callable[[bytes], bytes]) -> None:
    """Bare CR and bare LF among them."""
    assert [char for char in CONTROLS if read(framing, make(char)) is not None] == []


@pytest.mark.parametrize("ending", [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\x0b"])
def test_every_line_ends_in_cr_lf(framing: Framing, ending: bytes) -> None:
    lines = head(b"POST /x HTTP/1.1", b"content-length: 2", b"x: a").split(b"\r\n")
    for number in range(len(lines) - 2):  # the last ones make the empty line
        data = b"\r\n".join(lines[: number + 1]) + ending + b"\r\n".join(lines[number + 1 :])
        assert read(framing, data) is None, data


PIECES = st.one_of(
    st.sampled_from(
        [b" ", b"\t", b":", b",", b"\r", b"\n", b"\r\n", b"\x00", b"\x0b", b"\x7f", b"\x80", b"/", b"?", b"#"]
    ),
    st.sampled_from([b"chunked", b"Content-Length: 3", b"Host: x", b"HTTP/1.1", b"2", b"close", b"Transfer-Encoding:"]),
    st.binary(min_size=1, max_size=2),
)


@st.composite
def mutated_heads(draw: st.DrawFn) -> bytes:
    """A good head to which a few things have happened."""
    data = draw(st.sampled_from([data for data in GOOD if len(data) < 500]))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        lines = data.split(b"\r\n")
        number = draw(st.integers(0, len(lines) - 1))
        match draw(st.integers(0, 5)):
            case 0:
                data = data[:start] + draw(PIECES) + data[start:]
            case 1:
                data = data[:start] + data[start + draw(st.integers(1, 4)) :]
            case 2:
                piece = draw(PIECES)
                data = data[:start] + piece + data[start + len(piece) :]
            case 3:
                data = b"\r\n".join([*lines[: number + 1], *lines[number:]])
            case 4:
                data = b"\r\n".join(lines[:number]) + draw(PIECES) + b"\r\n".join(lines[number:])
            case _:
                data = b"\r\n".join([*lines[:number], draw(st.sampled_from([CL, TE, b"a: b"])), *lines[number:]])
    return (data + HEAD_END).partition(HEAD_END)[0] + HEAD_END


@settings(max_examples=1500, deadline=None)
@given(mutated_heads())
def test_both_make_the_same_of_any_head(data: bytes) -> None:
    fast, portable = (read(framing, data) for framing in FRAMINGS)
    assert fast == portable
