"""The names that shells complete. Whatever goes wrong, a shell that completes hears nothing.

Nothing heavy is imported before it is needed: somebody has pressed a key and waits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

PATIENCE_SECONDS = 1.0
Name = tuple[str, str]
"""A name, and what it is the name of."""


def completing(what: str) -> Callable[[CompletionContext], list[Name]]:
    """A completer of ``engines``, ``models``, ``keys``, ``sessions``, ``runtimes`` or ``policies``, for a parameter."""

    def complete(_: CompletionContext) -> list[Name]:
        try:
            return list(_NAMES[what]())
        except Exception:  # noqa: BLE001 - there is nobody to tell: the shell shows a line that somebody is typing
            return []

    return complete


def _engines() -> Iterable[Name]:
    return ((each["engine_id"], f"{each['state']}, {each['model']}") for each in _data("/v1/management/engines"))


def _models() -> Iterable[Name]:
    names = {name: each["runtime"] for each in _data("/v1/management/engines") for name in each["names"]}
    return names.items()


def _keys() -> Iterable[Name]:
    return ((each["key_id"], each["name"]) for each in _data("/v1/management/keys") if each["revoked_at"] is None)


def _sessions() -> Iterable[Name]:
    return ((each["session_id"], each["title"] or "") for each in _data("/sessions?limit=100"))


def _runtimes() -> Iterable[Name]:
    from stoker.cli.plugins import load_plugins

    runtimes = load_plugins(needed=False).runtimes
    return ((name, each.environment.summary if each.environment else "") for name, each in runtimes.items())


def _policies() -> Iterable[Name]:
    from stoker.cli.plugins import load_plugins

    return ((name, "") for name in load_plugins(needed=False).policies)


_NAMES: Mapping[str, Callable[[], Iterable[Name]]] = MappingProxyType(
    {
        "engines": _engines,
        "models": _models,
        "keys": _keys,
        "sessions": _sessions,
        "runtimes": _runtimes,
        "policies": _policies,
    }
)


def _data(path: str) -> list[dict[str, Any]]:
    """What a running gateway lists there; nothing where there is none."""
    from stoker.cli.finding import address_of, read_gateway
    from stoker.home import Home

    home = Home.from_environment(os.environ)
    running = read_gateway(home)
    if os.environ.get("STOKER_URL") or (running is not None and running.certfile is not None):
        return _data_elsewhere(path)
    if running is None:
        return []
    from http.client import HTTPConnection
    from urllib.parse import urlsplit

    address = address_of(home, running, os.environ)
    where = urlsplit(address.url)
    connection = HTTPConnection(where.hostname or "", where.port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", path, headers={"authorization": f"Bearer {address.token}"})
        found: list[dict[str, Any]] = json.loads(connection.getresponse().read())["data"]
        return found
    finally:
        connection.close()


def _data_elsewhere(path: str) -> list[dict[str, Any]]:
    """The same with all that a client can do: TLS, other machines."""
    from stoker.cli.client import connect

    with connect(root="") as client:
        found = client.get(path, patience_seconds=PATIENCE_SECONDS)["data"]
    return list(found)
