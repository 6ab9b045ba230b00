"""What policies see of a body: its prompt and its session, the same from either reader."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.gateway.saying import PROMPT, SESSION, Said, SayingReader, best_saying_reader, read_plainly

FAST = best_saying_reader(msgspec)
JSON = b"application/json"

READ: dict[str, tuple[bytes, Said]] = {
    "a chat": (b'{"model": "m", "messages": [{"role": "user"}]}', Said(b'[{"role": "user"}]')),
    "as the client wrote it": (b'{ "prompt" :\n "a\\u0041\xc3\xa9"  , "model":"m" }', Said(b'"a\\u0041\xc3\xa9"')),
    "in the order of the engine": (
        b'{"input":6,"prompt":5,"messages":4,"tools":3,"system":2,"instructions":1,"model":"m"}',
        Said(b"123456"),
    ),
    "the last of two": (b'{"prompt": "a", "prompt": "b"}', Said(b'"b"')),
    "null is a text too": (b'{"tools": null, "prompt": "a"}', Said(b'null"a"')),
    "an escaped name": (rb'{"pr\u006fmpt": "a"}', Said(b'"a"')),
    "one of another level": (b'{"extra": {"prompt": "a", "user": "u"}}', Said()),
    "nothing": (b"{}", Said()),
    "a user": (b'{"user": "me"}', Said(session="me")),
    "the first session": (b'{"user": "c", "prompt_cache_key": "b", "session_id": "a"}', Said(session="a")),
    "the first that is a text": (b'{"user": "c", "prompt_cache_key": 7, "session_id": null}', Said(session="c")),
    "the first that says something": (b'{"session_id": "", "prompt_cache_key": "b"}', Said(session="b")),
    "an escaped one": (rb'{"user": "\u00e9\n\ud83d\ude00"}', Said(session="é\n😀")),
    "half a pair is no text": (rb'{"user": "\ud83d", "session_id": "\ude00"}', Said()),
    "half a pair elsewhere": (rb'{"user": "me", "x": "\ud83d"}', Said(session="me")),
    "numbers of all sizes": (b'{"x": [NaN, 1e400, %b], "prompt": [NaN]}' % (b"9" * 9000), Said(b"[NaN]")),
}


@pytest.mark.parametrize("read", [read_plainly, FAST], ids=["json", "msgspec"])
@pytest.mark.parametrize(("body", "said"), READ.values(), ids=READ)
def test_a_body_says(read: SayingReader, body: bytes, said: Said) -> None:
    assert read(JSON, body) == said


values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
).filter(lambda value: isinstance(value, bool) or not isinstance(value, int | float))  # two numbers joined are one
names = st.sampled_from([*PROMPT, *SESSION, "model", "x"])
white = st.sampled_from(["", " ", "\n\t", "  \r\n"])


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Objects with any white space, members in any order and more than once, escaped or not."""
    members = []
    for name, value in draw(st.lists(st.tuples(names, values), max_size=8)):
        text = json.dumps(value, ensure_ascii=draw(st.booleans()))
        members.append(f"{draw(white)}{json.dumps(name)}{draw(white)}:{draw(white)}{text}{draw(white)}")
    body = f"{draw(white)}{{{draw(white)}{','.join(members)}}}{draw(white)}"
    return body.encode(errors="replace")


@given(bodies())
def test_both_readers_say_the_same_and_what_the_body_says(body: bytes) -> None:
    said = read_plainly(JSON, body)
    assert FAST(JSON, body) == said
    found = json.loads(body)
    texts = [found[name] for name in SESSION if isinstance(found.get(name), str) and is_text(found[name])]
    assert said.session == next(iter(texts), "")
    assert repr(values_in(said.prompt.decode())) == repr([found[name] for name in PROMPT if name in found])


def is_text(value: str) -> bool:
    return bool(value) and not any("\ud800" <= character <= "\udfff" for character in value)


def values_in(text: str) -> list[object]:
    """The JSON values that stand one behind the other."""
    found = []
    while text:
        value, end = json.JSONDecoder().raw_decode(text)
        found.append(value)
        text = text[end:]
    return found


def form(*fields: tuple[str, bytes]) -> tuple[bytes, bytes]:
    parts = b"".join(
        b'--b\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)
        for name, value in fields
    )
    return b"multipart/form-data; boundary=b", parts + b"--b--\r\n"


@pytest.mark.parametrize("read", [read_plainly, FAST], ids=["json", "msgspec"])
def test_a_form_has_no_prompt_but_may_have_a_session(read: SayingReader) -> None:
    said = read(*form(("model", b"m"), ("prompt", b"p"), ("user", b"me"), ("session_id", b"\xff")))
    assert said == Said(session="me")
    assert read(*form(("model", b"m"), ("user", b""))) == Said()
