"""What is read of a body. Both readers must find the same in everything."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stoker.gateway.answers import Answer
from stoker.gateway.asking import Asked, BodyReader, JsonReader, MsgspecReader, best_reader
from stoker.gateway.nesting import DEPTH

PLAIN, FAST = JsonReader(), MsgspecReader(msgspec)
JSON = b"application/json"


@pytest.fixture(params=[PLAIN, FAST], ids=["json", "msgspec"])
def reader(request: pytest.FixtureRequest) -> BodyReader:
    found: BodyReader = request.param
    return found


def refusal(answer: Asked | Answer) -> tuple[int, str, str, str | None]:
    """An answer's status, message, code and param."""
    assert isinstance(answer, Answer), answer
    inside = json.loads(answer.body)["error"]
    return answer.status, inside["message"], inside["code"], inside["param"]


def nested(levels: int, *, inside: bytes = b"", around: bytes = b"[]") -> bytes:
    """A body of so many levels."""
    opening, closing = around[:1], around[1:]
    if around == b"{}":
        opening = b'{"x":'
        inside = inside or b"0"
    levels -= 1
    return b'{"model": "m", "x": ' + opening * levels + inside + closing * levels + b"}"


ACCEPTED: dict[str, tuple[bytes, Asked]] = {
    "as clients send it": (b'{"model": "m", "messages": [{"role": "user"}], "stream": true}', Asked("m", stream=True)),
    "no stream": (b'{"stream": false, "model": "m"}', Asked("m")),
    "white space": (b'\t\r\n {"model"\n:\t"m"\r} \n', Asked("m")),
    "two models": (b'{"model": "first", "model": "last"}', Asked("last")),
    "two models, one no text": (b'{"model": 1, "model": "last"}', Asked("last")),
    "two streams, the last off": (b'{"model": "m", "stream": true, "stream": false}', Asked("m")),
    "two streams, the last on": (b'{"model": "m", "stream": [], "stream": true}', Asked("m", stream=True)),
    "two streams, the last null": (b'{"model": "m", "stream": true, "stream": null}', Asked("m")),
    "an escaped name": (rb'{"mod\u0065l": "m", "str\u0065am": true}', Asked("m", stream=True)),
    "an escaped name comes last": (rb'{"model": "first", "m\u006Fdel": "last"}', Asked("last")),
    "an escaped value": (rb'{"model": "\u0071wen\/\"3\"\ud83d\ude00\u00e9"}', Asked('qwen/"3"😀é')),
    "UTF-8": ('{"model": "modèle", "x": "漢字😀"}'.encode(), Asked("modèle")),
    "another's model": (b'{"model": "m", "x": {"model": "other", "stream": true}}', Asked("m")),
    "names in another case": (b'{"Model": "other", "model": "m", "STREAM": true}', Asked("m")),
    "half a surrogate pair elsewhere": (rb'{"model": "m", "x": "\ud800", "\udc00": 1}', Asked("m")),
    "half a surrogate pair, then a whole model": (rb'{"model": "\ud800", "model": "m"}', Asked("m")),
    "a session": (b'{"session_id": "s", "model": "m"}', Asked("m", session_id="s")),
    "two sessions": (b'{"session_id": "s", "model": "m", "session_id": "t"}', Asked("m", session_id="t")),
    "no session": (b'{"session_id": null, "model": "m"}', Asked("m")),
    "another's session": (b'{"model": "m", "x": {"session_id": "s"}}', Asked("m")),
    "a session that is none": (b'{"model": "m", "session_id": {"a": [1.5]}}', Asked("m", session_id={"a": [1.5]})),
    "half a session": (rb'{"model": "m", "session_id": "\ud800"}', Asked("m", session_id="\ud800")),
    "NaN": (b'{"model": "m", "x": [NaN, Infinity, -Infinity]}', Asked("m")),
    "numbers without bounds": (
        b'{"model": "m", "x": [1e400, -1E-400, 0.%b, %b]}' % (b"1" * 9000, b"9" * 9000),
        Asked("m"),
    ),
    "DEL": (b'{"model": "m\x7f"}', Asked("m\x7f")),
    "an escaped NUL": (rb'{"model": "m\u0000"}', Asked("m\0")),
    "a text full of brackets": (b'{"model": "m", "x": "%b"}' % (rb"[{\"\\" * 10 * DEPTH), Asked("m")),
    "wide, not deep": (b'{"model": "m", "x": [%b]}' % b",".join([b"[{}]"] * 10 * DEPTH), Asked("m")),
    "as deep as may be": (nested(DEPTH), Asked("m")),
    "as deep as may be, of objects": (nested(DEPTH, around=b"{}"), Asked("m")),
    "deep, with brackets in a text": (nested(DEPTH, inside=rb'"]\"}[[{\\"'), Asked("m")),
    **{
        f"stream is {value.decode()}": (b'{"model": "m", "stream": %b}' % value, Asked("m"))
        for value in (b"null", b"0", b"1", b"1.5", b'"true"', b"[true]", b"{}", b"1e999", b"9" * 5000, b"NaN")
    },
}


