"""What commands print, and what they say while they wait."""

from __future__ import annotations

import re
import sys
import time

import pytest

from stoker.cli.activity import Activity
from stoker.cli.installing import Display
from stoker.cli.output import ago, cell, duration, print_json, size
from stoker.cli.pages import Record, print_page
from stoker.cli.tables import Table
from stoker.environments import Progress


def test_a_table_in_a_pipe_has_whole_rows_in_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    print_page([Table(columns=("A", "BEE"), rows=[("1", long), ("two\nlines", None)], empty="nothing")])
    assert capsys.readouterr().out == f"A          BEE\n1          {long}\ntwo lines  -\n"


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_sentences_stand_below_their_row_where_a_terminal_has_no_room_beside_it(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    sentence = " ".join(["words"] * 12)
    rows = [("a" * 20, "b" * 30, "READY", ""), ("c", "d", "ERROR", sentence)]
    print_page([Table(columns=("ENGINE", "MODEL", "STATE", "DETAIL"), rows=rows, empty="nothing", prose=True)])
    shown = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    lines = [line.rstrip() for line in shown.splitlines()]
    assert max(map(len, lines)) <= columns
    assert " ".join(" ".join(lines).split()).endswith(sentence)
    assert ("DETAIL" in lines[0]) == (columns == 200)
    assert any(re.fullmatch(r"c +d +ERROR" + (f"  {sentence}" if columns == 200 else ""), line) for line in lines)


def test_no_rows_are_said_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    print_page([Table(columns=("A",), rows=[], empty="there are no engines")])
    assert capsys.readouterr().out == "there are no engines\n"


def test_a_record_leaves_out_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    print_page([Record({"a": 1, "long": "x\ny", "none": None, "empty": [], "off": False})])
    assert capsys.readouterr().out == "a      1\nlong   x\n       y\noff    no\n"


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    assert cell("\x1b[31mred\x07 \x9b1m") == "�[31mred� �1m"
    assert cell("[bold]no markup[/]") == "[bold]no markup[/]"


def test_json_is_printed_whatever_the_text_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": "ü\ud800"})
    assert capsys.readouterr().out == '{\n  "a": "ü?"\n}\n'


def test_times_and_sizes_are_for_people() -> None:
    assert [duration(seconds) for seconds in (0.2, 59, 61, 7200, 200_000)] == ["0 s", "59 s", "1 min", "2 h", "2 d"]
    assert ago(None) == ""
    assert ago(time.time() - 3600) == "1 h ago"
    assert ago(time.time() + 7201) == "in 2 h"
    assert [size(count) for count in (2**20, 3 * 2**30)] == ["1 MiB", "3.0 GiB"]


def test_waiting_off_a_terminal_says_each_thing_once_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with Activity("waiting [for] it") as activity:
        activity.say("one [bold]")
        activity.say("one [bold]")
        activity.update("detail")
        activity.say("two")
    assert capsys.readouterr() == ("", "one [bold]\ntwo\n")


def test_waiting_on_a_terminal_shows_it_and_cleans_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Activity("waiting [for] it") as activity:
        activity.update("[de/tail]")
        activity.say("one [bold]")
    shown = capsys.readouterr().err
    assert "waiting [for] it" in shown
    assert "one [bold]" in shown


def test_an_installation_says_each_step_once(capsys: pytest.CaptureFixture[str]) -> None:
    with Display("embedded") as display:
        display.show(Progress("download", "downloading a", 0.1))
        display.show(Progress("download", "downloading b", 0.9))
        display.show(Progress("check", "checking [it]"))
    assert capsys.readouterr() == ("", "embedded: downloading a\nembedded: checking [it]\n")


def test_an_installation_has_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with Display("embedded") as display:
        display.show(Progress("download", "downloading [a]", 0.5))
        display.show(Progress("check", "checking", None))
    assert "embedded: " in capsys.readouterr().err
