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
from stoker.cli.options import AsJson
from stoker.cli.output import print_json, print_table
from stoker.errors import ConfigError, Mistake
from stoker.home import Home
from stoker.store.audit import MOST_ENTRIES, Entry, latest
from stoker.store.looking import look

COLUMNS = ("WHEN", "WHO", "FROM", "METHOD", "PATH", "STATUS", "REQUEST")


def audit(
    *,
    tail: Annotated[int, Parameter(("--tail", "-n"), help="How many of the last entries to show (100).")] = 100,
    as_json: AsJson = False,
) -> None:
    """Show who changed what through management, the latest last. Works without a gateway."""
    if not 0 <= tail <= MOST_ENTRIES:
        raise ConfigError("--tail", [Mistake("", f"must be from 0 to {MOST_ENTRIES}")])
    home = Home.from_environment(os.environ)
    if has_gateway(home, os.environ):
        with connect() as client:
            entries = client.listing(f"/audit?tail={tail}")
    else:
        found: tuple[Entry, ...] = look(home.state, "audit", latest(tail), ())
        entries = [attrs.asdict(entry) for entry in found]
    if as_json:
        print_json(entries)
        return
    print_table(COLUMNS, [_row(entry) for entry in entries], empty="nothing was changed through management yet")


def _row(entry: Mapping[str, Any]) -> tuple[object, ...]:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["at"]))
    return (when, *(entry[name] for name in ("who", "address", "method", "path", "status", "request_id")))