@pytest.mark.parametrize(("body", "asked"), ACCEPTED.values(), ids=ACCEPTED)
def test_a_body_is_understood(reader: BodyReader, body: bytes, asked: Asked) -> None:
    assert reader.read(JSON, body) == asked


NOT_JSON, NOT_UTF8, TOO_DEEP, NO_OBJECT = "not JSON", "not UTF-8", "nested too deeply", "must be a JSON object"
MALFORMED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", NOT_JSON),
    "white space": (b" \n", NOT_JSON),
    "cut off": (b'{"model": "m"', NOT_JSON),
    "cut off in a text": (b'{"model": "m', NOT_JSON),
    "cut off in an escape": (rb'{"model": "m", "x": "\u00', NOT_JSON),
    "something behind": (b'{"model": "m"} x', NOT_JSON),
    "another object behind": (b'{"model": "m"}{}', NOT_JSON),
    "NUL behind": (b'{"model": "m"}\0', NOT_JSON),
    "a comma too many": (b'{"model": "m",}', NOT_JSON),
    "a comma too many in an array": (b'{"model": "m", "x": [1,]}', NOT_JSON),
    "a comma too few": (b'{"model": "m" "x": 1}', "column 15"),
    "single quotes": (b"{'model': 'm'}", NOT_JSON),
    "a comment": (b'{"model": "m" /* mine */}', NOT_JSON),
    "a key that is no text": (b'{"model": "m", 1: 2}', NOT_JSON),
    "a byte order mark": (b'\xef\xbb\xbf{"model": "m"}', "byte order mark"),
    "other white space": (b'{"model": "m",\x0b"x": 1}', NOT_JSON),
    "other white space, of Unicode": ('{"model": "m",\u00a0"x": 1}'.encode(), NOT_JSON),
    "a control character in the model": (b'{"model": "m\n"}', NOT_JSON),
    "a control character in a text": (b'{"model": "m", "x": "a\tb"}', NOT_JSON),
    "a control character in a key": (b'{"model": "m", "\0": "b"}', NOT_JSON),
    "an unknown escape": (rb'{"model": "m", "x": "\x41"}', NOT_JSON),
    **{
        f"the number {number.decode()}": (b'{"model": "m", "x": %b}' % number, NOT_JSON)
        for number in (
            b"01",
            b"-",
            b"+1",
            b".5",
            b"1.",
            b"1e",
            b"1e+",
            b"0x1",
            b"-01",
            b"1_000",
            b"--1",
            b"nan",
            b"-NaN",
        )
    },
    **{
        f"the word {word.decode()}": (b'{"model": "m", "x": %b}' % word, NOT_JSON)
        for word in (b"True", b"nul", b"nulll", b"undefined")
    },
    "UTF-16": ('{"model": "m"}'.encode("utf-16"), NOT_UTF8),
    "UTF-16 without a mark": ('{"model": "m"}'.encode("utf-16-le"), NOT_JSON),
    "Latin-1 in the model": (b'{"model": "\xe9"}', NOT_UTF8),
    "Latin-1 in a text": (b'{"model": "m", "x": ["\xe9"]}', NOT_UTF8),
    "Latin-1 in a key": (b'{"model": "m", "x": {"\xe9": 1}}', NOT_UTF8),
    "a character cut off": (b'{"model": "m", "x": "\xe6\xbc"}', NOT_UTF8),
    "an overlong character": (b'{"model": "m", "x": "\xc0\xaf"}', NOT_UTF8),
    "half a surrogate pair in UTF-8": (b'{"model": "m", "x": "\xed\xa0\x80"}', NOT_UTF8),
    "half a surrogate pair as the model": (rb'{"model": "m\ud800"}', "surrogate"),
    "a level too deep": (nested(DEPTH + 1), TOO_DEEP),
    "a level too deep, of objects": (nested(DEPTH + 1, around=b"{}"), TOO_DEEP),
    "a level too deep, with brackets in a text": (nested(DEPTH + 1, inside=rb'"\"]]]]"'), TOO_DEEP),
    "a level too deep, after a wide one": (
        b'{"model": "m", "y": [[], {}], "x": %b, "z": []}' % (b"[" * DEPTH + b"]" * DEPTH),
        TOO_DEEP,
    ),
    **{f"{levels} deep": (nested(levels), TOO_DEEP) for levels in (900, 990, 1000, 1010, 2_000, 1_000_000)},
    "very deep and cut off": (b"[" * 100_000, TOO_DEEP),
    "objects, very deep and cut off": (b'{"model":' * 100_000, TOO_DEEP),
    **{
        f"the top is {top.decode()}": (top, NO_OBJECT)
        for top in (b"[]", b'["model", "m"]', b'[{"model": "m"}]', b'"model"', b"null", b"1", b"NaN", b"true")
    },
}


