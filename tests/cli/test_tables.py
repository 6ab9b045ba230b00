"""How tables are made to fit a terminal."""

from __future__ import annotations

import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from stoker.cli.pages import Page, Record, print_page
from stoker.cli.tables import GAP, Column, Fit, Table, shortened, widths
from stoker.cli.terminal import console

ENGINES = (
    Column("ENGINE", Fit.WHOLE),
    Column("MODEL", Fit.MIDDLE, spare=3),
    Column("KIND", Fit.WHOLE, spare=1),
    Column("STATE", Fit.WHOLE),
    Column("SINCE", Fit.WHOLE, spare=2),
)
ROWS = [
    ("qwen-2", "Qwen/Qwen2.5-0.5B-Instruct-with-a-long-suffix", "llm", "READY", "2 min"),
    ("embedder", "m", "embedding", "ERROR", ""),
]
SHOWN = {
    90: "ENGINE MODEL KIND STATE SINCE",
    60: "ENGINE MODEL KIND STATE SINCE",
    45: "ENGINE MODEL STATE SINCE",
    32: "ENGINE MODEL STATE",
    20: "ENGINE STATE",
}


def be_a_terminal(monkeypatch: pytest.MonkeyPatch, columns: int = 90) -> None:
    """Standard output is one, as far as commands can see."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.delenv("NO_COLOR", raising=False)


def without_codes(text: str) -> list[str]:
    return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()]


@pytest.mark.parametrize("room", SHOWN)
def test_long_names_are_shortened_then_columns_left_out_and_ids_stay_whole(
    room: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_a_terminal(monkeypatch, room)
    print_page([Table(columns=ENGINES, rows=ROWS, empty="none")])
    head, *rows = without_codes(capsys.readouterr().out)
    assert head.split() == SHOWN[room].split()
    assert ("Qwen/Qwen2.5-0.5B-Instruct-with-a-long-suffix" in rows[0]) == (room == 90)
    assert max(map(len, [head, *rows])) <= room
    assert [row.split()[0] for row in rows] == ["qwen-2", "embedder"]


def test_a_column_without_a_single_value_takes_no_room(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    be_a_terminal(monkeypatch)
    print_page([Table(columns=ENGINES, rows=[("one", "", "", "READY", "")], empty="none")])
    assert without_codes(capsys.readouterr().out) == ["ENGINE  STATE", "one     READY"]


@given(st.text(), st.integers(0, 40))
def test_what_is_shortened_fits_and_keeps_both_ends(text: str, room: int) -> None:
    done = shortened(text, room)
    assert cell_len(done) <= room
    if cell_len(text) <= room:
        assert done == text


def test_both_ends_of_a_name_stay() -> None:
    assert shortened("Qwen/Qwen2.5-0.5B-Instruct", 13) == "Qwen/Q…struct"


@given(
    st.lists(
        st.tuples(st.sampled_from(Fit), st.integers(0, 9), st.integers(1, 80)).map(
            lambda drawn: (Column("A", drawn[0], drawn[1]), drawn[2])
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 200),
)
def test_whatever_the_columns_are_they_fit_or_nothing_is_left_to_give(
    drawn: list[tuple[Column, int]], room: int
) -> None:
    columns, natural = [column for column, _ in drawn], [width for _, width in drawn]
    kept = widths(columns, natural, room)
    shown = [width for width in kept if width]
    assert all(width <= most for width, most in zip(kept, natural, strict=True))
    assert all(width for width, column in zip(kept, columns, strict=True) if not column.spare)
    fits = sum(shown) + GAP * (len(shown) - 1) <= room
    assert fits or all(width in (0, 1) for width in kept)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_who_asks_for_plain_text_gets_no_code_at_all(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page: Page = [Table(columns=ENGINES, rows=ROWS, empty="none"), Record({"state": "READY"})]
    be_a_terminal(monkeypatch)
    monkeypatch.setenv("FORCE_COLOR", "1")
    print_page(page)
    assert "\x1b[32mREADY" in capsys.readouterr().out
    monkeypatch.setenv(name, value)
    print_page(page)
    assert "\x1b" not in capsys.readouterr().out
    assert console(stderr=True).color_system is None


def test_an_indented_sentence_goes_on_below_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second line of what went wrong lately began at the margin."""
    be_a_terminal(monkeypatch)
    monkeypatch.setenv("COLUMNS", "40")
    print_page(["lately", "  smollm2 was restarted once: the runtime is not installed"])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["lately", "  smollm2 was restarted once: the", "  runtime is not installed"]
