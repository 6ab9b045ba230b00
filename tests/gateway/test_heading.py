"""Heads that come again: recognised, and never taken for others."""

from __future__ import annotations

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.codes import Code
from stoker.gateway import heading
from stoker.gateway.answers import Answer, error
from stoker.gateway.framing import Framing, FramingError
from stoker.gateway.h11_framing import H11Framing
from stoker.gateway.headers import HeaderList
from stoker.gateway.heading import HeadReader
from stoker.gateway.llhttp import LlhttpFraming

from .raw import request

FRAMINGS: tuple[Framing, ...] = (LlhttpFraming(httptools), H11Framing())
HEAD = request(b"Content-Length: 5", b"X: y")


@pytest.fixture(params=FRAMINGS, ids=lambda framing: framing.name)
def framing(request: pytest.FixtureRequest) -> Framing:
    found: Framing = request.param
    return found


def read(reader: HeadReader, data: bytes) -> object:
    """All that a reader says of a head."""
    try:
        head, length = reader.read(data)
    except FramingError:
        return "refused"
    if head is None:
        return "not express"
    lines = [head.lines(streamed=streamed) for streamed in (False, True)]
    return head.path, head.target, head.headers, head.closes, head.expects, head.refusal, lines, length


def test_a_head_is_recognised_whatever_the_length_of_its_body(framing: Framing) -> None:
    reader = HeadReader(framing, None)
    reader.read(HEAD)
    first, length = reader.read(HEAD)
    assert (first is not None, length) == (True, 5)
    for digits in (b"5", b"0", b"12345", b"007", b"9" * 15):
        again, length = reader.read(HEAD.replace(b"5", digits))
        assert again is first
        assert length == int(digits)


@pytest.mark.parametrize(
    "digits", [b"", b" ", b"+5", b"-5", b"5 5", b"5,5", b"0x5", b"1_0", b"5\x00", b"1" * 20, b"\xb2"]
)
def test_a_bad_length_is_refused_though_all_else_is_known(framing: Framing, digits: bytes) -> None:
    reader = HeadReader(framing, None)
    for _ in range(2):
        reader.read(HEAD)
        with pytest.raises(FramingError):
            reader.read(HEAD.replace(b"5", digits))


@pytest.mark.parametrize(
    "other",
    [
        *(HEAD.replace(b"X: y", b"X: z"), HEAD.replace(b"X: y", b"X:  y"), HEAD.replace(b"X", b"x")),
        *(HEAD.replace(b"Content-Length: 5\r\nX: y", b"X: y\r\nContent-Length: 5"), HEAD.replace(b"chat", b"chat/x")),
        *(HEAD.replace(b"X: y", b"Connection: close"), HEAD.replace(b"X: y", b"Expect: 100-continue")),
        *(HEAD.replace(b"POST", b"PUT"), HEAD.replace(b"1.1", b"1.0"), HEAD.replace(b"Content-L", b"content-l")),
    ],
)
def test_another_head_is_another_one(framing: Framing, other: bytes) -> None:
    reader = HeadReader(framing, None)
    reader.read(HEAD)
    known, _ = reader.read(HEAD)
    for _ in range(3):
        assert reader.read(other)[0] is not known
    assert read(reader, other) == read(HeadReader(framing, None), other)


def test_the_guard_is_asked_about_each_head_until_it_lets_it_in(framing: Framing) -> None:
    asked: list[HeaderList] = []
    no: Answer | None = error(Code.INSUFFICIENT_SCOPE, "no")

    def guard(headers: HeaderList) -> Answer | None:
        asked.append(headers)
        return no

    reader = HeadReader(framing, guard)
    for _ in range(2):
        head, _ = reader.read(HEAD)
        assert head is not None
        assert head.refusal == no
    no = None
    for _ in range(3):
        head, _ = reader.read(HEAD)
        assert head is not None
        assert head.refusal is None
    assert len(asked) == 4


def test_strangers_can_not_fill_the_memory(framing: Framing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heading, "MOST_KNOWN", 10)
    monkeypatch.setattr(heading, "MOST_SEEN_ONCE", 20)
    reader = HeadReader(framing, None)
    for number in range(100):
        for _ in range(number % 3):
            reader.read(with_key(number))
        assert len(reader._known) <= 10
        assert len(reader._seen_once) <= 20
    long = request(b"Content-Length: 5", b"X: " + b"x" * heading.LONGEST_KNOWN)
    assert len({reader.read(long)[0] for _ in range(3)}) == 3


def with_key(number: int) -> bytes:
    return request(b"Content-Length: 5", b"Authorization: Bearer %d" % number)


def test_a_flood_of_made_up_keys_costs_nobody_the_place_of_his_head(framing: Framing) -> None:
    """It took as many requests as are remembered to have all others forgotten."""
    reader = HeadReader(framing, None)
    reader.read(HEAD)
    mine = reader.read(HEAD)[0]
    for number in range(2 * heading.MOST_KNOWN):
        reader.read(with_key(number))
    assert reader.read(HEAD)[0] is mine
    for number in range(10_000, 10_000 + 4 * heading.MOST_KNOWN):  # each twice, so that all are remembered
        reader.read(with_key(number))
        reader.read(with_key(number))
        if number % 100 == 0:
            assert reader.read(HEAD)[0] is mine
    assert len(reader._known) == heading.MOST_KNOWN


LINES = st.sampled_from(
    [
        *(b"Content-Length: 5", b"content-length: 5", b"Content-Length: 17", b"Content-Length:5", b"CONTENT-LENGTH: 5"),
        *(
            b"Content-Length:  5",
            b"Content-Length: 5 ",
            b"Content-Length: \t5",
            b"Content-Length: ",
            b"Content-Length: 5x",
        ),
        *(
            b"X-Content-Length: 5",
            b"Transfer-Encoding: chunked",
            b"X: Content-Length: 5",
            b"X: y",
            b" Content-Length: 5",
        ),
        *(
            b"Connection: close",
            b"Connection: keep-alive",
            b"Expect: 100-continue",
            b"Upgrade: h2c",
            b"X-Request-ID: 1",
        ),
    ]
)
HEADS = st.lists(LINES, min_size=1, max_size=4).map(lambda lines: request(*lines))


@settings(max_examples=300, deadline=None)
@given(st.lists(HEADS, min_size=2, max_size=6), st.sampled_from(FRAMINGS))
def test_what_was_read_before_changes_nothing(heads: list[bytes], framing: Framing) -> None:
    reader = HeadReader(framing, None)
    for data in [*heads, *heads]:
        assert read(reader, data) == read(HeadReader(framing, None), data)