@pytest.mark.parametrize(("body", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_body_that_cannot_be_read_is_refused_with_the_reason(reader: BodyReader, body: bytes, message: str) -> None:
    status, said, code, param = refusal(reader.read(JSON, body))
    assert (status, code, param) == (400, "invalid_body", None)
    assert message in said


UNSAID: dict[str, tuple[bytes, str, str]] = {
    "missing": (b"{}", "missing", "add the member 'model'"),
    "null": (b'{"model": null}', "missing", "add the member 'model'"),
    "null in the end": (b'{"model": "m", "model": null}', "missing", "add the member 'model'"),
    "empty": (b'{"model": ""}', "missing", "is empty"),
    "a number": (b'{"model": 7}', "invalid_type", "not int"),
    "a large number": (b'{"model": %b}' % (b"7" * 5000), "invalid_type", "not int"),
    "no number": (b'{"model": NaN}', "invalid_type", "not float"),
    "a list": (b'{"model": ["m"]}', "invalid_type", "not list"),
    "an object": (b'{"model": {"model": "m"}}', "invalid_type", "not dict"),
    "true": (b'{"model": true}', "invalid_type", "not bool"),
}


@pytest.mark.parametrize(("body", "code", "message"), UNSAID.values(), ids=UNSAID)
def test_a_body_that_names_no_model_is_refused(reader: BodyReader, body: bytes, code: str, message: str) -> None:
    status, said, found, param = refusal(reader.read(JSON, body))
    assert (status, found, param) == (400, code, "model")
    assert message in said


@pytest.mark.parametrize("body", [body for body, *_ in (*ACCEPTED.values(), *MALFORMED.values(), *UNSAID.values())])
def test_both_say_the_same_word_for_word(body: bytes) -> None:
    assert PLAIN.read(JSON, body) == FAST.read(JSON, body)


@pytest.mark.parametrize(
    "content_type", [b"", b"text/plain", b"application/json; charset=utf-16", b"multipart/mixed", b"\xff"]
)
def test_what_is_no_form_is_read_as_json(reader: BodyReader, content_type: bytes) -> None:
    assert reader.read(content_type, b'{"model": "m"}') == Asked("m")


def test_without_msgspec_there_is_a_reader_too() -> None:
    assert isinstance(best_reader(msgspec), MsgspecReader)
    assert isinstance(best_reader(None), JsonReader)


def test_the_fast_reader_leaves_to_the_other_only_what_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise nobody would notice that it had become slow."""
    undecided: list[bytes] = []
    reader = MsgspecReader(msgspec)
    monkeypatch.setattr(reader, "_referee", undecided.append)
    for name in (
        "as clients send it",
        "two models",
        "an escaped value",
        "UTF-8",
        "wide, not deep",
        "as deep as may be",
    ):
        body, asked = ACCEPTED[name]
        assert reader.read(JSON, body) == asked
    assert not undecided


# Bodies that nobody thought of


def mostly(right: list[bytes], wrong: list[bytes]) -> st.SearchStrategy[bytes]:
    """Rarely a wrong one, or few bodies of several members would be right."""
    return st.sampled_from([*right * (30 * len(wrong) // len(right) + 1), *wrong])


keys = mostly([rb'"mod\u0065l"', b'"stream"', b'"x"', b'"\xc3\xa9"', rb'"\ud800"', b'""'], [b'"\xff"', b"x", b""])
scalars = mostly(
    [
        *rb""" "m" "n" "\ud83d\ude00" "\ud83d" "\ude00" "\ud83dx" "\"]" "\\" "\u007F" true false null """.split(),
        *b""" 0 -0 1.0 1e5 1E+5 1e-400 NaN -Infinity [] {} [1,[2]] {"model":"o"} """.split(),
        *(b'"\xe2\x82\xac"', b'"\x7f"', b"9" * 5000),
    ],
    [
        *rb""" "\z" "\u00 " 'm' "\" tru nullx - 01 1. .1 1e -NaN +1 [1,] {"a":1,} [,] [[1] [1]] {"a"} """.split(),
        *(b'"\xe2\x82"', b'"\x00"', b'"\x1f"', b"", b"1 2"),
    ],
)
spaces = mostly([b"", b" ", b"\n", b"\t\r\n "], [b"\x0b", b"\xc2\xa0", b"\xef\xbb\xbf", b"\0"])


