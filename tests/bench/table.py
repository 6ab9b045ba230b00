"""The table, in Markdown, and its place in docs/explanation/performance.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .loads import ENGINE, Load, Row
from .machine import BenchError
from .measuring import Results
from .proxies import BASELINE, STOKER

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NOTHING = "-"


def table(loads: Sequence[Load], columns: Sequence[str], results: Results, about: Mapping[str, str]) -> str:
    """What was measured where, and the figures."""
    lines = [f"- {name}: {value}" for name, value in about.items()]
    heads = ["load", "", "bound", *columns, f"{STOKER} / {BASELINE}"]
    if loads:
        lines += ["", _line(heads), _line(["---"] * 3 + ["--:"] * (len(columns) + 1))]
    for load in loads:
        for row in load.rows:
            ratio = results.ratio(load.name, row.key) if row.compared else None
            cells = [_cell(load, row, name, results) for name in columns]
            lines.append(_line([row.label, row.unit, row.bound, *cells, NOTHING if ratio is None else f"{ratio:.2f}"]))
    if results.endurance:
        lines += ["", *_endurance(results.endurance, about)]
    failures = [f"- {load} at {name}: {reason}" for (load, name), reason in results.failures.items()]
    return "\n".join([*lines, *(["", "Wrong answers:", "", *failures] if failures else [])]) + "\n"


def _cell(load: Load, row: Row, name: str, results: Results) -> str:
    if (load.name, name) in results.failures:
        return "wrong"
    if name in load.too_much_for:
        return "too slow"
    if name == ENGINE and row.key == "cpu_us":
        return NOTHING
    value = results.median(load.name, row.key, name)
    return NOTHING if value is None else f"{value:,.{row.digits}f}"


def _endurance(readings: Sequence[int], about: Mapping[str, str]) -> list[str]:
    megabytes = [reading / 2**20 for reading in readings]
    return [
        f"Resident memory of {STOKER} while it relayed {about['chunks of the endurance load']} chunks "
        f"(bound: no growth): {megabytes[0]:.1f} MB when it was warm, then after each tenth "
        + ", ".join(f"{value:.1f}" for value in megabytes[1:])
        + f" MB: {megabytes[-1] - megabytes[0]:+.1f} MB."
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(page: Path, text: str) -> None:
    """Put ``text`` between the markers of ``page``."""
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise BenchError(f"{page} has no lines {BEGIN} and {END} for the table to stand between")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
