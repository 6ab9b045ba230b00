"""Answers of engines: both parsers read the same, in whatever pieces they come."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.gateway.framing import AnswerReader, Framing, FramingError

from .test_framing import FRAMINGS

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED_HEADERS = [(b"transfer-encoding", b"chunked")]


@attrs.frozen
class Read:
    """What a reader made of an answer. ``wrong`` says that it raised, ``ended`` that the connection had to end."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    keeps_alive: bool = True
    complete: bool = True
    ended: bool = False
    excess: bool = False
    wrong: bool = False


def read(framing: Framing, pieces: Sequence[bytes]) -> Read:
    return follow(framing.answers(), pieces)


def follow(reader: AnswerReader, pieces: Sequence[bytes]) -> Read:
    wrong = ended = False
    body = b""
    try:
        for piece in pieces:
            reader.feed(piece)
            body += reader.take()
        if not reader.complete:
            ended = True
            reader.end()
    except FramingError:
        wrong = True
    body += reader.take()
    assert reader.fields == dict(reader.headers) or not reader.status
    keeps_alive = reader.complete and reader.keeps_alive
    headers = reader.headers if reader.status else []
    return Read(reader.status, headers, body, keeps_alive, reader.complete, ended, reader.excess, wrong)


def length(count: int) -> list[tuple[bytes, bytes]]:
    return [(b"content-length", b"%d" % count)]


@pytest.fixture(params=FRAMINGS, ids=lambda framing: framing.name)
def framing(request: pytest.FixtureRequest) -> Framing:
    found: Framing = request.param
    return found


