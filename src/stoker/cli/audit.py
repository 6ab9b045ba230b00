"""``stoker audit``."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Annotated, Any

import attrs
from cyclopts import Parameter

from stoker.cli.client import connect
from stoker.cli.finding import has_gateway
from stoker.cli.options import AsJson, Watch
from stoker.cli.presenting import present
from stoker.cli.tables import Column, Fit, Table
from stoker.errors import ConfigError, Mistake
from stoker.home import Home
from stoker.store.audit import MOST_ENTRIES, Entry, latest
from stoker.store.looking import look

COLUMNS = (
    Column("WHEN", Fit.WHOLE),
    "WHO",
    Column("FROM", spare=2),
    Column("METHOD", Fit.WHOLE),
    "PATH",
    Column("STATUS", Fit.WHOLE),
    Column("REQUEST", Fit.WHOLE, spare=1),
)


def audit(
    *,
    tail: Annotated[
        int, Parameter(("--tail", "-n"), metavar="ENTRIES", help="How many of the last entries to show (100).")
    ] = 100,
    as_json: AsJson = False,
    watch: Watch = False,
) -> None:
    """Show who changed what through management.

    The latest comes last, and each has the address it came from. Works without a gateway.
    """
    if not 0 <= tail <= MOST_ENTRIES:
        raise ConfigError("--tail", [Mistake("", f"must be from 0 to {MOST_ENTRIES}")])
    home = Home.from_environment(os.environ)

    def find() -> list[dict[str, Any]]:
        if has_gateway(home, os.environ):
            with connect() as client:
                return client.listing(f"/audit?tail={tail}")
        found: tuple[Entry, ...] = look(home.state, "audit", latest(tail), ())
        return [attrs.asdict(entry) for entry in found]

    def page(entries: list[dict[str, Any]]) -> list[Table]:
        rows = [_row(entry) for entry in entries]
        return [Table(columns=COLUMNS, rows=rows, empty="nothing was changed through management yet")]

    present(find, page, as_json=as_json, watch=watch)


def _row(entry: Mapping[str, Any]) -> tuple[object, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["at"]))
    return (when, *(entry[name] for name in ("who", "address", "method", "path", "status", "request_id")))
