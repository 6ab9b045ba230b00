"""``stoker plugin list``."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stoker.cli.extensions import add_commands, try_routes
from stoker.cli.invocation import command
from stoker.cli.options import AsJson, PluginPath, Strict, Watch
from stoker.cli.pages import Page
from stoker.cli.plugins import load_plugins
from stoker.cli.presenting import present
from stoker.cli.tables import Column, Fit, Table
from stoker.cli.tree import make_app
from stoker.errors import PluginError
from stoker.plugins import PluginRecord

COLUMNS = (Column("PLUGIN", Fit.WHOLE), Column("FROM", spare=1), "PROVIDES")
HOOKS = {
    "stoker_register_routes": "routes",
    "stoker_register_commands": "commands",
    "stoker_engine_changed": "observes engines",
    "stoker_request_finished": "observes requests",
    "stoker_ending": "observes the end",
}


def listing(
    *, plugin_path: PluginPath = (), strict: Strict = False, as_json: AsJson = False, watch: Watch = False
) -> None:
    """List the plugins and what they provide.

    Also where each came from, and why it, its routes or its commands were left out if they were.
    """
    once = watch is False
    look = _looker(plugin_path, strict=strict) if once else _onlooker(plugin_path, strict=strict)
    present(look, _page, as_json=as_json, watch=watch)


def _looker(plugin_path: Sequence[Path], *, strict: bool) -> Callable[[], list[dict[str, Any]]]:
    def look() -> list[dict[str, Any]]:
        registry = load_plugins(plugin_path, strict=strict)
        add_commands(make_app(), registry, strict=strict)
        try_routes(registry, strict=strict)
        return [_described(record) for record in registry.records]

    return look


def _onlooker(plugin_path: Sequence[Path], *, strict: bool) -> Callable[[], list[dict[str, Any]]]:
    """Looks in a new process each time: in one, a module is imported once, however often its file changes."""
    words = ["plugin", "list", "--json", *(f"--plugin-path={place.absolute()}" for place in plugin_path)]

    def look() -> list[dict[str, Any]]:
        done = subprocess.run(
            [*command(), *words, *(["--strict"] if strict else [])], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise PluginError(done.stderr.strip().removeprefix("stoker: "))
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    return look


def _described(record: PluginRecord) -> dict[str, Any]:
    provides = {kind: list(names) for kind, names in record.provides.items()}
    return {"name": record.name, "from": record.origin, "provides": provides, "problem": record.problem}


def _page(records: Sequence[dict[str, Any]]) -> Page:
    rows = [(each["name"], each["from"], _provided(each)) for each in records]
    return [Table(columns=COLUMNS, rows=rows, empty="there are no plugins", prose=True)]


def _provided(record: dict[str, Any]) -> str:
    if record["problem"] is not None:
        return f"left out: {record['problem']}"
    provides = record["provides"]
    kinds = [f"{kind} {', '.join(names)}" for kind, names in provides.items() if names and kind != "hooks"]
    return "; ".join([*kinds, *(HOOKS[hook] for hook in provides["hooks"])])
