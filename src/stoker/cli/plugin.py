"""``stoker plugin list``."""

from __future__ import annotations

from typing import Any

from stoker.cli.extensions import add_commands, try_routes
from stoker.cli.options import AsJson, PluginPath, Strict
from stoker.cli.output import print_json, print_table
from stoker.cli.plugins import load_plugins
from stoker.cli.tree import make_app
from stoker.plugins import PluginRecord

HOOKS = {
    "stoker_register_routes": "routes",
    "stoker_register_commands": "commands",
    "stoker_engine_changed": "observes engines",
    "stoker_request_finished": "observes requests",
    "stoker_ending": "observes the end",
}


def listing(*, plugin_path: PluginPath = (), strict: Strict = False, as_json: AsJson = False) -> None:
    """List the plugins: where each came from, what it provides, and why it was left out if it was."""
    registry = load_plugins(plugin_path, strict=strict)
    add_commands(make_app(), registry, strict=strict)
    try_routes(registry, strict=strict)
    records = registry.records
    if as_json:
        print_json([_described(record) for record in records])
        return
    rows = [(record.name, record.origin, _provided(record)) for record in records]
    print_table(("PLUGIN", "FROM", "PROVIDES"), rows, empty="there are no plugins", prose=True)


def _described(record: PluginRecord) -> dict[str, Any]:
    provides = {kind: list(names) for kind, names in record.provides.items()}
    return {"name": record.name, "from": record.origin, "provides": provides, "problem": record.problem}


def _provided(record: PluginRecord) -> str:
    if record.problem is not None:
        return f"left out: {record.problem}"
    kinds = [f"{kind} {', '.join(names)}" for kind, names in record.provides.items() if names and kind != "hooks"]
    return "; ".join([*kinds, *(HOOKS[hook] for hook in record.provides["hooks"])])
