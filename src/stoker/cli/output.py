"""What commands print: tables that fit a terminal, plain columns in a pipe, JSON for programs."""

from __future__ import annotations

import itertools
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

STYLES: Mapping[str, str] = MappingProxyType(
    {"READY": "green", "STARTING": "yellow", "DRAINING": "yellow", "ERROR": "red", "STOPPED": "dim"}
)
GAP = 2
PROSE_WIDTH = 40  # a column of sentences that is narrower than this is no pleasure to read
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_json(value: object) -> None:
    """``value`` as JSON, indented."""
    print(json.dumps(value, indent=2, ensure_ascii=False).encode(errors="replace").decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str, prose: bool = False) -> None:
    """``rows`` under their headings; ``empty`` where there are none.

    On a terminal columns wrap so that the table fits. ``prose`` says that the last column holds sentences: where too
    little room is left for it, each of its cells stands below its row. In a pipe each row is one line, in full.
    """
    if not rows:
        print(empty)
        return
    texts = [[cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        _print_plain(columns, texts)
    elif prose:
        _print_with_prose(Console(), columns, texts)
    else:
        Console().print(_fitting(columns, texts))


def _print_with_prose(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    *widths, last = (max(map(cell_len, column)) for column in zip(columns, *rows, strict=True))
    if console.width - sum(widths) - GAP * len(widths) >= min(last, PROSE_WIDTH):
        console.print(_fitting(columns, rows))
        return
    widths = _narrowed(widths, columns, console.width - GAP * (len(widths) - 1))
    console.print(_fitting(columns[:-1], [], widths))
    for row in rows:
        console.print(_fitting(columns[:-1], [row[:-1]], widths, header=False))
        if row[-1]:
            console.print(Padding(Text(row[-1]), (0, 0, 0, GAP)))


def _narrowed(widths: Sequence[int], columns: Sequence[str], room: int) -> list[int]:
    """``widths``, with the widest taken down until all fit into ``room``; none gets narrower than its heading."""
    narrowed = list(widths)
    while sum(narrowed) > room:
        spare = [number for number, width in enumerate(narrowed) if width > len(columns[number])]
        if not spare:
            break
        narrowed[max(spare, key=narrowed.__getitem__)] -= 1
    return narrowed


def _fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int] = (), *, header: bool = True
) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=header)
    for column, width in itertools.zip_longest(columns, widths):
        table.add_column(column, overflow="fold", width=width, min_width=len(column))
    for row in rows:
        table.add_row(*(Text(text, style=STYLES.get(text, "")) for text in row))
    return table


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


def load(told: Mapping[str, Any] | None) -> str:
    """What an engine says of its load, in words."""
    if told is None:
        return ""
    words = f"{told['running']:g} running, {told['waiting']:g} waiting"
    cache = told["kv_cache_used"]
    return words if cache is None else f"{words}, {cache:.0%} of the KV cache"


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
