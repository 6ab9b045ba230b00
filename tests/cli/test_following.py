"""A log that is followed over restarts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.cli.following import unseen
from tests.e2e.running import until

from .conftest import Call, Shell, fake_engine_toml
from .test_with_a_gateway import states


class Followed:
    """What a command that follows has printed so far."""

    def __init__(self, shell: Shell, *arguments: str) -> None:
        self.process = shell.start("engine", "logs", *arguments, "-f")
        self.out, self.err = "", ""
        self._threads = [threading.Thread(target=self._read, args=(name,)) for name in ("out", "err")]
        for thread in self._threads:
            thread.start()

    def _read(self, name: str) -> None:
        stream = self.process.stdout if name == "out" else self.process.stderr
        assert stream is not None
        while character := stream.read(1):
            setattr(self, name, getattr(self, name) + character)

    def end(self) -> None:
        with self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            for thread in self._threads:
                thread.join()


@contextmanager
def following(shell: Shell, *arguments: str) -> Iterator[Followed]:
    followed = Followed(shell, *arguments)
    try:
        yield followed
    finally:
        followed.end()


@given(st.text(alphabet="ab\n", max_size=30), st.text(alphabet="ab\n", max_size=30), st.integers(0, 30))
def test_what_was_printed_is_not_printed_again(before: str, after: str, kept: int) -> None:
    seen = unseen(before[-kept:] + after if kept else after, before)
    assert after.endswith(seen) or before[-kept:] + after == seen


@pytest.mark.parametrize(
    ("text", "printed", "rest"),
    [
        ("one\ntwo\nthree\n", "one\ntwo\n", "three\n"),
        ("two\nthree\n", "one\ntwo\n", "three\n"),
        ("new\n", "old\n", "new\n"),
    ],
)
def test_the_rest_begins_where_it_was_left(text: str, printed: str, rest: str) -> None:
    assert unseen(text, printed) == rest


def test_it_goes_on_when_the_engine_is_killed_and_when_the_gateway_is_replaced(shell: Shell, here: Call) -> None:
    shell.write('[gateway]\nlisten = "127.0.0.1:0"\n' + fake_engine_toml("m", restart_base_seconds=0.1))
    assert shell.run("gateway", "start").code == 0
    until(lambda: states(here)["m"] == "READY", "it is READY")
    with following(shell, "m") as followed:
        until(lambda: "listening on" in followed.out, "its log is there")
        assert followed.err == "", "what was there at first is no restart"
        os.kill(here("engine", "show", "m", "--json").json["pid"], signal.SIGKILL)
        until(lambda: followed.out.count("listening on") == 2, "so is what it prints after its restart")
        until(lambda: "m is started again (incarnation 2)" in followed.err, "and that it was one")
        assert shell.run("gateway", "restart").code == 0
        until(lambda: "the gateway is back" in followed.err, "so is the gateway")
        until(lambda: states(here)["m"] == "READY", "it is READY")
        os.kill(here("engine", "show", "m", "--json").json["pid"], signal.SIGKILL)
        until(lambda: followed.out.count("listening on") == 3, "and it goes on")
        log = shell.home.engine_log("m").read_text()
        until(lambda: followed.out.endswith(log[-200:]) or followed.out == log, "all of it, and nothing twice")
    assert followed.out.count("--- stoker: m, incarnation") == 3
    assert followed.process.returncode == 130


def test_an_engine_that_is_not_there_is_no_log_to_wait_for(running: Shell) -> None:
    done = running.run("engine", "logs", "nobody", "-f")
    assert done.code == 1
    assert done.err.startswith("stoker: there is no engine 'nobody'")
