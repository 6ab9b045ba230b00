"""What a key is, and what an order for one must say."""

from __future__ import annotations

from typing import Any

import pytest

from stoker.core.keys import PREFIX, Scope, digest_of, key_id_in, key_order
from stoker.errors import ConfigError

SECRET = "A-_0" * 10 + "abc"


def mistakes_of(body: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        key_order(body, "the request")
    return {mistake.path: mistake.message for mistake in caught.value.mistakes}


def test_a_name_is_enough_for_a_key() -> None:
    order = key_order({"name": "alice", "models": None}, "x")
    key = order.key("ab12", b"digest", now=100.0)
    assert key.scopes == {Scope.INFERENCE}
    assert (key.models, key.requests_per_minute, key.concurrent_requests, key.expires_at) == (None, None, None, None)
    assert key.is_active(1e12)


def test_all_of_it_can_be_said() -> None:
    body = {
        "name": "batch",
        "scopes": ["admin", "inference"],
        "models": ["m", "n", "m"],
        "requests_per_minute": 60,
        "concurrent_requests": 4,
        "expires_in_seconds": 10,
    }
    key = key_order(body, "x").key("ab12", b"digest", now=100.0)
    assert key.models == ("m", "n")
    assert key.is_active(109.9)
    assert not key.is_active(110.0)
    assert key.shown()["scopes"] == ["inference", "admin"]
    assert "digest" not in key.shown()
    assert "digest" not in repr(key)


NONSENSE: dict[str, list[object]] = {
    "name": [None, "", " ", "x" * 65, "a\nb", 7],
    "scopes": [[], ["all"], "admin", [1], {}],
    "models": [[], [""], "m", [1], ["m"] * 1001],
    "requests_per_minute": [0, -1, 1.5, True, "60", 100_001],
    "concurrent_requests": [0, True, "1", 10**7],
    "expires_in_seconds": [0, -1, "30d", True, float("nan"), float("inf")],
    "key": ["sk-mine"],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in NONSENSE.items() for value in values],
)
def test_what_makes_no_sense_is_named(field: str, value: object) -> None:
    assert list(mistakes_of({"name": "x", field: value})) == [field]


def test_every_mistake_is_named_at_once() -> None:
    assert set(mistakes_of({"scopes": [], "colour": "red", "size": None})) == {"name", "scopes", "colour", "size"}


def test_the_id_of_a_key_stands_in_its_text() -> None:
    assert key_id_in(f"{PREFIX}ab12-{SECRET}") == "ab12"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unused",
        PREFIX,
        f"{PREFIX}-{SECRET}",
        f"{PREFIX}ab12-{SECRET}x",
        f"{PREFIX}ab12-{SECRET[:-1]}",
        f"{PREFIX}AB12-{SECRET}",
        f"{PREFIX}ab12-{SECRET}\n",
        f"{PREFIX}ab\u06612-{SECRET}",
    ],
)
def test_what_is_no_key_has_none(text: str) -> None:
    assert key_id_in(text) is None


def test_any_text_has_a_digest() -> None:
    assert digest_of("\xff") != digest_of("\udcff") != digest_of("")
