"""``stoker plugin list``."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import pluggy

from stoker.cli.options import AsJson
from stoker.cli.output import print_json, print_table
from stoker.plugins import build_plugin_manager, build_registry

HOOKS: Mapping[str, str] = MappingProxyType(
    {
        "runtimes": "stoker_register_runtimes",
        "policies": "stoker_register_policies",
        "schedulers": "stoker_register_schedulers",
    }
)


def listing(*, as_json: AsJson = False) -> None:
    """List the plugins and what they provide."""
    manager = build_plugin_manager()
    build_registry(manager)  # a plugin that is broken is named here too
    plugins = [
        {"name": name, **{kind: _provided(manager, hook, name) for kind, hook in HOOKS.items()}}
        for name, _ in manager.list_name_plugin()
    ]
    if as_json:
        print_json(plugins)
    else:
        headings = ("PLUGIN", *(kind.upper() for kind in HOOKS))
        print_table(headings, [tuple(each.values()) for each in plugins], empty="there are no plugins")


def _provided(manager: pluggy.PluginManager, hook: str, plugin: str) -> list[str]:
    implementations = getattr(manager.hook, hook).get_hookimpls()
    return [thing.name for each in implementations if each.plugin_name == plugin for thing in each.function()]
