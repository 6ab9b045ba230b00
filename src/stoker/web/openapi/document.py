"""The document: every route of the app and every path that is proxied, with what is known of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from quart import Quart
from werkzeug.routing import Rule

from stoker import __version__
from stoker.gateway.paths import EXACT, FOLDERS
from stoker.gpu import ledger
from stoker.store import audit
from stoker.web.doors import FOR_CLIENTS_TOO, OPEN_TO_ALL, is_management
from stoker.web.openapi.for_clients import FOR_CLIENTS
from stoker.web.openapi.for_managers import for_managers
from stoker.web.openapi.operation import Operation
from stoker.web.openapi.schemas import Schemas, optional, prose
from stoker.web.wire import JSON

_PART = re.compile(r"<(?:(?P<kind>[^:<>]+):)?(?P<name>[^<>]+)>")
_LABEL = re.compile(r"^`[A-Z]+ [^`]*`: ")
_KINDS = {"int": {"type": "integer", "minimum": 0}, "float": {"type": "number"}}
_NOT_SHOWN = frozenset({"HEAD", "OPTIONS"})
_ALWAYS = (400, 403)  # a Host or an Origin that is not this gateway's
_OF_BODIES = (408, 413)
_PROXIED_ERRORS = (400, 401, 403, 404, 408, 413, 429, 502, 503)
_FORMS = "multipart/form-data"
_EVENTS = "text/event-stream"
_ERROR = {"error": {"message": str, "type": str, "param": str | None, "code": str}}
_DESCRIPTION = """\
Keeps inference engines running and puts one OpenAI-compatible address in front of them. What is `GET` here can also be
asked for with `HEAD`. Every error of Stoker's own has the same shape; its message says what is wrong and what to do.
Errors of engines pass as they are.

Paths for clients are open as long as there are no API keys, and with the first key need one of the scope that is named
beside them. Those of management always need the admin token, or a key of the scope `admin`.
"""


def document(app: Quart, spec_schema: Mapping[str, Any]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of ``app``. ``spec_schema`` is the JSON Schema of what describes an engine."""
    schemas = Schemas({ledger.Entry: "Measured", audit.Entry: "AuditEntry"})
    known = {**FOR_CLIENTS, **for_managers(spec_schema)}
    paths: dict[str, dict[str, Any]] = dict(_proxied(schemas))
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - _NOT_SHOWN):
            entry = _entry(app, rule, method, known.get(rule.endpoint), schemas)
            paths.setdefault(path_of(rule), {})[method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stoker", "version": __version__, "description": _DESCRIPTION},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": {"Error": schemas.of(_ERROR), **dict(sorted(schemas.components.items()))},
            "headers": {
                "RequestId": {"description": "The client's own, or one that was made.", "schema": {"type": "string"}}
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, or the admin token."},
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "The same."},
            },
        },
    }


def path_of(rule: Rule) -> str:
    """The path of ``rule`` as OpenAPI has it."""
    return _PART.sub(r"{\g<name>}", rule.rule)


def _entry(app: Quart, rule: Rule, method: str, operation: Operation | None, schemas: Schemas) -> dict[str, Any]:
    """One method of one path. Of a plugin's endpoint only what its route says is known."""
    summary, _, rest = _LABEL.sub("", prose(app.view_functions[rule.endpoint])).partition("\n\n")
    blueprint, _, name = rule.endpoint.rpartition(".")
    one = len((rule.methods or set()) - _NOT_SHOWN) == 1
    entry: dict[str, Any] = {
        "operationId": f"{blueprint or 'app'}_{name}" + ("" if one else f"_{method.lower()}"),
        "tags": [blueprint or "app"],
        "summary": _sentence(summary) or name,
        "security": _security(path_of(rule), method),
        "parameters": [*_in_path(rule), *_in_query(operation, schemas)],
    }
    if rest:
        entry["description"] = rest
    if operation is None:
        return {**entry, "responses": {"default": {"description": "What the plugin answers."}}}
    if operation.body is not None:
        entry["requestBody"] = {
            "description": "A JSON object."
            if operation.needs_body
            else "A JSON object, or no body at all: not a blank one.",
            "required": operation.needs_body,
            "content": {JSON: {"schema": _closed(operation.body, schemas)}},
        }
    return {**entry, "responses": _responses(operation, _errors(rule, operation), schemas)}


