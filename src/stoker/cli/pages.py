"""What a command shows, as a value, and how that looks on a terminal, in a pipe and to a program that reads it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from stoker.cli.output import cell
from stoker.cli.tables import GAP, STYLES, Table, fitted, plain
from stoker.cli.terminal import console


@attrs.frozen
class Record:
    """One thing, a line for each of its fields that has a value; further lines of a value are indented."""

    fields: Mapping[str, Any]

    @property
    def texts(self) -> dict[str, str]:
        """Those that have one."""
        return {name: text for name, value in self.fields.items() if (text := cell(value)) != ""}


Page = Sequence[Table | Record | str]


def print_page(page: Page) -> None:
    """Print it to standard output: fitted into a terminal, in full elsewhere."""
    if not sys.stdout.isatty():
        print("\n".join(plain_lines(page)))
        return
    screen = console()
    for drawn in drawable(page, screen.width):
        screen.print(drawn)


def drawable(page: Page, room: int) -> list[RenderableType]:
    """What a terminal of ``room`` cells is shown of a page."""
    drawn: list[RenderableType] = []
    for block in page:
        match block:
            case Table():
                drawn += fitted(block, room)
            case Record():
                drawn.append(_record(block, room))
            case str():
                text = block.lstrip(" ")
                drawn.append(Padding(Text(text, style=STYLES.get(text, "")), (0, 0, 0, len(block) - len(text))))
    return drawn


def _record(record: Record, room: int) -> RichTable:
    texts = record.texts
    wide = max(map(len, record.fields), default=0)
    grid = RichTable.grid(padding=(0, GAP, 0, 0))
    grid.add_column(width=wide)
    grid.add_column(width=max(1, room - wide - GAP), overflow="fold")
    for name, text in texts.items():
        grid.add_row(Text(name, style="bold"), Text(text, style=STYLES.get(text, "")))
    return grid


def plain_lines(page: Page) -> list[str]:
    """What a pipe is given of a page."""
    lines: list[str] = []
    for block in page:
        match block:
            case Table():
                lines += plain(block)
            case Record():
                wide = max(map(len, block.fields), default=0)
                gap = "\n" + " " * (wide + GAP)
                lines += [f"{name.ljust(wide)}  " + text.replace("\n", gap) for name, text in block.texts.items()]
            case str():
                lines.append(block)
    return lines


def json_line(value: object) -> str:
    """``value`` as JSON in one line."""
    return json.dumps(value, ensure_ascii=False).encode(errors="replace").decode()