@st.composite
def objects(draw: st.DrawFn, values: st.SearchStrategy[bytes], *, most: int = 3) -> bytes:
    members = draw(st.lists(st.tuples(spaces, keys, spaces, spaces, values, spaces), max_size=most))
    if draw(st.booleans()):
        members.insert(draw(st.integers(0, len(members))), (b"", b'"model"', b"", b" ", b'"m"', b""))
    return b"{" + b",".join(b"%b%b%b:%b%b%b" % member for member in members) + b"}"


bodies = objects(st.recursive(scalars, objects, max_leaves=4), most=5)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A body in which a few bytes were replaced, left out or put in."""
    body = draw(bodies)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(body)))
        piece = draw(
            st.binary(max_size=2) | st.sampled_from([b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"\\u", b"e"])
        )
        body = body[:place] + piece + body[place + draw(st.integers(0, 2)) :]
    return body


@given(body=bodies | damaged() | st.binary(max_size=40))
@example(body=b'{"model":"m","x":"\xff"}')
@settings(deadline=None, max_examples=300)
def test_both_find_the_same_in_any_body(body: bytes) -> None:
    assert FAST.read(JSON, body) == PLAIN.read(JSON, body)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)


@given(
    rest=st.dictionaries(st.text(), json_values, max_size=4),
    model=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    stream=json_values,
    is_ascii=st.booleans(),
)
@settings(deadline=None)
def test_whatever_a_client_writes_besides_the_model_is_found(
    rest: dict[str, object], model: str, stream: object, *, is_ascii: bool
) -> None:
    text = json.dumps({**rest, "model": model, "stream": stream}, ensure_ascii=is_ascii)
    body = text.encode("utf-8", "replace")
    assert FAST.read(JSON, body) == PLAIN.read(JSON, body) == Asked(model, stream=stream is True)


@given(
    openings=st.lists(
        st.sampled_from([b"[", b'{"a":', b'["[",', b'{"}":0,"b":', b"[0,"]), min_size=DEPTH - 5, max_size=DEPTH + 5
    )
)
@settings(deadline=None, max_examples=50)
def test_the_limit_of_depth_is_the_same_for_both(openings: list[bytes]) -> None:
    closing = b"".join(b"]" if opening.startswith(b"[") else b"}" for opening in reversed(openings))
    body = b'{"model":"m","x":' + b"".join(openings) + b"0" + closing + b"}"
    found = PLAIN.read(JSON, body)
    assert found == FAST.read(JSON, body)
    assert (found == Asked("m")) == (len(openings) < DEPTH)
