"""``stoker doctor``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from stoker import accelerators
from stoker.cli.checks import LOW_CACHE_BYTES, Finding, Verdict, What, fleet, machine
from stoker.cli.checks import home as folder
from stoker.cli.client import connect_to
from stoker.cli.configured import DEFAULT_FILE
from stoker.cli.consent import agrees, can_ask
from stoker.cli.finding import RunningGateway, read_gateway
from stoker.cli.invocation import program
from stoker.cli.options import AsJson, ConfigFile, PluginPath
from stoker.cli.orphans import strays_table
from stoker.cli.output import print_json
from stoker.cli.pages import Page, print_page
from stoker.cli.plugins import load_plugins
from stoker.cli.pruning import prune_by, prune_in
from stoker.cli.tables import Column, Fit, Table
from stoker.errors import StokerError
from stoker.home import Home

DRIVER_SECONDS = 10.0
COLUMNS = (Column("", Fit.WHOLE), Column("WHAT", Fit.WHOLE), "FOUND")


def doctor(
    *,
    config: ConfigFile = None,
    plugin_path: PluginPath = (),
    end_strays: Annotated[
        bool, Parameter(negative=(), help="End processes that nobody watches, without asking.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Look for what is wrong here, and for processes that nobody watches.

    Of each thing it says `ok`, `warn` or `fail`, and what to do unless it is `ok`. It changes nothing, works
    without a gateway, and offers to end processes that nobody watches. The exit code is 1 where anything failed,
    or where there are such processes; warnings leave it at 0.
    """
    home = Home.from_environment(os.environ)
    running = read_gateway(home)
    findings = list(examine(home, running, config, plugin_path))
    answers = not any((each.what, each.verdict) == (What.GATEWAY, Verdict.FAIL) for each in findings)
    strays = _strays(home, running) if answers else []
    if as_json:
        print_json({"findings": [attrs.asdict(each) for each in findings], "strays": strays})
    else:
        print_page(_page(findings, strays, running))
    if strays and (end_strays or (not as_json and _agrees(len(strays)))):
        pruned = prune_in(home) if running is None else prune_by(connect_to(home, running), keep_ended=True)
        if not as_json:
            print(f"ended: {', '.join(map(str, pruned['ended'])) or 'none, they are gone already'}")
        strays = pruned["remaining"]
    return 1 if strays or any(each.verdict is Verdict.FAIL for each in findings) else 0


def examine(
    home: Home, running: RunningGateway | None, named: Path | None, plugin_path: tuple[Path, ...]
) -> Iterator[Finding]:
    """Everything there is to look at, one after the other."""
    yield machine.python()
    native = accelerators.load(os.environ, warn=lambda _: None)  # it has a line of its own here
    missing = [each.name for each in attrs.fields(type(native)) if getattr(native, each.name) is None]
    yield machine.native(missing, os.environ.get("STOKER_PURE_PYTHON", ""))
    yield machine.descriptors()
    yield machine.clock(folder.written(home, Path(__file__)))
    yield folder.folder(home)
    yield folder.token(home)
    yield folder.state(home)
    yield machine.disk(What.DISK, home.path, "make room there, or set STOKER_HOME to a larger disk")
    yield machine.disk(
        What.MODELS,
        machine.model_cache(os.environ),
        "make room, or set HF_HOME to a larger disk: a model of 7 billion parameters takes 15 GB",
        full=0,
        low=LOW_CACHE_BYTES,
    )
    registry = load_plugins(plugin_path)
    yield fleet.plugins(registry)
    path = _config_of(named, running)
    found, settings = fleet.configuration(path, registry)
    yield found
    if settings is not None:
        yield fleet.address(settings, running, configured=path is not None)
        yield from fleet.runtimes(home, settings, registry)
    found, report = fleet.gateway(home, running)
    yield found
    report = report if report is not None else _read_gpus()
    yield machine.gpus(report, machine.plugged_in())
    if (found_there := machine.strangers(report)) is not None:
        yield found_there


def _config_of(named: Path | None, running: RunningGateway | None) -> Path | None:
    """The one that was named, else the gateway's, else that of this folder."""
    if named is not None:
        return named.absolute()
    if running is not None:
        return None if running.config is None else Path(running.config)
    return Path(DEFAULT_FILE).absolute() if Path(DEFAULT_FILE).exists() else None


def _read_gpus() -> dict[str, Any] | None:
    """What the driver says; None where it takes too long, as one that hangs does."""
    import cattrs

    from stoker.gpu.nvml import read_gpus

    reports: list[dict[str, Any]] = []

    def read() -> None:
        reports.append(cattrs.unstructure(read_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))))

    reading = threading.Thread(target=read, daemon=True)  # nothing can end it where the driver hangs, but our own end
    reading.start()
    reading.join(DRIVER_SECONDS)
    return reports[0] if reports else None


def _page(findings: list[Finding], strays: list[dict[str, Any]], running: RunningGateway | None) -> Page:
    rows = [(each.verdict, each.what, "; ".join(filter(None, (each.said, each.remedy)))) for each in findings]
    found = Table(columns=COLUMNS, rows=rows, empty="", prose=True)
    if not strays:
        return [found, "", "no process is without somebody who watches it"]
    whose = "belong to no engine" if running else "belong to engines without a gateway: the next one goes on with them"
    return [found, "", f"These processes {whose}:", "", strays_table(strays)]


def _agrees(count: int) -> bool:
    if not (can_ask() and sys.stdout.isatty()):  # what it would be asked about went elsewhere
        print(f"\nto end them: {program()} engine prune")
        return False
    return agrees(f"\nEnd {'it' if count == 1 else f'these {count}'}?")


def _strays(home: Home, running: RunningGateway | None) -> list[dict[str, Any]]:
    if running is not None:
        try:
            with connect_to(home, running) as client:
                return list(client.listing("/strays"))
        except StokerError:
            return []  # told already: it does not answer
    from stoker.supervise.leftovers import find_strays

    return [attrs.asdict(each) for each in find_strays(home.digest)]
