"""``stoker runtime list|install|remove``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from stoker import environments
from stoker.cli.completing import completing
from stoker.cli.installing import Display
from stoker.cli.options import AsJson, PluginPath, Watch
from stoker.cli.output import size
from stoker.cli.plugins import load_plugins
from stoker.cli.presenting import present
from stoker.cli.tables import Column, Fit, Table
from stoker.environments import EnvironmentState, Installed
from stoker.errors import NotFoundError, StokerError
from stoker.home import Home
from stoker.model import EnvironmentSpec
from stoker.plugins import Registry
from stoker.suggesting import meant

COLUMNS = (
    Column("RUNTIME", Fit.WHOLE),
    Column("ENVIRONMENT", Fit.WHOLE),
    Column("SIZE", Fit.WHOLE, spare=1),
    "WHAT IT NEEDS",
)

Name = Annotated[str, Parameter(help="The runtime, as `runtime list` shows it.", completer=completing("runtimes"))]


def listing(*, plugin_path: PluginPath = (), as_json: AsJson = False, watch: Watch = False) -> None:
    """List the runtimes and their environments."""
    registry = load_plugins(plugin_path)

    def look() -> list[dict[str, Any]]:
        known = {state.name: state for state in environments.listing(_home(), _specs(registry))}
        return [_described(name, known.get(name)) for name in registry.runtimes]

    def page(runtimes: list[dict[str, Any]]) -> list[Table]:
        rows = [(each["name"], each["environment"], _size(each["size_bytes"]), each["summary"]) for each in runtimes]
        return [Table(columns=COLUMNS, rows=rows, empty="there are no runtimes", prose=True)]

    present(look, page, as_json=as_json, watch=watch)


def install(name: Name, /, *, plugin_path: PluginPath = ()) -> None:
    """Install a runtime's environment, or complete one that was interrupted."""
    installed = make_sure(_home(), load_plugins(plugin_path), name)
    print(f"{name} is installed: {installed.python}")


def remove(name: Name, /) -> None:
    """Remove a runtime's environment."""
    home = _home()
    try:
        environments.remove(home, name)
    except NotFoundError as error:
        begun = sorted(each.name for each in home.runtimes.iterdir() if each.is_dir()) if home.runtimes.is_dir() else []
        near = meant(name, begun)
        raise NotFoundError(f"{error}" + (f"; did you mean {near[0]}?" if near else "")) from None
    print(f"{name} is removed")


def make_sure(home: Home, registry: Registry, name: str) -> Installed:
    """The environment of the runtime ``name``, installed first if it is not, with its progress shown.

    Raises NotFoundError for an unknown runtime, EnvironmentFault when it can't be installed.
    """
    spec = registry.runtime(name).environment
    if spec is None:
        raise StokerError(f"runtime {name!r} needs no environment: there is nothing to install")
    if found := environments.find(home, name, spec):
        return found
    with Display(name) as display:
        return environments.install(home, name, spec, display.show)


def _described(name: str, state: EnvironmentState | None) -> dict[str, Any]:
    if state is None:
        return {"name": name, "environment": "not needed", "python": None, "size_bytes": None, "summary": ""}
    return {
        "name": name,
        "environment": state.state.value,
        "python": str(state.python) if state.python else None,
        "size_bytes": state.size_bytes,
        "summary": state.summary,
        "versions": dict(state.versions),
    }


def _specs(registry: Registry) -> Mapping[str, EnvironmentSpec]:
    return {name: each.environment for name, each in registry.runtimes.items() if each.environment is not None}


def _size(count: int | None) -> str:
    return "" if count is None else size(count)


def _home() -> Home:
    return Home.from_environment(os.environ)
