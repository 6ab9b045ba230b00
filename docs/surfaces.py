"""What the command line and the HTTP interface say of themselves, as pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cyclopts import App
from cyclopts.argument import Argument

from stoker.cli.tree import COMMANDS, GROUPS, make_app, paths
from stoker.config import spec_schema
from stoker.web.app import skeleton
from stoker.web.openapi.document import document

METHODS = ("get", "post", "put", "patch", "delete")


def commands() -> str:
    """A section for each command: what it is for, and what can be given to it."""
    app = make_app()
    return "\n".join(line for command in paths() for line in _command(app, command))


def _command(app: App, command: str) -> Iterator[str]:
    words = command.split()
    for word in words:
        app = app[word]
    if words[0] in GROUPS and len(words) == 1:
        return
    yield f"## stoker {command}\n"
    about = COMMANDS[command][1] if command in COMMANDS else app.help
    yield f"{about}\n"
    arguments = [argument for argument in app.assemble_argument_collection() if argument.show]
    if arguments:
        yield "| argument | meaning |"
        yield "| --- | --- |"
        yield from (f"| {_names(argument)} | {_cell(argument.parameter.help or '')} |" for argument in arguments)
        yield ""


def _names(argument: Argument) -> str:
    said = argument.parameter.negative or ()  # the others there are only if the whole program is not asked
    names = (name for name in argument.names if not name.startswith(("--no-", "--empty-")) or name in said)
    return ", ".join(f"`{name}`" for name in names)


def endpoints() -> str:
    """A row for each method of each path."""
    described: Mapping[str, Mapping[str, Any]] = document(skeleton(), spec_schema())["paths"]
    return "\n".join(
        f"| `{path}` | {method.upper()} | {_cell(operation['summary'])} | {', '.join(sorted(operation['responses']))} |"
        for path, operations in sorted(described.items())
        for method, operation in operations.items()
        if method in METHODS
    )


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
