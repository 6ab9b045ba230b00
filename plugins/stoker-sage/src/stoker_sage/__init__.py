"""The commands of the SAGE gateway on Stoker: ``sage gateway …`` and ``sage llm …``, also as ``stoker sage …``."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App

from stoker.hookspecs import hookimpl


@hookimpl
def stoker_register_commands(cli: App) -> Sequence[App]:
    """``sage``: every command of it is one of Stoker's, by its other name."""
    from stoker_sage.commands import make_app

    return [make_app(cli)]
