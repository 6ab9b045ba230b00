"""Whatever is thrown at it, reading gives records or a ConfigError, and what is written reads the same again."""

from __future__ import annotations

import contextlib
import datetime as dt
from pathlib import Path
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.config import parse, schema, spec_from_json, to_toml
from stoker.config.rules import OLDER, RULES
from stoker.config.writing import inline
from stoker.errors import ConfigError
from stoker.model import EngineSpec
from stoker.settings import GatewaySettings, RuntimeSettings, Settings

KEYS = sorted({name for rules in RULES.values() for name in rules} | {*OLDER, "use_gpu", "required_memory_gb"})
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SCALARS = st.one_of(
    st.booleans(),
    st.integers(),
    st.integers(0, 5),
    st.floats(),
    TEXTS,
    st.sampled_from(["127.0.0.1:0", "[::1]:80", "http://h:1", "~nobody-of-that-name/x", "./x", "\0", "http://[x"]),
    st.dates(min_value=dt.date(1, 1, 1)),
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=6
)
TABLES = st.dictionaries(st.sampled_from(KEYS) | TEXTS, VALUES, max_size=6)
ENGINES = st.lists(st.dictionaries(st.just("model") | st.sampled_from(KEYS), VALUES, max_size=6) | VALUES, max_size=3)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "gateway": TABLES | VALUES,
        "engine": ENGINES | VALUES,
        "runtime": st.dictionaries(TEXTS, TABLES | VALUES, max_size=2) | VALUES,
        "policy": st.dictionaries(TEXTS, TABLES | VALUES, max_size=2) | VALUES,
        "scheduler": VALUES,
        "log_max_bytes": VALUES,
        "sheduler": VALUES,
    },
)


@settings(max_examples=60)
@given(st.text(max_size=60))
def test_any_text_is_settings_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(parse(text, "x"), Settings)


@settings(max_examples=60)
@given(DOCUMENTS)
def test_any_document_is_settings_or_a_config_error(document: dict[str, Any]) -> None:
    text = "\n".join(f"{key} = {inline(value)}" for key, value in document.items())
    with contextlib.suppress(ConfigError):
        read = parse(text, "x", folder=Path("/folder"))
        assert parse(to_toml(read), "x", folder=Path("/folder")) == read


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60)
@given(JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=8))
def test_any_json_is_a_spec_or_a_config_error(value: object) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(spec_from_json(value, "request"), EngineSpec)


SPECS = st.builds(
    EngineSpec,
    model=TEXTS.filter(lambda text: text and "\0" not in text and not text.startswith(("./", "../", "~/"))),
    names=st.lists(TEXTS.filter(lambda text: text and "\0" not in text), max_size=2).map(tuple),
    gpus=st.integers(0, 1024),
    args=st.lists(TEXTS.filter(lambda text: "\0" not in text)).map(tuple),
    metadata=st.dictionaries(TEXTS.filter(lambda text: "\0" not in text), st.integers(-(2**62), 2**62)),
    startup_timeout_seconds=st.floats(0.01, 3e7),
    required_memory_bytes=st.none() | st.integers(0, 2**40),
)


@settings(max_examples=60)
@given(SPECS)
def test_what_is_written_reads_the_same_again(spec: EngineSpec) -> None:
    whole = Settings(engines=(spec,), runtimes={"a b": RuntimeSettings(python=Path("/p"))})
    assert parse(to_toml(whole), "x") == whole


def test_every_field_has_a_rule_and_stands_in_the_schema() -> None:
    written = schema()
    tables = {
        Settings: written["properties"],
        GatewaySettings: written["$defs"]["gateway"]["properties"],
        RuntimeSettings: written["$defs"]["runtime"]["properties"],
        EngineSpec: written["$defs"]["engine"]["properties"],
    }
    in_file = {"engines": "engine", "runtimes": "runtime", "policies": "policy"}
    for cls, properties in tables.items():
        names = [field.name for field in attrs.fields(cls)]
        assert set(RULES[cls]) == set(names)
        assert {in_file.get(name, name) for name in names} | {"required_memory_gb"} >= set(properties)
        assert set(properties) >= {in_file.get(name, name) for name in names}
    assert written["$defs"]["engine"]["required"] == ["model"]
    assert written["$defs"]["engine"]["properties"]["port"] == {
        "description": "A fixed port; without it, any free one.",
        "type": "integer",
        "minimum": 1,
        "maximum": 65535,
    }


def test_every_default_obeys_its_own_rule() -> None:
    for cls, rules in RULES.items():
        for field in attrs.fields(cls):
            if isinstance(field.default, str | int | float):
                rules[field.name].apply(field.default)
