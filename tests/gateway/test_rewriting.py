"""Giving a request's model another name, and leaving everything else as it is."""

from __future__ import annotations

import json
from types import ModuleType

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.gateway.nesting import DEPTH
from stoker.gateway.rewriting import rewrite_model

from .conftest import World
from .scripted import Exchange

JSON = b"application/json"
FORM = b'multipart/form-data; boundary="b"'


@pytest.fixture(params=[None, msgspec], ids=["json", "msgspec"])
def module(request: pytest.FixtureRequest) -> ModuleType | None:
    found: ModuleType | None = request.param
    return found


@pytest.mark.parametrize(
    "kept",
    [
        b"[1.10, 1e400, -0, -0.0, 1E+05, 12345678901234567890, 0.1000000000000000055511151231257827]",
        b"9" * 9000,
        b'"  \\u00e9 \xc3\xa9 \\/ \\ud83d\\ude00 \\u007f"',
        b'{ "model" : "qwen" , "model": [ ] }',
        b'"\\"model\\": \\"qwen\\""',
        b"null",
        b"true",
        b'[{"a": [ ]}, {}]',
        b"NaN",
        b'[Infinity, "\\ud800"]',
        b"[" * (DEPTH - 1) + b"]" * (DEPTH - 1),
    ],
)
def test_the_values_of_other_members_stay_byte_for_byte(module: ModuleType | None, kept: bytes) -> None:
    body = b'{"x":%b,"model":"qwen","stream":true}' % kept
    assert rewrite_model(JSON, body, "m", module) == b'{"x":%b,"model":"m","stream":true}' % kept


def test_without_msgspec_nothing_but_the_model_changes() -> None:
    body = b'\n{"x":[ 1 ],\t"m\\u006fdel" :\r"qwen" , "stream":true,"y":{}}\n '
    assert rewrite_model(JSON, body, "m", None) == body.replace(b'"qwen"', b'"m"')


def test_of_several_models_none_keeps_its_name(module: ModuleType | None) -> None:
    body = b'{"model": {"model": 1}, "x": 1, "model": "qwen", "mod\\u0065l": "qwen"}'
    written = rewrite_model(JSON, body, "m", module)
    names = [value for name, value in json.loads(written, object_pairs_hook=list) if name == "model"]
    assert set(names) == {"m"}


def test_any_name_can_be_given(module: ModuleType | None) -> None:
    for name in ('"', "\\", "C:\\models\\m.gguf", "漢字😀", "a\nb", "\x7f\0", "m"):
        for body in (b'{"model":"qwen"}', b'{"model":"qwen","x":NaN}'):
            assert json.loads(rewrite_model(JSON, body, name, module))["model"] == name


def test_a_form_changes_in_its_model_fields_only(module: ModuleType | None) -> None:
    form = (
        b"preamble\r\n--b \r\nContent-Disposition: form-data; name=file; filename=model\r\n\r\nqwen\0\xff\r\n--bx\r\n"
        b'--b\r\ncontent-disposition: form-data; name="model"\r\nX: y\r\n\r\n%b\r\n'
        b"--b\r\nContent-Disposition: form-data; name=language\r\n\r\nqwen\r\n"
        b"--b\r\nContent-Disposition: form-data; name=model\r\n\r\n%b\r\n--b--\r\nepilogue"
    )
    assert rewrite_model(FORM, form % (b"", b"qwen"), "modèle", module) == form % (("modèle".encode(),) * 2)


async def test_each_engine_is_asked_by_a_name_it_knows(world: World) -> None:
    async def die(exchange: Exchange) -> None:
        await exchange.hang_up()

    names = ("m", "alias")
    first = await world.engine("first", die, names=names, renames={"alias": "first's own", "m": "first's own"})
    second = await world.engine("second", names=names, renames={"alias": "m"})
    assert (await world.ask(b'{"model":"alias","x":1.10}')).status == 200
    assert [exchange.body for exchange in first.exchanges] == [b'{"model":"first\'s own","x":1.10}']
    assert [exchange.body for exchange in second.exchanges] == [b'{"model":"m","x":1.10}']
    assert (await world.ask(b' {"x": 1.10, "model": "m"}')).status == 200
    assert second.exchanges[-1].body == b' {"x": 1.10, "model": "m"}'


members = st.dictionaries(
    st.text(),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


@given(
    before=members, after=members, name=st.text(st.characters(exclude_categories=["Cs"])), indent=st.none() | st.just(1)
)
@settings(deadline=None)
@pytest.mark.parametrize("given_module", [None, msgspec], ids=["json", "msgspec"])
def test_everything_else_means_what_it_meant(
    given_module: ModuleType | None, before: dict[str, object], after: dict[str, object], name: str, indent: int | None
) -> None:
    asked = {**before, "model": "qwen", **{key: value for key, value in after.items() if key != "model"}}
    body = json.dumps(asked, indent=indent).encode()
    written = rewrite_model(JSON, body, name, given_module)
    assert repr(json.loads(written)) == repr({**json.loads(body), "model": name})
