"""What commands print: tables that fit a terminal, plain columns in a pipe, JSON for programs."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

STYLES: Mapping[str, str] = MappingProxyType(
    {"READY": "green", "STARTING": "yellow", "DRAINING": "yellow", "ERROR": "red", "STOPPED": "dim"}
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_json(value: object) -> None:
    """``value`` as JSON, indented."""
    print(json.dumps(value, indent=2, ensure_ascii=False).encode(errors="replace").decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """``rows`` under their headings; ``empty`` where there are none.

    On a terminal columns wrap so that the table fits. In a pipe each row is one line, in full.
    """
    if not rows:
        print(empty)
        return
    texts = [[cell(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _print_fitting(columns, texts)
    else:
        _print_plain(columns, texts)


def _print_fitting(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", min_width=len(column))
    for row in rows:
        table.add_row(*(Text(text, style=STYLES.get(text, "")) for text in row))
    Console().print(table)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [columns, *([" ".join(text.split()) or "-" for text in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())


def print_record(record: Mapping[str, Any]) -> None:
    """One thing, a line for each of its fields that has a value; further lines of a value are indented."""
    width = max(map(len, record), default=0)
    for name, value in record.items():
        if (text := cell(value)) != "":
            print(f"{name.ljust(width)}  " + text.replace("\n", "\n" + " " * (width + 2)))


def cell(value: object) -> str:
    """``value`` for people: nothing for what isn't there, no control characters that would disturb a terminal."""
    match value:
        case None | [] | {} | ():
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(map(cell, value))
        case Mapping():
            return json.dumps(value, ensure_ascii=False)
    return _CONTROL.sub("�", str(value).rstrip())


def ago(seconds_since_epoch: float | None) -> str:
    """How long ago that was, or how long until then, in its largest unit."""
    if seconds_since_epoch is None:
        return ""
    difference = time.time() - seconds_since_epoch
    text = duration(abs(difference))
    return f"{text} ago" if difference >= 0 else f"in {text}"


def duration(seconds: float) -> str:
    """``seconds`` in the largest unit that fits."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: int) -> str:
    """``count`` bytes in GiB or MiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
