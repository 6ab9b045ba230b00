"""Listings that go on showing what there is: on a terminal, in lines, as JSON."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from stoker.cli.tree import COMMANDS, GROUPS, SUBGROUPS, make_app
from tests.e2e.running import until

from .conftest import Call, Shell, interrupt
from .test_with_a_gateway import FAKE, removed_after

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
LISTINGS = [("status",), ("audit",), ("gpu",), ("engine", "show"), ("route", "explain")]
LISTINGS += [(group, "list") for group, (_, names) in GROUPS.items() if "list" in names]
LISTINGS += [
    (outer, inner, "list")
    for outer, groups in SUBGROUPS.items()
    for inner, (_, names) in groups.items()
    if "list" in names
]


@attrs.define
class Terminal:
    """A terminal of 24 rows and 80 columns, and what a command drew on it."""

    process: subprocess.Popen[bytes]
    _end: int
    _drawn: bytes = b""

    @property
    def drawn(self) -> str:
        """All of it, but for the colours."""
        return re.sub(r"\x1b\[[0-9;]*m", "", self._drawn.decode(errors="replace"))

    def read_to_the_end(self) -> None:
        with contextlib.suppress(OSError):  # that is how the end of a terminal looks
            while data := os.read(self._end, 4096):
                self._drawn += data

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)


@contextlib.contextmanager
def terminal(shell: Shell, *arguments: str) -> Iterator[Terminal]:
    """A command on a terminal of its own; it has to have ended when the block does."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = {name: value for name, value in shell.environ({"TERM": "xterm"}).items() if name != "COLUMNS"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stoker", *arguments],
        cwd=shell.folder,
        env=environ,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    screen = Terminal(process, ours)
    reader = threading.Thread(target=screen.read_to_the_end)
    reader.start()
    try:
        yield screen
        process.wait(60)
    finally:
        process.kill()
        process.wait()
        reader.join()
        os.close(ours)


def next_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def test_every_listing_can_be_json_and_watched() -> None:
    for path in LISTINGS:
        command = make_app()
        for word in path:
            command = command[word]
        names = {name for argument in command.assemble_argument_collection() for name in argument.names}
        assert {"--json", "--watch", "-w"} <= names, path
    assert set(COMMANDS) >= {path[0] for path in LISTINGS if len(path) == 1}


def test_a_terminal_shows_changes_at_once_and_is_left_as_it_was(running: Shell, call: Call) -> None:
    """The interval is an hour: what is shown comes from the gateway's events."""
    with removed_after(call, "new"), terminal(running, "engine", "list", "--watch", "3600") as screen:
        until(lambda: "two" in screen.drawn, "the engines are drawn")
        assert screen.drawn.startswith(ENTER)
        assert "every 3600 s" in screen.drawn
        assert call("engine", "start", "new", *FAKE).code == 0
        until(lambda: re.search(r"new +new +command +llm +READY", screen.drawn), "the new one is drawn", 20)
        before = len(screen.drawn)
        screen.resize(10, 40)
        until(lambda: "ENGINE" in screen.drawn[before:], "it is drawn again")
        assert "RUNTIME" not in screen.drawn[before:]
        screen.process.send_signal(signal.SIGINT)
        until(lambda: screen.process.poll() is not None, "it ends")
        assert screen.process.returncode == 0
    assert LEAVE in screen.drawn
    assert "Traceback" not in screen.drawn
    assert "\x1b[?25h" in screen.drawn.partition(ENTER)[2], "the cursor is there again"


def test_json_is_a_document_a_line_whenever_something_changed(running: Shell, call: Call) -> None:
    with removed_after(call, "new"):
        process = running.start("engine", "list", "--json", "--watch", "3600")
        assert [info["engine_id"] for info in json.loads(next_line(process))] == ["one", "two"]
        assert call("engine", "start", "new", "--no-wait", *FAKE).code == 0
        seen: list[Any] = []
        while not seen or seen[-1] != "READY":
            [state] = [info["state"] for info in json.loads(next_line(process)) if info["engine_id"] == "new"] or [None]
            seen.append(state)
        assert seen[0] == "STARTING" or seen == ["READY"]
        result = interrupt(process)
        assert (result.code, result.err) == (0, "")


def test_in_a_pipe_there_are_whole_pages_and_only_where_they_differ(shell: Shell, here: Call) -> None:
    process = shell.start("key", "list", "--watch", "0.1")
    assert next_line(process).startswith("there are no keys")
    key_id = here("key", "create", "--name", "watched", "--json").json["key_id"]
    assert next_line(process) == "\n"
    assert next_line(process).startswith("ID ")
    assert key_id in next_line(process)
    assert here("key", "revoke", key_id).code == 0
    assert (next_line(process), next_line(process)[:3]) == ("\n", "ID ")
    assert "revoked" in next_line(process)
    assert interrupt(process).code == 0


def test_what_was_there_last_stays_while_the_gateway_is_gone(shell: Shell) -> None:
    shell.write('[gateway]\nlisten = "127.0.0.1:0"\n')
    assert shell.run("gateway", "start").code == 0
    with terminal(shell, "status", "--watch", "0.2") as screen:
        until(lambda: "least-load" in screen.drawn, "it is drawn")
        assert shell.run("gateway", "stop", "--now").code == 0
        until(lambda: "no gateway" in screen.drawn, "that it is gone is drawn")
        before = len(screen.drawn)
        assert shell.run("gateway", "start").code == 0
        until(lambda: re.search(r"up \d s", screen.drawn[before:]), "the new one is drawn", 20)
        screen.process.send_signal(signal.SIGTERM)
        assert screen.process.wait(60) == 0


def test_who_watches_nothing_is_told_so(shell: Shell) -> None:
    nobody = shell.run("engine", "list", "--watch", STOKER_URL="http://127.0.0.1:1")
    assert nobody.code == 3
    assert shell.run("key", "list", "--watch", "0").code == 2


def test_a_reader_that_leaves_ends_it(running: Shell) -> None:
    process = running.start("status", "--watch", "0.1")
    assert next_line(process).startswith("gateway ")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process:
        assert process.wait(60) == 141
        assert process.stderr.read() == ""


@pytest.mark.parametrize("arguments", [["plugin", "list"], ["runtime", "list"]], ids=" ".join)
def test_what_plugins_bring_is_watched_too(arguments: list[str], shell: Shell) -> None:
    process = shell.start(*arguments, "--watch", "0.1", "--json")
    assert json.loads(next_line(process))
    result = interrupt(process)
    assert (result.code, result.err) == (0, "")


def test_the_line_that_stoker_wrote_into_its_log_is_not_what_an_engine_does(running: Shell, call: Call) -> None:
    """ "starting slow (0 s) --- stoker: slow, incarnation 3: /…" stood there until the engine printed something."""
    with removed_after(call, "slow"):
        silent = ["--", "sh", "-c", "sleep 600", "sh", "{port}"]
        with terminal(running, "engine", "start", "slow", "--runtime", "command", *silent) as screen:
            until(lambda: "starting slow (1 s)" in screen.drawn, "a second has passed")
            screen.process.send_signal(signal.SIGINT)
        assert "--- stoker" not in screen.drawn
