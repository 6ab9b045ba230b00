"""What is read of a form."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stoker.gateway.answers import Answer
from stoker.gateway.asking import Asked, BodyReader, JsonReader, MsgspecReader
from stoker.gateway.forms import LONGEST_BOUNDARY, LONGEST_HEAD, MOST_PARTS, field_values

FORM = b"multipart/form-data; boundary=b"
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


@pytest.fixture(params=[JsonReader(), MsgspecReader(msgspec)], ids=["json", "msgspec"])
def reader(request: pytest.FixtureRequest) -> BodyReader:
    found: BodyReader = request.param
    return found


def part(value: bytes, head: bytes = b'Content-Disposition: form-data; name="model"') -> bytes:
    return head + b"\r\n\r\n" + value


def form(*parts: bytes, boundary: bytes = b"b") -> bytes:
    return b"".join(b"--%b\r\n%b\r\n" % (boundary, each) for each in parts) + b"--%b--\r\n" % boundary


def refusal(answer: Asked | Answer) -> str:
    """The message of a 400 for a body that is wrong."""
    assert isinstance(answer, Answer), answer
    inside = json.loads(answer.body)["error"]
    assert (answer.status, inside["code"]) == (400, "invalid_body")
    return str(inside["message"])


def is_missing(answer: Asked | Answer) -> bool:
    """Whether it is the refusal of a form that names no model."""
    assert isinstance(answer, Answer), answer
    inside = json.loads(answer.body)["error"]
    return (answer.status, inside["code"], inside["param"]) == (400, "missing", "model")


@pytest.mark.parametrize(
    "head",
    [
        b"content-disposition: form-data; name=model",
        b'CONTENT-DISPOSITION:form-data;NAME="model"',
        b"Content-Disposition: form-data; name=model ; x=y",
        b'Content-Disposition : form-data ; name = "model" ',
        b'Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: 8bit',
        b'Content-Disposition: form-data;\r\n name="model"',
        b'Content-Disposition: form-data; x="; name=\\"other\\""; name="model"',
        b'Content-Disposition: form-data; name="other"; name="model"',
        b'Content-Disposition: form-data; name="other"\r\nContent-Disposition: form-data; name="model"',
    ],
)
def test_the_field_is_known_by_its_name_however_that_is_written(reader: BodyReader, head: bytes) -> None:
    assert reader.read(FORM, form(part(b"whisper", head))) == Asked("whisper")


@pytest.mark.parametrize(
    "head",
    [
        b'Content-Disposition: form-data; name="model"; filename="m.bin"',
        b'Content-Disposition: form-data; filename=m.bin; name="model"',
        b"Content-Disposition: form-data; name=model; filename*=UTF-8''m.bin",
        b'Content-Disposition: form-data; name=model; filename=""',
        b'Content-Disposition: form-data; name="Model"',
        b'Content-Disposition: form-data; name="mod\\el"',
        b'Content-Disposition: form-data; name="x\\"; name=model; y=\\""',
        b'Content-Disposition: form-data; other="model"',
        b"Content-Disposition: form-data",
        b'X-Content-Disposition: form-data; name="model"',
        b'Content-Type: text/plain; name="model"',
        b'name="model"',
        b"",
    ],
)
def test_a_file_or_another_field_is_not_taken_for_it(reader: BodyReader, head: bytes) -> None:
    assert is_missing(reader.read(FORM, form(part(b"whisper", head))))


def test_the_order_of_fields_does_not_matter_and_of_two_the_last_counts(reader: BodyReader) -> None:
    file, language = part(b"\0\r\n\xff", FILE), part(b"en", b"Content-Disposition: form-data; name=language")
    assert reader.read(FORM, form(part(b"m"), file, language)) == Asked("m")
    assert reader.read(FORM, form(file, language, part(b"m"))) == Asked("m")
    assert reader.read(FORM, form(part(b"first"), file, part(b"last"), language)) == Asked("last")


def test_a_file_is_stepped_over_whatever_it_holds(reader: BodyReader) -> None:
    inside = form(part(b"other"), boundary=b"another") + b"--b\n--b\r\n\r\n-b--\r\r\n--xb"
    tricky = part(inside[2:].replace(b"\r\n--b\r\n", b"\r\n-b\r\n"), FILE)
    assert reader.read(FORM, form(tricky, part(b"m"))) == Asked("m")


def test_a_line_that_only_begins_like_the_boundary_is_data(reader: BodyReader) -> None:
    assert reader.read(FORM, form(part(b"\r\n--bb\r\n--b-\r\n--b x\r\n", FILE), part(b"m"))) == Asked("m")
    assert reader.read(FORM, form(part(b"a\r\n--by"))) == Asked("a\r\n--by")


def test_what_stands_around_the_parts_is_no_part(reader: BodyReader) -> None:
    assert reader.read(FORM, b"preamble --b\r\n" + form(part(b"m")) + form(part(b"behind"))) == Asked("m")
    assert reader.read(FORM, form(part(b"m")).replace(b"--b\r\n", b"--b \t \r\n")) == Asked("m")


def test_a_part_that_was_cut_off_does_not_count(reader: BodyReader) -> None:
    whole = form(part(b"m")).removesuffix(b"\r\n")
    for end in range(len(whole)):
        assert is_missing(reader.read(FORM, whole[:end]))
    assert reader.read(FORM, whole) == Asked("m")
    longer = form(part(b"m"), part(b"m2"))
    for end in range(len(whole), len(longer) - len(b"--\r\n")):
        assert reader.read(FORM, longer[:end]) == Asked("m")


def test_a_part_without_an_empty_line_is_none(reader: BodyReader) -> None:
    head = b"Content-Disposition: form-data; name=model"
    assert is_missing(reader.read(FORM, form(head)))
    assert reader.read(FORM, form(part(b"m"), head)) == Asked("m")


def test_values_are_taken_as_they_are(reader: BodyReader) -> None:
    for value in ("a b ", "modèle", "漢字", '"m"', "a\r\nb", "a\r\n\r\nb", "\0"):
        assert reader.read(FORM, form(part(value.encode()))) == Asked(value)


def test_an_empty_model_is_refused(reader: BodyReader) -> None:
    answer = reader.read(FORM, form(part(b"")))
    assert isinstance(answer, Answer)
    assert b"is empty" in answer.body


def test_a_model_that_is_not_utf8_is_refused(reader: BodyReader) -> None:
    assert "not UTF-8" in refusal(reader.read(FORM, form(part(b"mod\xe8le"))))


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=b", b"b"),
        (b"Multipart/Form-Data;Boundary=b;charset=utf-8", b"b"),
        (b'multipart/form-data; charset=utf-8; boundary="b"', b"b"),
        (b'multipart/form-data; boundary="=_; a\\"\'()+,-./:?"', b"=_; a\"'()+,-./:?"),
        (
            b"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
            b"----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
        (b"multipart/form-data; boundary=a=b/c ", b"a=b/c"),
        (b"multipart/form-data; boundary=.*", b".*"),
        (b"multipart/form-data; boundary=" + b"-" * LONGEST_BOUNDARY, b"-" * LONGEST_BOUNDARY),
    ],
)
def test_the_boundary_is_the_one_of_the_content_type(reader: BodyReader, content_type: bytes, boundary: bytes) -> None:
    body = form(part(b"x--b\r\n\r\n-", FILE), part(b"m"), boundary=boundary)
    assert reader.read(content_type, body) == Asked("m")


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=" "',
        b"multipart/form-data, boundary=b",
    ],
)
def test_a_form_without_a_boundary_is_refused(reader: BodyReader, content_type: bytes) -> None:
    assert "no boundary" in refusal(reader.read(content_type, form(part(b"m"))))


def test_a_form_that_would_cost_too_much_is_refused(reader: BodyReader) -> None:
    empty = part(b"", b"")
    assert reader.read(FORM, form(*[empty] * (MOST_PARTS - 1), part(b"m"))) == Asked("m")
    assert f"more than {MOST_PARTS} parts" in refusal(reader.read(FORM, form(*[empty] * MOST_PARTS, part(b"m"))))
    assert "parts" in refusal(reader.read(FORM, form(part(b"\r\n--b?" * 1_000_000, FILE), part(b"m"))))
    head = b"X: %b\r\nContent-Disposition: form-data; name=model"
    assert reader.read(FORM, form(part(b"m", head % (b"x" * (LONGEST_HEAD - 100))))) == Asked("m")
    assert "head of more than" in refusal(reader.read(FORM, form(part(b"m", head % (b"x" * LONGEST_HEAD)))))
    boundary = b"-" * (LONGEST_BOUNDARY + 1)
    body = form(part(b"m"), boundary=boundary)
    assert "longer than" in refusal(reader.read(b"multipart/form-data; boundary=" + boundary, body))


@pytest.mark.parametrize(
    "body", [b"", b"--b", b"--b--", b"--b\r\n", b"\r\n--b\r\n\r\n--b--", b'{"model": "m"}', b"--b\r\n--b\r\n--b--"]
)
def test_a_form_with_nothing_in_it_names_no_model(reader: BodyReader, body: bytes) -> None:
    assert is_missing(reader.read(FORM, body))


fields = st.tuples(
    st.sampled_from(["model", "file", "mo", "model2", 'mo"del', "mo\\del", "a;b", "ä"]),
    st.booleans(),
    st.binary(max_size=8) | st.sampled_from([b"\r\n", b"--b", b"\r\n--", b"\r\n--b", b"\r\n\r\n", b"-"]),
)


@given(parts=st.lists(fields, max_size=5), boundary=st.text("b-", min_size=1, max_size=3))
@settings(deadline=None)
def test_every_field_is_found_where_it_stands(parts: list[tuple[str, bool, bytes]], boundary: str) -> None:
    mark = boundary.encode()
    assume(not any(b"\r\n--" + mark in b"\r\n" + value + b"\r\n" for *_, value in parts))
    written = []
    for name, is_file, value in parts:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"').encode()
        head = b'Content-Disposition: form-data; name="%b"' % quoted + b'; filename="x"' * is_file
        written.append(part(value, head))
    body = form(*written, boundary=mark)
    for wanted in {name for name, *_ in parts}:
        places = field_values(b"multipart/form-data; boundary=" + mark, body, wanted.encode())
        found = [body[place] for place in places]
        assert found == [value for name, is_file, value in parts if name == wanted and not is_file]


@given(
    body=st.lists(
        st.sampled_from([b"--b", b"\r\n", b"--", b":", b"Content-Disposition", b";", b'name="model"', b"x", b'"']),
        max_size=30,
    )
)
@settings(deadline=None)
def test_any_form_is_answered(body: list[bytes]) -> None:
    assert isinstance(JsonReader().read(FORM, b"".join(body)), Asked | Answer)
