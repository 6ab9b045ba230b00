"""The command line: commands, options, exit codes, environment variables, and what the doctor looks at."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache, partial

from cyclopts import App
from cyclopts.argument import Argument

from drawing.marks import Parts
from drawing.prose import table
from stoker.cli.checks import What
from stoker.cli.outside import EXITS, VARIABLES
from stoker.cli.tree import make_app, paths, whole

SHARED = frozenset({"--json", "--watch", "--plugin-path", "--strict"})
"""Options that mean the same wherever they are, and are explained once."""
LONGEST_USAGE = 110
IN_SHORT = "[OPTIONS]"

_CODE = re.compile(
    r"(?<![`\w])(--(?:[a-z][a-z-]*)?(?=[\s.,:;])|STOKER_\w+|\{\w+\}|(?:\./)?stoker\.toml|keep_days)(?![`\w])"
)


@cache
def _all() -> dict[str, App]:
    """Every command of ours, imported."""
    found = {}
    for path in paths():
        app = make_app()
        for word in path.split():
            app = app[word]
        found[path] = app
    return found


def _overview() -> str:
    rows = (
        (f"[`stoker {path}`](#{_id(path)})", _coded(whole(app).partition("\n\n")[0])) for path, app in _all().items()
    )
    return table(("command", "what"), rows)


def _id(path: str) -> str:
    return f"stoker {path}".replace(" ", "-")


def _sections(*groups: str) -> str:
    return "\n\n".join(
        part for path, app in _all().items() if path.split()[0] in groups for part in _section(path, app)
    )


def _section(path: str, app: App) -> Iterator[str]:
    arguments = [argument for argument in app.assemble_argument_collection() if argument.show]
    usage = _usage(path, arguments)
    yield f"### stoker {path}"
    yield f"`{usage}`"
    yield _coded(whole(app))
    told = [argument for argument in arguments if IN_SHORT in usage or argument.name not in SHARED]
    if told:
        yield _arguments(told)


def _arguments(arguments: Sequence[Argument]) -> str:
    return table(("argument", "meaning"), ((_names(each), _coded(each.parameter.help or "")) for each in arguments))


def _coded(text: str) -> str:
    """What says of itself what it is, a terminal has no font for: options, variables, files."""
    return _CODE.sub(r"`\1`", text)


def _shared() -> str:
    every = (argument for app in _all().values() for argument in app.assemble_argument_collection())
    return _arguments(list({argument.name: argument for argument in every if argument.name in SHARED}.values()))


def _usage(path: str, arguments: Sequence[Argument]) -> str:
    """What is typed: options of which there are too many in short."""
    positional = [_positional(each) for each in arguments if not _is_option(each)]
    after = [word for word in positional if word.startswith("[--")]
    options = [_option(each) for each in arguments if _is_option(each)]
    words = ["stoker", path, *(word for word in positional if word not in after)]
    if len(" ".join(words + options)) > LONGEST_USAGE:
        needed = [_option(each) for each in arguments if _is_option(each) and each.required]
        options = [*needed, IN_SHORT]
    return " ".join(words + options + after)


def _is_option(argument: Argument) -> bool:
    return argument.name.startswith("-")


def _positional(argument: Argument) -> str:
    several = argument.field_info.kind is argument.field_info.VAR_POSITIONAL
    if several:
        return "[-- ARGS]" if argument.name == "ARGS" else f"[{argument.name} …]"
    return argument.name if argument.required else f"[{argument.name}]"


def _option(argument: Argument) -> str:
    shown = " ".join(filter(None, (_said(argument)[0], argument.parameter.metavar)))
    return shown if argument.required else f"[{shown}]"


def _said(argument: Argument) -> Sequence[str]:
    """The names of an option that make a difference: of what is so anyway, those that make it otherwise."""
    otherwise = [name for name in argument.names if name in (argument.parameter.negative or ())]
    return otherwise or [name for name in argument.names if not name.startswith(("--no-", "--empty-"))]


def _names(argument: Argument) -> str:
    value = f" {argument.parameter.metavar}" if argument.parameter.metavar else ""
    names = [name for name in argument.names if not name.startswith(("--no-", "--empty-"))]
    names += [name for name in _said(argument) if name not in names]
    return ", ".join(f"`{name}{value}`" for name in names)


PARTS: Parts = {
    "overview": _overview,
    "exit codes": lambda: table(("code", "meaning"), ((str(code), meaning) for code, meaning in EXITS.items())),
    "environment": lambda: table(("variable", "meaning"), ((f"`{name}`", said) for name, said in VARIABLES.items())),
    "shared options": _shared,
    "in the foreground": partial(_sections, "up", "demo"),
    "gateway": partial(_sections, "gateway"),
    "engine": partial(_sections, "engine"),
    "chat": partial(_sections, "chat"),
    "looking": partial(_sections, "status", "doctor", "audit", "gpu", "route"),
    "key": partial(_sections, "key"),
    "session": partial(_sections, "session"),
    "config": partial(_sections, "config", "runtime", "plugin"),
    "completion": partial(_sections, "completion"),
    "doctor": lambda: table(("it looks at", "and minds"), ((str(what), what.minds) for what in What)),
}
