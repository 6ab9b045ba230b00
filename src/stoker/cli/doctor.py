"""``stoker doctor``."""

from __future__ import annotations

import os
import resource
import sqlite3
import stat
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from stoker.cli.client import connect
from stoker.cli.finding import RunningGateway, read_gateway
from stoker.cli.invocation import program
from stoker.cli.options import AsJson
from stoker.cli.output import ago, print_json
from stoker.cli.pages import print_page
from stoker.cli.pruning import prune_here
from stoker.cli.tables import Table
from stoker.errors import StokerError
from stoker.home import Home

FEW_DESCRIPTORS = 4096


@attrs.frozen
class Finding:
    """One thing that was looked at. ``remedy`` is empty where nothing has to be done."""

    what: str
    said: str
    remedy: str = ""


def doctor(
    *,
    end_strays: Annotated[
        bool, Parameter(negative=(), help="End processes that nobody watches, without asking.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Look for what is wrong: the state folder, the state file, the gateway, limits, GPUs, and stray processes.

    Ends with exit code 1 if anything has to be done.
    """
    home = Home.from_environment(os.environ)
    running = read_gateway(home)
    findings = [_folder(home), _state(home), _gateway(home, running), _descriptors(), _gpus()]
    strays = _strays(home, running)
    if as_json:
        print_json({"findings": [attrs.asdict(each) for each in findings], "strays": strays})
    else:
        _print(findings, strays, running)
    if strays and (end_strays or (not as_json and _agrees(len(strays)))):
        pruned = prune_here()
        if not as_json:
            print(f"ended: {', '.join(map(str, pruned['ended'])) or 'none, they are gone already'}")
        strays = pruned["remaining"]
    return 1 if strays or any(each.remedy for each in findings) else 0


def _print(findings: list[Finding], strays: list[dict[str, Any]], running: RunningGateway | None) -> None:
    rows = [
        ("!" if each.remedy else "ok", each.what, "; ".join(filter(None, (each.said, each.remedy))))
        for each in findings
    ]
    print_page([Table(columns=("", "WHAT", "FOUND"), rows=rows, empty="", prose=True)])
    if not strays:
        print("\nno process is without somebody who watches it")
        return
    whose = "belong to no engine" if running else "belong to engines without a gateway: the next one goes on with them"
    print(f"\nThese processes {whose}:\n")
    told = [(each["pid"], each["engine_id"], ago(each["began_at"]), each["command"]) for each in strays]
    print_page([Table(columns=("PID", "ENGINE", "BEGAN", "COMMAND"), rows=told, empty="", prose=True)])


def _agrees(count: int) -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print(f"\nto end them: {program()} engine prune")
        return False
    return input(f"\nEnd {'it' if count == 1 else f'these {count}'}? [y/N] ").strip().lower() in ("y", "yes")


def _folder(home: Home) -> Finding:
    try:
        about = home.path.stat()
    except FileNotFoundError:
        return Finding("state folder", f"{home.path} is not there yet; the first start makes it")
    except OSError as error:
        return Finding(
            "state folder", f"{home.path} can't be looked at: {error.strerror}", "give STOKER_HOME another one"
        )
    if about.st_uid != os.geteuid():
        return Finding("state folder", f"{home.path} belongs to another user", "give STOKER_HOME another one")
    if about.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return Finding("state folder", f"others can look into {home.path}", f"chmod 700 {home.path}")
    return Finding("state folder", f"{home.path} is its owner's alone")


def _state(home: Home) -> Finding:
    if not home.state.exists():
        return Finding("state file", f"{home.state.name} is not there yet")
    try:
        connection = sqlite3.connect(f"{home.state.as_uri()}?mode=ro", uri=True, timeout=1)
        try:
            [said] = connection.execute("PRAGMA quick_check(1)").fetchone()
        finally:
            connection.close()
    except sqlite3.Error as error:
        said = str(error)
    if said != "ok":
        return Finding("state file", f"{home.state} is damaged: {said}", "the next start sets it aside and begins anew")
    return Finding("state file", f"{home.state.name} is whole")


def _gateway(home: Home, running: RunningGateway | None) -> Finding:
    if running is None:
        return Finding("gateway", "none runs on this folder")
    where = f"{running.url} (pid {running.pid}, version {running.version})"
    try:
        with connect() as client:
            status = client.get("/status")
    except StokerError as error:
        return Finding("gateway", f"{where} does not answer: {error}", f"see {program()} gateway logs")
    left_out = status.get("plugins_left_out") or {}
    if left_out:
        return Finding("gateway", f"{where}; plugins left out: {', '.join(left_out)}", f"see {program()} plugin list")
    return Finding("gateway", f"{where} answers")


def _descriptors() -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = "no limit" if hard == resource.RLIM_INFINITY else f"{hard} at most"
    few = hard != resource.RLIM_INFINITY and hard < FEW_DESCRIPTORS
    return Finding("open files", said, "raise the hard limit (ulimit -Hn): a request takes two" if few else "")


def _gpus() -> Finding:
    from stoker.gpu.nvml import read_gpus

    report = read_gpus(os.environ.get("CUDA_VISIBLE_DEVICES"))
    said = "; ".join(filter(None, (f"{len(report.gpus)} to be had", report.reason)))
    return Finding("GPUs", said, "see what the driver says (nvidia-smi)" if report.incomplete else "")


def _strays(home: Home, running: RunningGateway | None) -> list[dict[str, Any]]:
    if running is not None:
        try:
            with connect() as client:
                return list(client.listing("/strays"))
        except StokerError:
            return []  # told already: it does not answer
    return [attrs.asdict(each) for each in _found(home)]


def _found(home: Home) -> Iterator[Any]:
    from stoker.supervise.leftovers import describe_strays, find_leftovers

    yield from describe_strays(find_leftovers(home.digest))
