"""Tables as values, and how they are made to fit: what is shortened, what is left out, and what never is."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs
from rich.cells import cell_len, set_cell_size
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from stoker.cli.output import cell

GAP = 2
PROSE_WIDTH = 40  # a column of sentences that is narrower than this is no pleasure to read
NARROWEST = 14  # what can be shortened or wrapped keeps so much, as long as there is a column to leave out
STYLES: Mapping[str, str] = MappingProxyType(
    {
        "READY": "green",
        "STARTING": "yellow",
        "DRAINING": "yellow",
        "ERROR": "red",
        "STOPPED": "dim",
        "ok": "green",
        "warn": "yellow",
        "fail": "bold red",
    }
)


class Fit(enum.Enum):
    """What happens to a column's texts where there is not enough room."""

    WHOLE = "whole"  # nothing: somebody copies them
    MIDDLE = "middle"  # their middle is left out: both ends of a model's name tell something
    FOLD = "fold"  # they go on in the next line


@attrs.frozen
class Column:
    """A column of a table. Of those with a number in ``spare`` the lowest is left out first; without, it stays."""

    name: str
    fit: Fit = Fit.FOLD
    spare: int = 0


@attrs.frozen(kw_only=True)
class Table:
    """Rows under their headings, or ``empty`` where there are none. ``prose``: the last column holds sentences."""

    columns: Sequence[Column | str]
    rows: Sequence[Sequence[object]]
    empty: str
    prose: bool = False

    @property
    def heads(self) -> tuple[Column, ...]:
        """The columns, with how they fit."""
        return tuple(Column(each) if isinstance(each, str) else each for each in self.columns)

    @property
    def texts(self) -> list[list[str]]:
        """The rows as they are read."""
        return [[cell(value) for value in row] for row in self.rows]


def shortened(text: str, room: int) -> str:
    """``text`` in ``room`` cells, with … for what its middle has too much."""
    if cell_len(text) <= room:
        return text
    if room < 3:
        return set_cell_size(text, room)
    tail = (room - 1) // 2
    end = text
    while cell_len(end) > tail:
        end = end[1:]
    return set_cell_size(text, room - 1 - cell_len(end)) + "…" + end


def widths(columns: Sequence[Column], natural: Sequence[int], room: int) -> tuple[int, ...]:
    """How wide each column is so that all of them fit into ``room``; 0 for those that are left out."""
    left = dict(enumerate(natural))
    while True:
        floors = {number: _floor(columns[number], width) for number, width in left.items()}
        found = _taken_down(left, floors, room)
        if found is not None:
            break
        spare = [number for number in left if columns[number].spare]
        if not spare:  # even what should stay whole has to give
            floors = {number: min(width, len(columns[number].name)) for number, width in left.items()}
            found = _taken_down(left, floors, room) or floors
            break
        del left[min(spare, key=lambda number: columns[number].spare)]
    return tuple(found.get(number, 0) for number in range(len(columns)))


def _floor(column: Column, width: int) -> int:
    return width if column.fit is Fit.WHOLE else min(width, max(NARROWEST, len(column.name)))


def _taken_down(natural: Mapping[int, int], floors: Mapping[int, int], room: int) -> dict[int, int] | None:
    """The widest is taken down until all fit; None where they can't."""
    found = dict(natural)
    while sum(found.values()) + GAP * (len(found) - 1) > room:
        above = [number for number, width in found.items() if width > floors[number]]
        if not above:
            return None
        found[max(above, key=found.__getitem__)] -= 1
    return found


def fitted(table: Table, room: int) -> list[RenderableType]:
    """What a terminal of ``room`` cells is shown of a table."""
    columns, texts = table.heads, table.texts
    if not texts:
        return [Text(table.empty)]
    filled = [number for number, column in enumerate(columns) if not column.spare or any(row[number] for row in texts)]
    columns = tuple(columns[number] for number in filled)
    texts = [[row[number] for number in filled] for row in texts]
    natural = [max(map(cell_len, [column.name, *cells])) for column, *cells in zip(columns, *texts, strict=True)]
    if not table.prose:
        return [_drawn(columns, texts, widths(columns, natural, room))]
    *others, last = natural
    beside = room - sum(others) - GAP * len(others)
    if beside >= min(last, PROSE_WIDTH):
        return [_drawn(columns, texts, (*others, min(last, beside)))]
    columns = columns[:-1]
    kept = widths(columns, others, room)
    drawn: list[RenderableType] = [_drawn(columns, [], kept)]
    for row in texts:
        drawn.append(_drawn(columns, [row[:-1]], kept, header=False))
        if row[-1]:
            drawn.append(Padding(Text(row[-1]), (0, 0, 0, GAP)))
    return drawn


def _drawn(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], kept: Sequence[int], *, header: bool = True
) -> RichTable:
    drawn = RichTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold", show_header=header)
    shown = [number for number, width in enumerate(kept) if width]
    for number in shown:
        drawn.add_column(Text(columns[number].name), overflow="fold", width=kept[number])
    for row in rows:
        drawn.add_row(*(_styled(row[number], columns[number], kept[number]) for number in shown))
    return drawn


def _styled(text: str, column: Column, width: int) -> Text:
    style = STYLES.get(text, "")
    return Text(text if column.fit is Fit.FOLD else shortened(text, width), style=style)


def plain(table: Table) -> list[str]:
    """What a pipe is given: each row in one line, in full."""
    if not table.rows:
        return [table.empty]
    texts = [[" ".join(text.split()) or "-" for text in row] for row in table.texts]
    lines = [[column.name for column in table.heads], *texts]
    wide = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    return [
        "  ".join(text + " " * (width - cell_len(text)) for text, width in zip(line, wide, strict=True)).rstrip()
        for line in lines
    ]
