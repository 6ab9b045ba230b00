"""Paths and errors of the HTTP interface."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

from drawing.marks import Parts
from drawing.prose import table
from stoker.config import spec_schema
from stoker.core.codes import Code
from stoker.web.app import skeleton
from stoker.web.doors import MANAGEMENT
from stoker.web.openapi.document import document

METHODS = frozenset({"get", "post", "put", "patch", "delete"})


@cache
def _operations() -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """What the OpenAPI document says, by path and method."""
    paths = document(skeleton(), spec_schema())["paths"]
    return {
        (path, method): said for path, methods in paths.items() for method, said in methods.items() if method in METHODS
    }


def _paths(*tags: str) -> str:
    rows: dict[tuple[str, str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for (path, method), said in _operations().items():
        if {*tags} & {*said["tags"]}:
            where = "" if "engines" in said["tags"] else path  # of the engines' paths the same is to be said
            paths, methods = rows.setdefault((where, _what(said), _statuses(said)), ({}, {}))
            paths[f"`{path.removeprefix(MANAGEMENT)}`"] = methods[method.upper()] = None
    cells = ((", ".join(paths), ", ".join(methods), *said) for (_, *said), (paths, methods) in rows.items())
    return table(("path", "method", "what", "statuses"), cells)


def _statuses(said: Mapping[str, Any]) -> str:
    return ", ".join("the engine's own" if status == "default" else status for status in sorted(said["responses"]))


def _what(said: Mapping[str, Any]) -> str:
    query = (_in_query(each) for each in said["parameters"] if each["in"] == "query")
    return " ".join([said["summary"], said.get("description", ""), *query])


def _in_query(parameter: Mapping[str, Any]) -> str:
    match parameter["schema"]:
        case {"enum": [only]} | {"const": only}:
            value = only
        case _:
            value = "…"
    return f"`?{parameter['name']}={value}`: {parameter['description']}"


def _errors() -> Iterator[tuple[str, str, str]]:
    for code in sorted(Code, key=lambda code: code.status):
        yield str(code.status), f"`{code.text}`", code.why + ("; with `Retry-After`" if code.retry else "")


PARTS: Parts = {
    "for clients": partial(_paths, "engines", "openai", "open"),
    "errors": lambda: table(("status", "`code`", "why"), _errors()),
    "sessions": partial(_paths, "sessions"),
    "management": partial(_paths, "management"),
}
