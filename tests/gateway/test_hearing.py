"""What is heard of an answer does not depend on how its bytes are cut, and never more than can be kept."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.gateway import hearing
from stoker.gateway.hearing import Events, Hearing, heard_at_once

DATA = st.lists(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=6)))


@given(DATA, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 200)), st.sampled_from(["data:", "data: "]))
def test_events_are_the_same_however_they_are_cut(
    events: Sequence[Sequence[str]], newline: str, cuts: Sequence[int], field: str
) -> None:
    lines = [line for event in events for line in (": a comment", *(field + "|" + text for text in event), "id: 7", "")]
    wire = "".join(line + newline for line in lines).encode()
    reader, found, at = Events(), list[str](), 0
    for cut in sorted(cuts):
        found += reader.feed(wire[at:cut])
        at = max(at, cut)
    found += reader.feed(wire[at:], final=True)
    assert found == ["\n".join("|" + text for text in event) for event in events if event]


def chunk(text: str) -> bytes:
    return b"data: %b\n\n" % json.dumps({"choices": [{"delta": {"content": text}}]}).encode()


def listening(*pieces: bytes, end: bool = True) -> Hearing:
    heard = Hearing()
    heard.begin(is_stream=True)
    for piece in pieces:
        heard.feed(piece)
    if end and not heard.is_over:
        heard.feed(b"", is_end=True)
    return heard


@pytest.mark.parametrize(
    ("pieces", "whole", "content"),
    [
        ([chunk("a"), chunk("b"), b"data: [DONE]\n\n"], True, "ab"),
        ([chunk("a")], True, "a"),
        ([chunk("a"), chunk("b")[:-2]], True, "ab"),
        ([chunk("a"), b"data: [DONE]\n\n", chunk("b")], True, "a"),
        ([chunk("a"), b'data: {"error": {"message": "x"}}\n\n', b"data: [DONE]\n\n"], False, "a"),
        ([chunk("a"), b"data: {nonsense\n\n", b"data: [1e999]\n\n", b"event: ping\ndata: 1\n\n"], True, "a"),
        ([chunk(""), b"data: [DONE]\n\n"], True, ""),
    ],
)
def test_a_stream_is_whole_when_it_has_come_to_its_end(pieces: list[bytes], whole: bool, content: str) -> None:
    heard = listening(*pieces)
    assert heard.is_over
    assert heard.whole == whole
    assert heard.message == {"role": "assistant", "content": content}


def test_one_that_breaks_off_is_not_whole() -> None:
    heard = listening(chunk("a"), end=False)
    assert (heard.is_over, heard.whole) == (False, False)
    assert heard.message == {"role": "assistant", "content": "a"}


@pytest.mark.parametrize("body", [b"", b"[", b"{}", b'{"choices": [{"message": {"content": 1e999}}]}', b"[" * 100_000])
def test_what_is_no_answer_is_none(body: bytes) -> None:
    assert heard_at_once(body).message is None


def test_of_what_is_too_long_only_the_beginning_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "MOST_BYTES", 100)
    heard = listening(chunk("a"), chunk("b" * 100), chunk("c"), b"data: [DONE]\n\n")
    assert not heard.whole
    assert heard.message == {"role": "assistant", "content": "a"}
