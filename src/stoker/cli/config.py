"""``stoker config check|show|schema``."""

from __future__ import annotations

import tomllib

from stoker import config as configuration
from stoker.cli.configured import find_settings, require_door, require_fit
from stoker.cli.options import AsJson, ConfigFile, PluginPath, Strict
from stoker.cli.output import print_json
from stoker.cli.plugins import load_plugins
from stoker.errors import StokerError


def check(*, config: ConfigFile = None, plugin_path: PluginPath = (), strict: Strict = False) -> None:
    """Name every mistake in stoker.toml, each with its path; change nothing."""
    path, settings = find_settings(config)
    if path is None:
        raise StokerError("there is no stoker.toml in this folder; name one with -c")
    require_fit(settings, load_plugins(plugin_path, strict=strict), str(path))
    require_door(settings, str(path))
    count = sum(spec.replicas for spec in settings.engines)
    print(f"{path}: OK, {count} engine{'' if count == 1 else 's'}")


def show(*, config: ConfigFile = None, as_json: AsJson = False) -> None:
    """Show all of the configuration, with the defaults.

    It is printed as TOML.
    """
    _, settings = find_settings(config)
    if as_json:
        print_json(tomllib.loads(configuration.to_toml(settings)))
    else:
        print(configuration.to_toml(settings), end="")


def print_schema() -> None:
    """Print the JSON Schema of stoker.toml."""
    print_json(configuration.schema())
