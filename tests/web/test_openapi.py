"""The OpenAPI document against the code: what can be asked stands in it, and nothing else does."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import attrs
import jsonschema_rs
import pytest
from quart import Blueprint
from tests.web.conftest import World

from stoker.config import spec_schema
from stoker.gateway.paths import EXACT, FOLDERS, is_proxied
from stoker.model import EngineState
from stoker.web.app import skeleton
from stoker.web.openapi.document import document, path_of
from stoker.web.openapi.for_clients import FOR_CLIENTS
from stoker.web.openapi.for_managers import for_managers
from stoker.web.openapi.schemas import Schemas, taken

APP = skeleton()
DOCUMENT = document(APP, spec_schema())
ENDPOINTS = sorted(APP.view_functions)
KNOWN = {**FOR_CLIENTS, **for_managers(spec_schema())}


def routes() -> Iterator[tuple[str, str, str]]:
    """The paths of the app, each with a method and its endpoint."""
    for rule in APP.url_map.iter_rules():
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}:
            yield path_of(rule), method.lower(), rule.endpoint


def source_of(endpoint: str) -> str:
    """What a handler does, with what it has its class and its module do: one step deep."""
    handler: Any = APP.view_functions[endpoint]
    sources = [inspect.getsource(handler)]
    around = {**vars(inspect.getmodule(handler)), **vars(type(handler.__self__))}
    names = {name for name in handler.__code__.co_names if inspect.isfunction(around.get(name))}
    sources += [inspect.getsource(around[name]) for name in sorted(names)]
    return "\n".join(map(textwrap.dedent, sources))


def calls_in(source: str) -> Iterator[tuple[str, set[str]]]:
    """Every call there: the function's name, and the texts among its arguments."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            function = node.func
            name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
            texts = {
                each.value for argument in node.args for each in ast.walk(argument) if isinstance(each, ast.Constant)
            }
            yield name, {text for text in texts if isinstance(text, str)}


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    described = {(path, method) for path, methods in DOCUMENT["paths"].items() for method in methods}
    proxied = {(path, "post") for path in (*EXACT, *(f"{folder}{{rest}}" for folder in FOLDERS))}
    assert described == {(path, method) for path, method, _ in routes()} | proxied
    assert all(is_proxied(path) for path, _ in proxied)


def test_of_every_endpoint_is_known_what_it_answers() -> None:
    assert set(KNOWN) == set(ENDPOINTS)


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_every_parameter_that_a_handler_reads_is_described(endpoint: str) -> None:
    """Query parameters are named where they are read, and a body is read by one of two functions."""
    source = source_of(endpoint)
    calls = list(calls_in(source))
    read = {text for name, texts in calls if name in ("Query", "_query") for text in texts}
    assert set(KNOWN[endpoint].query) == read
    takes_body = any(name in ("read_object", "parse_json") for name, _ in calls)
    assert (KNOWN[endpoint].body is not None) == takes_body
    assert KNOWN[endpoint].needs_body == (takes_body and "optional=True" not in source)


def test_every_part_of_a_path_is_described() -> None:
    for path, method, _ in routes():
        parameters = DOCUMENT["paths"][path][method]["parameters"]
        named = {each["name"] for each in parameters if each["in"] == "path"}
        assert named == {part.partition("}")[0] for part in path.split("{")[1:]}, path


def test_every_operation_says_what_it_is_for() -> None:
    operations = [each for methods in DOCUMENT["paths"].values() for each in methods.values()]
    assert all(each["summary"] and each["responses"] for each in operations)
    ids = [each["operationId"] for each in operations]
    assert len(set(ids)) == len(ids)


def test_only_what_needs_no_key_says_so() -> None:
    free = {
        path for path, methods in DOCUMENT["paths"].items() if any(not each["security"] for each in methods.values())
    }
    assert free == {"/health", "/ready", "/openapi.json"}
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            assert ({} in operation["security"]) != (path.startswith("/v1/management") or path in free)


def schemas_in(value: object) -> Iterator[Mapping[str, Any]]:
    """Every schema in a part of the document."""
    if isinstance(value, dict):
        if "schema" in value:
            yield value["schema"]
        for each in value.values():
            yield from schemas_in(each)
    elif isinstance(value, list):
        for each in value:
            yield from schemas_in(each)


def test_every_schema_is_one_and_refers_to_what_there_is() -> None:
    components = DOCUMENT["components"]
    for schema in [*schemas_in(DOCUMENT["paths"]), *components["schemas"].values()]:
        jsonschema_rs.Draft202012Validator({**schema, "components": components})


# Of records and hints


@attrs.frozen
class Leaf:
    """A ``leaf``."""

    size: int
    name: str | None = None


@attrs.frozen
class Tree:
    """A tree."""

    leaves: tuple[Leaf, ...]
    about: Mapping[str, Any]
    state: EngineState


def test_a_record_is_a_component_that_others_refer_to() -> None:
    schemas = Schemas()
    assert schemas.of(Tree) == {"$ref": "#/components/schemas/Tree"}
    tree, leaf = schemas.components["Tree"], schemas.components["Leaf"]
    assert tree["properties"]["leaves"] == {"type": "array", "items": {"$ref": "#/components/schemas/Leaf"}}
    assert tree["properties"]["about"] == {"type": "object", "additionalProperties": True}
    assert leaf["description"] == "A `leaf`."
    assert leaf["required"] == ["size", "name"]
    assert schemas.components["EngineState"]["enum"] == list(EngineState)


def test_what_is_taken_may_lack_what_has_a_default() -> None:
    schema = Schemas().of(taken(Leaf))
    assert schema["required"] == ["size"]
    assert {"type": "null"} in schema["properties"]["name"]["anyOf"]


def test_what_can_not_be_said_fails() -> None:
    with pytest.raises(TypeError, match="has no JSON Schema"):
        Schemas().of(Iterator[int])
    schemas = Schemas({Tree: "Leaf"})
    schemas.of(Leaf)
    with pytest.raises(TypeError, match="both called Leaf"):
        schemas.of(Tree)


# Of plugins, and as it is served


async def paint(colour: str, coats: int) -> str:
    """Paint it ``twice``.

    It dries by itself.
    """
    return f"{colour} {coats}"


def test_the_paths_of_plugins_are_in_it_too() -> None:
    app = skeleton()
    blueprint = Blueprint("paint", __name__)
    blueprint.add_url_rule("/paint/<colour>/<int:coats>", view_func=paint, methods=["PUT"])
    app.register_blueprint(blueprint)
    described = document(app, spec_schema())["paths"]["/paint/{colour}/{coats}"]["put"]
    assert described["summary"] == "Paint it `twice`."
    assert described["description"] == "It dries by itself."
    assert [each["schema"]["type"] for each in described["parameters"]] == ["string", "integer"]


async def test_the_document_is_served_to_whoever_asks(world: World) -> None:
    await world.key()
    answer = await world.anyone.get("/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    described = answer.json()
    assert described["openapi"] == "3.1.0"
    assert described["paths"].keys() == DOCUMENT["paths"].keys()
