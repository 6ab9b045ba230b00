"""``stoker completion``: the script with which a shell completes what is typed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from stoker.cli.activity import warn
from stoker.cli.extensions import add_commands
from stoker.cli.options import PluginPath
from stoker.cli.plugins import load_plugins
from stoker.cli.tree import make_app
from stoker.containing import aside, contained, words
from stoker.errors import PluginError
from stoker.plugins import Registry

Shell = Literal["bash", "zsh", "fish"]
_NAME = re.compile(r"[A-Za-z0-9_-]+")  # of a program that a script can be for: no stoker.pyz, and no __main__.py

# Cyclopts only defines a function there, which zsh finds if the file has its name. Under the usual name `_stoker`, or
# sourced, the script would do nothing.
ZSH_END = """
case $zsh_eval_context[-1] in
  *func) _cyclopts_{program} "$@" ;;  # compinit found this file, which is the function that completes
  *) compdef _cyclopts_{program} {program} ;;  # it was sourced
esac
"""


def completion(
    shell: Annotated[Shell, Parameter(help="Which shell it is for: bash, zsh or fish.")],
    /,
    *,
    plugin_path: PluginPath = (),
) -> None:
    """Print what makes a shell complete commands, ids and models.

    It is a script: `eval` it, or put it where the shell looks for such scripts.
    """
    started = Path(sys.argv[0]).name
    program = started if _NAME.fullmatch(started) else "stoker"
    app = _whole(load_plugins(plugin_path, needed=False), shell)
    print(app.generate_completion(prog_name=program, shell=shell))
    if shell == "zsh":
        print(ZSH_END.format(program=program))


def _whole(registry: Registry, shell: Shell) -> App:
    """All commands, those of plugins among them as far as a script can be made of them."""
    app = make_app()
    for name, plugin in add_commands(app, registry).items():
        try:
            with aside(), contained("it failed"):
                app[name].generate_completion(prog_name="trial", shell=shell)
        except PluginError as error:
            del app[name]
            warn(f"the command {name!r} of plugin {plugin!r} is not completed: {words(error)}")
    return app
