"""Whatever the bytes of a request are, reading them ends in a value or in an error for the client."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.gateway.nesting import DEPTH
from stoker.web.problems import RequestError
from stoker.web.reading import Query, parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(JSON, st.sampled_from(["utf-8", "utf-8-sig"]), st.booleans())
def test_json_is_read_as_what_it_says(value: Any, encoding: str, ascii_only: bool) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode(encoding)) == value


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode("utf-16")))
def test_anything_else_is_the_clients_mistake(body: bytes) -> None:
    with contextlib.suppress(RequestError):
        parse_json(body)


@pytest.mark.parametrize(("depth", "fits"), [(DEPTH, True), (DEPTH + 1, False), (500, False)])
def test_how_deep_it_may_nest_is_the_same_as_for_engines(*, depth: int, fits: bool) -> None:
    body = b'{"a":' * depth + b"0" + b"}" * depth
    with contextlib.nullcontext() if fits else pytest.raises(RequestError):
        parse_json(body)


@given(st.binary(), st.sampled_from(["tail", "follow", "wait"]))
def test_any_query_is_understood_or_refused(value: bytes, name: str) -> None:
    with contextlib.suppress(RequestError):
        query = Query(name.encode() + b"=" + value, ("tail", "follow", "wait"))
        number = query.number("tail", most=100)
        assert number is None or 0 <= number <= 100
        assert isinstance(query.flag("follow"), bool)
        assert query.choice("wait", "ready") is (name == "wait")
