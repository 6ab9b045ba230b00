"""What the command line says of itself."""

from __future__ import annotations

from collections.abc import Iterator

from cyclopts import App
from cyclopts.argument import Argument

from drawing.marks import Parts
from drawing.prose import table
from stoker.cli.tree import COMMANDS, GROUPS, make_app, paths


def _commands() -> str:
    app = make_app()
    return "\n\n".join(part for command in paths() for part in _command(app, command))


def _command(app: App, command: str) -> Iterator[str]:
    words = command.split()
    for word in words:
        app = app[word]
    if words[0] in GROUPS and len(words) == 1:
        return
    yield f"## stoker {command}"
    yield COMMANDS[command][1] if command in COMMANDS else app.help
    arguments = [argument for argument in app.assemble_argument_collection() if argument.show]
    if arguments:
        yield table(("argument", "meaning"), ((_names(each), each.parameter.help or "") for each in arguments))


def _names(argument: Argument) -> str:
    said = argument.parameter.negative or ()  # the others there are only if the whole program is not asked
    names = (name for name in argument.names if not name.startswith(("--no-", "--empty-")) or name in said)
    return ", ".join(f"`{name}`" for name in names)


PARTS: Parts = {"commands": _commands}
