"""A line for each request that is over, in the log or in a file of its own; and how lines look."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from stoker.access_log import open_access_log
from stoker.errors import StokerError
from stoker.log_formats import FIELDS, JsonFormatter, TextFormatter
from stoker.observing import Observers
from stoker.testing.records import request_record

RECORD = request_record(
    duration_seconds=0.34567891,
    waited_seconds=0.0,
    first_byte_seconds=0.0123456,
    trace_id="ab" * 16,
    caller="key k1",
)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_of_json_says_who_asked_for_what_and_how_it_went(tmp_path: Path) -> None:
    with open_access_log(str(tmp_path / "access.log"), "json") as log:
        log(record=RECORD)
    [line] = lines_of(tmp_path / "access.log")
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "INFO",
        "logger": "stoker.access",
        "message": "request",
        "path": "/v1/chat/completions",
        "status": 200,
        "model": "qwen",
        "engine": "qwen-1",
        "caller": "key k1",
        "stream": True,
        "prompt_tokens": 7,
        "completion_tokens": 3,
        "waited_seconds": 0.0,
        "first_byte_seconds": 0.012346,
        "duration_seconds": 0.345679,
        "received_bytes": 10,
        "sent_bytes": 20,
        "attempts": 1,
        "request_id": "r-1",
        "trace_id": "ab" * 16,
    }


def test_a_line_of_text_is_words_with_names(tmp_path: Path) -> None:
    odd = 'a "b"\nstatus=500 \u2028'
    with open_access_log(str(tmp_path / "access.log"), "text") as log:
        log(record=attrs.evolve(RECORD, asked=odd, engine_id="", prompt_tokens=None, error="it failed"))
    [line] = (tmp_path / "access.log").read_text().splitlines()
    assert "INFO stoker.access: request path=/v1/chat/completions status=200" in line
    assert f" model={json.dumps(odd)} caller=" in line
    assert ' caller="key k1" ' in line
    assert "engine=" not in line
    assert "prompt_tokens" not in line
    assert line.endswith(' error="it failed"')


def test_a_file_that_is_moved_aside_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    with open_access_log(str(path), "json") as log:
        log(record=RECORD)
        path.rename(tmp_path / "access.log.1")
        log(record=RECORD)
    assert len(lines_of(path)) == len(lines_of(tmp_path / "access.log.1")) == 1


def test_a_file_that_can_not_be_opened_is_said_before_anything_is_served(tmp_path: Path) -> None:
    access_log = open_access_log(str(tmp_path / "nowhere" / "access.log"), "text")
    with pytest.raises(StokerError, match="access_log in \\[gateway\\]"), access_log:
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
async def test_a_full_disk_is_told_once_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with open_access_log("/dev/full", "text") as log:
        observers = Observers(requests=[log])
        async with observers.told(20):
            for _ in range(3):
                observers.request_finished(RECORD)
    assert observers.listeners[0].failures == 3
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 1


def test_without_a_file_it_is_part_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stoker")
    with open_access_log("-", "text") as log:
        log(record=RECORD)
    [line] = caplog.records
    assert (line.name, line.__dict__[FIELDS]["engine"]) == ("stoker.access", "qwen-1")


# Other lines


def said(**more: Any) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "stoker.x", "levelname": "INFO", "msg": "%s READY", "args": ("m-1",), "created": 0.25, **more}
    )


def test_json_has_what_a_line_was_given_besides_and_the_traceback() -> None:
    try:
        int("no such luck")
    except ValueError:
        failed = said(exc_info=sys.exc_info(), engine="m-1", time="theirs", odd={1})
    line = json.loads(JsonFormatter().format(failed))
    exception = line.pop("exception")
    assert line == {
        "time": "1970-01-01T00:00:00.250Z",
        "level": "INFO",
        "logger": "stoker.x",
        "message": "m-1 READY",
        "engine": "m-1",
        "odd": "{1}",
    }
    assert "ValueError: " in exception


@pytest.mark.parametrize("message", ["two\nlines", "\u2028", "\udcff", '"'])
def test_json_is_one_line_whatever_is_said(message: str) -> None:
    line = JsonFormatter().format(said(msg=message, args=()))
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert json.loads(line)["message"] == message


def test_text_is_as_it_was() -> None:
    assert TextFormatter().format(said()).endswith(" INFO stoker.x: m-1 READY")