CLOSE = (b"connection", b"close")
GOOD: dict[bytes, Read] = {
    OK + b"Content-Length: 2\r\n\r\n{}": Read(200, length(2), b"{}"),
    OK + b"content-length: 0\r\n\r\n": Read(200, length(0), b""),
    b"HTTP/1.1 200\r\ncontent-length: 0\r\n\r\n": Read(200, length(0), b""),
    b"HTTP/1.1 200 \r\ncontent-length: 0\r\n\r\n": Read(200, length(0), b""),
    b"HTTP/1.1 599 \xff odd\r\ncontent-length: 0\r\n\r\n": Read(599, length(0), b""),
    OK + b"X:\r\ny: \t a  b\t \r\ncontent-length: 1\r\n\r\n.": Read(
        200, [(b"x", b""), (b"y", b"a  b"), *length(1)], b"."
    ),
    OK + b"x: 1\r\nX: 2\r\ncontent-length: 0\r\n\r\n": Read(200, [(b"x", b"1"), (b"x", b"2"), *length(0)], b""),
    CHUNKED + b"2\r\n{}\r\n0\r\n\r\n": Read(200, CHUNKED_HEADERS, b"{}"),
    CHUNKED + b"0\r\n\r\n": Read(200, CHUNKED_HEADERS, b""),
    CHUNKED + b"A\r\n0123456789\r\n00a\r\n0123456789\r\n000\r\n\r\n": Read(200, CHUNKED_HEADERS, b"0123456789" * 2),
    CHUNKED + b'1;a=b;c="d;e"\r\n{\r\n1;x\r\n}\r\n0;y=z\r\n\r\n': Read(200, CHUNKED_HEADERS, b"{}"),
    CHUNKED + b"2\r\n\r\n\r\n0\r\nX-Sum: 1\r\nother: 2\r\n\r\n": Read(200, CHUNKED_HEADERS, b"\r\n"),
    OK + b"\r\nuntil the end": Read(200, [], b"until the end", keeps_alive=False, ended=True),
    OK + b"\r\n": Read(200, [], b"", keeps_alive=False, ended=True),
    OK + b"Connection: close\r\n\r\n{}": Read(200, [CLOSE], b"{}", keeps_alive=False, ended=True),
    OK + b"connection: close\r\ncontent-length: 2\r\n\r\n{}": Read(200, [CLOSE, *length(2)], b"{}", keeps_alive=False),
    OK + b"connection: x, Close\r\ncontent-length: 0\r\n\r\n": Read(
        200, [(b"connection", b"x, Close"), *length(0)], b"", keeps_alive=False
    ),
    b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}": Read(200, length(2), b"{}", keeps_alive=False),
    b"HTTP/1.0 200 OK\r\n\r\n{}": Read(200, [], b"{}", keeps_alive=False, ended=True),
    b"HTTP/1.1 204 No Content\r\n\r\n": Read(204, [], b""),
    b"HTTP/1.1 304 Not Modified\r\ncontent-length: 10\r\n\r\n": Read(304, length(10), b""),
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"content-length: 2\r\n\r\n{}": Read(200, length(2), b"{}"),
    b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 3 + CHUNKED + b"1\r\n.\r\n0\r\n\r\n": Read(
        200, CHUNKED_HEADERS, b"."
    ),
}
TORN = (
    *(b"", b"HTTP", OK, OK + b"content-len", OK + b"content-length: 3\r\n\r\n{}", b"HTTP/1.1 100 Continue\r\n\r\n"),
    *(CHUNKED, CHUNKED + b"2", CHUNKED + b"2\r\n{", CHUNKED + b"2\r\n{}", CHUNKED + b"2\r\n{}\r\n"),
    *(CHUNKED + b"2\r\n{}\r\n0\r\n", CHUNKED + b"2\r\n{}\r\n0\r\nx: y\r\n"),
)
BAD = (
    *(b"SSH-2.0-OpenSSH_9.6\r\n\r\n", b"<html>\r\n\r\n", b"200 OK\r\n\r\n", b"http/1.1 200 OK\r\n\r\n"),
    *(b"HTTP/1.1 20 OK\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"HTTP/1.1 abc OK\r\n\r\n", b"HTTP/1.1  200 OK\r\n\r\n"),
    *(b"HTTP/2 200 OK\r\n\r\n", b"HTTP/1.1 -20 OK\r\n\r\n", b" HTTP/1.1 200 OK\r\n\r\n"),
    *(OK.replace(b"\r\n", b"\n") + b"content-length: 0\r\n\r\n", OK + b"x: a\ny: b\r\n\r\n", OK + b"x: a\r\n\n"),
    *(
        OK + b"x: a\r\n b\r\n\r\n",
        OK + b"x: a\r\n\tb\r\n\r\n",
        OK + b"x : a\r\n\r\n",
        OK + b": a\r\n\r\n",
        OK + b"x\r\n\r\n",
    ),
    *(OK + b"x: a%cb\r\n\r\n" % code for code in (*range(9), *range(11, 32), 127)),
    *(OK + b"x\xff: a\r\n\r\n", OK + b"x: a\r\r\n\r\n", OK + b"x y: a\r\n\r\n"),
    *(
        OK + b"content-length: %b\r\n\r\n{}" % given
        for given in (b"+2", b"-2", b"0x2", b"", b"2, 2", b"2 2", b"9" * 20)
    ),
    *(OK + b"content-length: 2\r\ncontent-length: %b\r\n\r\n{}" % given for given in (b"2", b"3")),
    OK + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    OK + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    OK + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    *(
        OK + b"transfer-encoding: %b\r\n\r\n2\r\n{}\r\n0\r\n\r\n" % coding
        for coding in (b"gzip", b"gzip, chunked", b"chunked, gzip", b"xchunked", b"identity", b"")
    ),
    b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"
    + OK
    + b"content-length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK + b"content-length: 0\r\n\r\n",
)
BAD_CHUNKS = (
    *(
        b"zz\r\n{}\r\n0\r\n\r\n",
        b"-2\r\n{}\r\n0\r\n\r\n",
        b"0x2\r\n{}\r\n0\r\n\r\n",
        b"\r\n{}\r\n0\r\n\r\n",
        b" 2\r\n{}\r\n0\r\n\r\n",
    ),
    *(b"2\n{}\r\n0\r\n\r\n", b"2\r{}\r\n0\r\n\r\n", b"2;a\n{}\r\n0\r\n\r\n", b";a\r\n{}\r\n0\r\n\r\n"),
)
BAD_ENDS_OF_CHUNKS = (
    b"}0\r\n\r\n",
    b"\n0\r\n\r\n",
    b"\r\r\n0\r\n\r\n",
    b"\r\n\r\n0\r\n\r\n",
    b"\r\n0\r\nx y: z\r\n\r\n",
)


@pytest.mark.parametrize(("data", "expected"), GOOD.items(), ids=range(len(GOOD)))
def test_a_good_answer_is_read_however_it_is_cut(framing: Framing, data: bytes, expected: Read) -> None:
    assert read(framing, [data]) == expected
    assert read(framing, [data[at : at + 1] for at in range(len(data))]) == expected
    for at in range(1, len(data)):
        assert read(framing, [data[:at], data[at:]]) == expected, data[:at]


@pytest.mark.parametrize("data", TORN, ids=range(len(TORN)))
def test_an_answer_that_is_torn_is_not_taken_for_a_whole_one(framing: Framing, data: bytes) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        found = read(framing, pieces)
        assert (found.ended, found.wrong, found.complete) == (True, True, False)


@pytest.mark.parametrize("data", BAD, ids=range(len(BAD)))
def test_a_bad_head_is_no_answer_at_all(framing: Framing, data: bytes) -> None:
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        found = read(framing, pieces)
        assert found.wrong
        assert (found.status, found.body, found.complete) == (0, b"", False)


@pytest.mark.parametrize("chunks", [*BAD_CHUNKS, *(b"2\r\n{}" + end for end in BAD_ENDS_OF_CHUNKS)])
def test_what_came_before_a_bad_chunk_stays_good(framing: Framing, chunks: bytes) -> None:
    data = CHUNKED + b"4\r\ngood\r\n" + chunks
    body = b"good{}" if chunks.startswith(b"2\r\n") else b"good"
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        assert read(framing, pieces) == Read(200, CHUNKED_HEADERS, body, wrong=True, complete=False, keeps_alive=False)


WHOLE = (
    *(OK + b"content-length: 2\r\n\r\n{}", OK + b"content-length: 0\r\n\r\n", CHUNKED + b"2\r\n{}\r\n0\r\n\r\n"),
    *(b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\ncontent-length: 2\r\n\r\n"),
    OK + b"connection: close\r\ncontent-length: 2\r\n\r\n{}",
)
EXCESSES = (b"x", b"{}", b"H", b" ", b"HTTP/1.1 200 OK\r\n", WHOLE[0], b"HTTP/1.1 100 Continue\r\n\r\n", b"\x00" * 1000)


@pytest.mark.parametrize("answer", WHOLE, ids=range(len(WHOLE)))
@pytest.mark.parametrize("excess", EXCESSES, ids=range(len(EXCESSES)))
def test_what_follows_an_answer_is_seen_and_changes_nothing_of_it(
    framing: Framing, answer: bytes, excess: bytes
) -> None:
    """Where it comes in the same moment: what comes later is noticed when the connection is to be used again."""
    alone = read(framing, [answer])
    assert not alone.excess
    for at in range(len(answer) + 1):
        found = read(framing, [answer[:at], answer[at:] + excess])
        assert (found.excess, found.complete, found.wrong) == (True, True, False)
        assert (found.status, found.headers, found.body) == (alone.status, alone.headers, alone.body)


def test_answers_follow_each_other_on_one_connection(framing: Framing) -> None:
    reader = framing.answers()
    kept = [(data, expected) for data, expected in GOOD.items() if expected.keeps_alive]
    for data, expected in [*kept, *reversed(kept)]:
        reader.begin()
        assert (reader.status, reader.complete, reader.take()) == (0, False, b"")
        assert follow(reader, [data]) == expected


def chunked(parts: Sequence[bytes], extension: bytes, trailer: bytes) -> bytes:
    chunks = [b"%x%b\r\n%b\r\n" % (len(part), extension, part) for part in parts if part]
    return b"".join(chunks) + b"0%b\r\n%b\r\n" % (extension, trailer)


TOKENS = st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
VALUES = st.from_regex(rb"([\x21-\x7e\x80-\xff]([\t \x21-\x7e\x80-\xff]{0,20}[\x21-\x7e\x80-\xff])?)?", fullmatch=True)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A well-formed answer, perhaps torn off or with more behind it."""
    status = draw(st.sampled_from([200, 200, 200, 204, 304, 404, 500, 503]))
    # HTTP/1.0 with keep-alive is left out: h11 does without, which only costs a connection. llhttp alone takes the
    # old Proxy-Connection for Connection, and looks into trailers.
    framing_names = (b"content-length", b"transfer-encoding", b"connection", b"proxy-connection", b"upgrade")
    names = TOKENS.filter(lambda name: name.lower() not in framing_names)
    headers = draw(st.lists(st.tuples(names, VALUES), max_size=5))
    body = draw(st.lists(st.one_of(st.binary(max_size=50), st.just(b"\r\n"), st.just(b"0\r\n\r\n")), max_size=4))
    match draw(st.sampled_from(["length", "chunked", "until close"])):
        case "length":
            headers.append((b"Content-Length", b"%d" % len(b"".join(body))))
            payload = b"".join(body)
        case "chunked":
            headers.append((b"Transfer-Encoding", b"chunked"))
            extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
            payload = chunked(body, extension, draw(st.sampled_from([b"", b"x: y\r\n"])))
        case _:
            payload = b"".join(body)
    if status in (204, 304):
        payload = b""
    if draw(st.booleans()):
        headers.insert(0, (b"Connection", draw(st.sampled_from([b"close", b"keep-alive", b"x"]))))
    before = draw(st.sampled_from([b"", b"", b"HTTP/1.1 100 Continue\r\n\r\n"]))
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    data: bytes = before + b"HTTP/1.1 %d Something\r\n%b\r\n%b" % (status, lines, payload)
    match draw(st.sampled_from(["whole", "whole", "torn", "more"])):
        case "torn":
            data = data[: draw(st.integers(0, len(data)))]
        case "more":
            data += draw(st.sampled_from(EXCESSES[:-1]))
    return data


@settings(max_examples=500, deadline=None)
@given(answers(), st.lists(st.integers(0, 400), max_size=8))
def test_both_read_the_same_however_it_is_cut(data: bytes, cuts: list[int]) -> None:
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    fast, portable = (read(framing, pieces) for framing in FRAMINGS)
    assert fast == portable
    whole = read(FRAMINGS[0], [data])
    assert fast == whole