def _sentence(text: str) -> str:
    words = " ".join(text.split())
    return words[:1].upper() + words[1:]


def _closed(shape: Any, schemas: Schemas) -> dict[str, Any]:
    closed = {"additionalProperties": False} if isinstance(shape, Mapping) else {}
    return {**schemas.of(shape), **closed}


def _in_path(rule: Rule) -> Iterator[dict[str, Any]]:
    for part in _PART.finditer(rule.rule):
        kind = (part["kind"] or "").partition("(")[0]
        schema = _KINDS.get(kind, {"type": "string", "minLength": 1})
        yield {"name": part["name"], "in": "path", "required": True, "schema": schema}


def _in_query(operation: Operation | None, schemas: Schemas) -> Iterator[dict[str, Any]]:
    for name, parameter in ({} if operation is None else operation.query).items():
        schema = schemas.of(parameter.shape)
        yield {"name": name, "in": "query", "description": parameter.meaning, "schema": schema}


def _security(path: str, method: str) -> list[dict[str, list[str]]]:
    """Who may ask, each with the scopes of which a key needs one."""
    if path in OPEN_TO_ALL:
        return []
    if is_management(path):
        scopes = ["admin", "inference"] if path in FOR_CLIENTS_TOO and method == "GET" else ["admin"]
        return _with_scopes(scopes)
    if f"{path}/".startswith("/sessions/"):
        return [{}, *_with_scopes(["sessions"])]
    return [{}, *_with_scopes(["inference"] if f"{path}/".startswith("/v1/models/") else [])]


def _with_scopes(scopes: list[str]) -> list[dict[str, list[str]]]:
    return [{"bearer": scopes}, {"x-api-key": scopes}]


def _errors(rule: Rule, operation: Operation) -> Sequence[int]:
    errors = {*_ALWAYS, *operation.errors}
    if path_of(rule) not in OPEN_TO_ALL:
        errors.add(401)
    if operation.body is not None:
        errors.update(_OF_BODIES)
    if rule.arguments:
        errors.add(404)
    return sorted(errors)


def _responses(operation: Operation, errors: Sequence[int], schemas: Schemas) -> dict[str, Any]:
    answers = {
        status: {"content": {media: {"schema": schemas.of(shape)} for media in operation.media}}
        for status, shape in operation.answers.items()
    }
    every = {**answers, **{status: _error() for status in errors}}
    return {str(status): {**_about(status), **each} for status, each in every.items()}


def _error() -> dict[str, Any]:
    return {"content": {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}}


def _about(status: int) -> dict[str, Any]:
    header = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
    return {"description": HTTPStatus(status).phrase, "headers": header}


def _proxied(schemas: Schemas) -> Iterator[tuple[str, dict[str, Any]]]:
    """The paths that go to engines, which say themselves what they take and answer."""
    for path in sorted(EXACT):
        yield path, {"post": _to_an_engine(path, [JSON], schemas)}
    for folder in FOLDERS:
        rest = {"name": "rest", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        entry = _to_an_engine(folder, [JSON, _FORMS], schemas)
        yield f"{folder}{{rest}}", {"post": {**entry, "parameters": [rest]}}


def _to_an_engine(path: str, taken: Sequence[str], schemas: Schemas) -> dict[str, Any]:
    body = {**schemas.of({"model": str, "session_id": optional(str)}), "additionalProperties": True}
    answer = {"content": {JSON: {"schema": {}}, _EVENTS: {"schema": {"type": "string"}}}}
    return {
        "operationId": "engines" + re.sub(r"\W+", "_", path).rstrip("_"),
        "tags": ["engines"],
        "summary": "To an engine of the model that the body names, if it serves the path; streams included.",
        "description": "What it takes and answers is its own matter: see its documentation of the path.",
        "security": [{}, *_with_scopes(["inference"])],
        "parameters": [],
        "requestBody": {"required": True, "content": {media: {"schema": body} for media in taken}},
        "responses": {
            "200": {**_about(200), **answer},
            **{str(status): {**_about(status), **_error()} for status in _PROXIED_ERRORS},
            "default": {"description": "What the engine answers."},
        },
    }
