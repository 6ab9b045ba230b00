"""What the bodies of management requests order, checked: every mistake is told at once, as for ``stoker.toml``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from stoker.core.naming import LONGEST, is_engine_id
from stoker.errors import ConfigError, Mistake

_USUAL_PATH = "/v1/chat/completions"
MOST_SECONDS = 366 * 24 * 3600.0


def take_engine_id(body: dict[str, Any], source: str) -> str | None:
    """Take ``engine_id`` out of ``body``. Raises ConfigError for one that can't be an engine's id."""
    engine_id = body.pop("engine_id", None)
    if engine_id is None:
        return None
    if isinstance(engine_id, str) and is_engine_id(engine_id):
        return engine_id
    rule = f"must be lower-case letters, digits, '.', '_' and '-', at most {LONGEST}, a letter or digit first"
    raise ConfigError(source, [Mistake("engine_id", rule)])


def drain_seconds(body: Mapping[str, Any], source: str) -> float | None:
    """How long to drain: ``drain`` false means not at all, ``drain_timeout_seconds`` how long; None: as the spec says.

    Raises ConfigError.
    """
    known = ("drain", "drain_timeout_seconds")
    mistakes = [Mistake(key, f"is not known here; there are: {', '.join(known)}") for key in body if key not in known]
    drain, seconds = body.get("drain", True), body.get("drain_timeout_seconds")
    if not isinstance(drain, bool):
        mistakes.append(Mistake("drain", "must be true or false"))
    if seconds is not None and not _is_duration(seconds):
        mistakes.append(Mistake("drain_timeout_seconds", f"must be a number from 0 to {MOST_SECONDS:.0f}"))
    elif drain is False and seconds:
        mistakes.append(Mistake("drain_timeout_seconds", "contradicts drain = false"))
    if mistakes:
        raise ConfigError(source, mistakes)
    return 0.0 if drain is False else seconds


def flags(body: Mapping[str, Any], known: Sequence[str], source: str) -> Mapping[str, bool]:
    """The members of ``body``, each true or false, and false where it is missing. Raises ConfigError."""
    mistakes = [Mistake(key, f"is not known here; there are: {', '.join(known)}") for key in body if key not in known]
    mistakes += [Mistake(key, "must be true or false") for key in known if not isinstance(body.get(key, False), bool)]
    if mistakes:
        raise ConfigError(source, mistakes)
    return {key: body.get(key, False) for key in known}


def adapter_order(body: Mapping[str, Any], source: str) -> tuple[str, str]:
    """The name and the path of an adapter to load. Raises ConfigError."""
    known = ("name", "path")
    mistakes = [Mistake(key, f"is not known here; there are: {', '.join(known)}") for key in body if key not in known]
    missing = [key for key in known if not isinstance(body.get(key), str) or not body[key].strip()]
    mistakes.extend(Mistake(key, "must be a text that is not empty") for key in missing)
    if mistakes:
        raise ConfigError(source, mistakes)
    return body["name"], body["path"]


@attrs.frozen
class RouteOrder:
    """The head of a request that is to be explained. The names of ``headers`` are lower case."""

    model: str
    path: str
    headers: Mapping[str, str]


def route_order(body: Mapping[str, Any], source: str) -> RouteOrder:
    """Which request is to be explained; its ``body``, if one is given, may say the ``model``. Raises ConfigError."""
    known = ("model", "path", "headers", "body")
    mistakes = [Mistake(key, f"is not known here; there are: {', '.join(known)}") for key in body if key not in known]
    given = {key: value for key, value in body.items() if value is not None}
    inner, headers, path = given.get("body", {}), given.get("headers", {}), given.get("path", _USUAL_PATH)
    if not isinstance(inner, dict):
        mistakes.append(Mistake("body", "must be a JSON object: the request's own body"))
        inner = {}
    model = given.get("model", inner.get("model"))
    if not isinstance(model, str) or not model:
        mistakes.append(Mistake("model", "must name a model, here or in the body"))
    elif inner.get("model", model) != model:
        mistakes.append(Mistake("model", "is not the one of the body; leave one of them out"))
    if not isinstance(path, str) or not path.startswith("/"):
        mistakes.append(Mistake("path", f"must be a path such as {_USUAL_PATH}"))
    if not isinstance(headers, dict) or not all(isinstance(value, str) for value in headers.values()):
        mistakes.append(Mistake("headers", "must be a JSON object of texts"))
    if mistakes:
        raise ConfigError(source, mistakes)
    return RouteOrder(str(model), path, {name.lower(): value for name, value in headers.items()})


def remote_spec(body: Mapping[str, Any], source: str) -> dict[str, Any]:
    """What ``register`` takes, as the spec of an engine that is a URL. Raises ConfigError.

    ``host`` and ``port`` may stand for ``url``; the spec's other fields are as they are, and unchecked.
    """
    spec = {key: value for key, value in body.items() if value is not None}
    mistakes = []
    host, port = spec.pop("host", None), spec.pop("port", None)
    if host is None and port is None:
        if "url" not in spec:
            mistakes.append(Mistake("url", "is missing; give the address of the engine, or its host and port"))
    elif "url" in spec:
        mistakes.append(Mistake("url", "is given, and so are host or port; give one or the other"))
    else:
        mistakes.extend(_check_address(host, port))
        spec["url"] = f"http://[{host}]:{port}" if ":" in str(host) else f"http://{host}:{port}"
    spec.setdefault("runtime", "remote")
    if spec.setdefault("replicas", 1) != 1:
        mistakes.append(Mistake("replicas", "must be 1 (or not given): a URL is one engine"))
    if mistakes:
        raise ConfigError(source, mistakes)
    return spec


def _check_address(host: object, port: object) -> list[Mistake]:
    mistakes = []
    if not isinstance(host, str) or not host:
        mistakes.append(Mistake("host", "must be a name or an address, and stand beside port"))
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        mistakes.append(Mistake("port", "must be a whole number from 1 to 65535, and stand beside host"))
    return mistakes


def _is_duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and 0 <= value <= MOST_SECONDS
