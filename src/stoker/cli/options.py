"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from stoker.cli.completing import completing

AsJson = Annotated[bool, Parameter("--json", help="Print JSON, for programs.")]
Watch = Annotated[
    float | bool,  # in this order, or `--watch 1` would be understood as "yes"
    Parameter(
        ("--watch", "-w"),
        negative=(),
        metavar="[SECONDS]",
        help="Go on showing it, every 2 or that many seconds, until Ctrl-C.",
    ),
]
ConfigFile = Annotated[
    Path | None,
    Parameter(("--config", "-c"), metavar="FILE", help="The configuration; without it ./stoker.toml, if there is one."),
]
ListenAt = Annotated[
    str | None, Parameter("--listen", metavar="HOST:PORT", help="Where to listen; port 0 takes any free one.")
]
CertFile = Annotated[
    Path | None,
    Parameter(
        "--certfile", metavar="FILE", help="A certificate in PEM: then the gateway speaks TLS, and nothing else."
    ),
]
KeyFile = Annotated[Path | None, Parameter("--keyfile", metavar="FILE", help="Its key, if it is not in the same file.")]
PluginPath = Annotated[
    tuple[Path, ...],
    Parameter(
        "--plugin-path",
        metavar="PLACE",
        help="Where more plugins are: a folder, a module or a wheel. May be repeated; STOKER_PLUGIN_PATH is the same.",
    ),
]
Strict = Annotated[bool, Parameter("--strict", help="Fail where a plugin is broken, instead of leaving it out.")]
LogFormat = Annotated[
    Literal["text", "json"] | None,
    Parameter("--log-format", metavar="FORMAT", help="How lines of the log look: text (if nothing is said), or json."),
]
EngineId = Annotated[
    str, Parameter(help="The id of the engine, as `engine list` shows it.", completer=completing("engines"))
]
Tail = Annotated[int, Parameter(("--tail", "-n"), metavar="LINES", help="How many of the last lines to show (200).")]
Follow = Annotated[bool, Parameter(("--follow", "-f"), help="Go on with what is added, until Ctrl-C.")]
