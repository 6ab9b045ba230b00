"""How far a start is, read in the engine's log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from stoker.builtin.runtimes import Vllm
from stoker.errors import PluginError
from stoker.model import StartProgress
from stoker.supervise.narrating import LONGEST_PHASE, latest, narrate

SHARDS = "Loading safetensors checkpoint shards:  {}% Completed | 1/5 [00:01<00:02,  1.20it/s]"


@attrs.define
class Scripted:
    """Answers every line the same, or raises it."""

    answer: Any
    name: str = "scripted"
    asked: int = 0

    def start_progress(self, line: str) -> StartProgress | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        found: StartProgress | None = self.answer
        return found


def test_the_last_line_that_tells_something_counts_also_of_a_bar_that_draws_over_itself() -> None:
    bar = "\r".join(SHARDS.format(percent) for percent in (" 0", "20", "40"))
    assert latest(Vllm(), f"begun\n{bar}\nand nothing else\n") == StartProgress("loading weights", 0.4)
    assert latest(Vllm(), "nothing at all") is None


def test_what_a_plugin_gives_is_made_to_fit() -> None:
    assert latest(Scripted(StartProgress("x" * 100, 7)), "a") == StartProgress("x" * LONGEST_PHASE, 1.0)
    assert latest(Scripted(StartProgress("x", 0.123)), "a") == StartProgress("x", 0.12)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (RuntimeError("oh"), "RuntimeError: oh"),
        ("40 %", "which is no StartProgress"),
        (StartProgress("x", float("nan")), "must give a number from 0 to 1"),
    ],
)
def test_a_plugin_that_breaks_is_named(answer: object, words: str) -> None:
    with pytest.raises(PluginError, match="runtime 'scripted' could not read how far an engine is") as caught:
        latest(Scripted(answer), "a")
    assert words in str(caught.value)


async def test_it_is_told_when_it_changes_and_until_the_engine_is_ready(tmp_path: Path) -> None:
    log = tmp_path / "engine-one.log"
    earlier = SHARDS.format("90") + "\n"
    log.write_text(earlier)
    told: list[StartProgress] = []
    ready, heard = trio.Event(), trio.Event()

    def say(progress: StartProgress) -> None:
        told.append(progress)
        heard.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(narrate, Vllm(), log, len(earlier), ready, say, 0.01)
            for percent in ("20", "40"):
                with log.open("a") as file:
                    file.write(SHARDS.format(percent) + "\r")
                await heard.wait()
                heard = trio.Event()
            ready.set()
    assert told == [StartProgress("loading weights", 0.2), StartProgress("loading weights", 0.4)]


async def test_a_plugin_that_breaks_is_not_asked_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = tmp_path / "engine-one.log"
    log.write_text("a line")
    runtime = Scripted(RuntimeError("oh"))
    with trio.fail_after(30):
        await narrate(runtime, log, 0, trio.Event(), lambda _: None)
    assert runtime.asked == 1
    assert "could not read how far an engine is" in caplog.text
