"""The commands of plugins. This is imported, and plugins are loaded, only where it may be one of them."""

from __future__ import annotations

import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import NoReturn

from cyclopts import App

from stoker.cli.activity import warn
from stoker.cli.tree import is_ours, make_app
from stoker.containing import aside, contained, told, words
from stoker.errors import PluginError
from stoker.plugins import Implementation, Registry

TRACEBACK = "STOKER_TRACEBACK"


def add_commands(app: App, registry: Registry, *, strict: bool = False) -> Mapping[str, str]:
    """Add the commands of all plugins to ``app``; returns the plugin of each.

    Those of a plugin that does it wrongly are left out, with a remark on standard error. With ``strict`` they are a
    PluginError instead.
    """
    owners: dict[str, str] = {}
    for hook in registry.implementations("stoker_register_commands"):
        try:
            with aside(), contained("it failed"):
                commands = _commands(app, hook, owners)
                for command in commands:
                    command.help = f"{command.help or ''} (plugin {hook.plugin})".lstrip()
                    make_app().command(command)  # which fails, if it does, before anything is added to ours
        except PluginError as error:
            message = f"the commands of plugin {hook.plugin!r} are left out: {words(error)}"
            if strict:
                raise PluginError(message) from error
            warn(message)
            continue
        for command in commands:
            app.command(command)
            owners.update(dict.fromkeys(command.name, hook.plugin))
    return owners


def try_routes(registry: Registry, *, strict: bool = False) -> None:
    """See whether the routes of all plugins could be added to a gateway; what is said of the others, is as above."""
    if not (hooks := registry.implementations("stoker_register_routes")):
        return
    from stoker.web.app import skeleton

    app = skeleton()
    for hook in hooks:
        try:
            app.add_routes_of(hook)
        except PluginError as error:
            if strict:
                raise
            warn(words(error))


def _commands(app: App, hook: Implementation, owners: Mapping[str, str]) -> Sequence[App]:
    answer = hook(cli=app)
    if not isinstance(answer, Iterable):
        raise PluginError(f"stoker_register_commands returned a {type(answer).__name__}; it must return a list")
    commands, taken = list(answer), dict(owners)
    for command in commands:
        if not isinstance(command, App):
            raise PluginError(f"{command!r} is no App of cyclopts")
        for name in command.name:
            if is_ours(name) or name in taken:
                whose = f"of plugin {taken[name]!r}" if name in taken else "of Stoker's own"
                raise PluginError(f"there is a command {name!r} {whose} already")
            taken[name] = hook.plugin
    return commands


def failed(command: str, plugin: str, error: Exception) -> NoReturn:
    """Turn what a plugin's command raised into an error that names the plugin."""
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    hint = "" if os.environ.get(TRACEBACK) else f"; {TRACEBACK}=1 shows where"
    raise PluginError(f"the command {command!r} of plugin {plugin!r} failed with {told(error)}{hint}") from error
