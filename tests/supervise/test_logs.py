"""Reading, following and rotating the logs that engines write."""

from __future__ import annotations

import os
from pathlib import Path

import trio

from stoker.supervise import logs

VLLM_BAD_MODEL = "\n".join(
    [
        "(EngineCore pid=7) ERROR 10-01 core.py:900] EngineCore failed to start.",
        "(EngineCore pid=7) ERROR 10-01 core.py:900] OSError: Can't load the configuration of '/nowhere'.",
        *(f'  File "frame{number}.py", line {number}' for number in range(30)),
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]
)


def test_an_excerpt_has_the_root_cause_from_above_and_the_last_line() -> None:
    excerpt = logs.excerpt(VLLM_BAD_MODEL)
    assert "OSError: Can't load the configuration of '/nowhere'." in excerpt
    assert excerpt.endswith("RuntimeError: Engine core initialization failed. See root cause above.")
    assert len(excerpt.splitlines()) < 20


def test_an_excerpt_of_a_short_log_is_the_log() -> None:
    assert logs.excerpt("one\n\ntwo\n") == "one\ntwo"
    assert logs.excerpt("") == ""


def test_a_tail_is_whole_lines_and_may_begin_at_an_incarnation(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\n--- new\nline 1\nline 2 \xff\n")
    assert logs.tail(log, 2) == "line 1\nline 2 \N{REPLACEMENT CHARACTER}\n"
    assert logs.tail(log, since=4).startswith("--- new\n")
    assert logs.tail(log, 0) == ""
    assert logs.tail(tmp_path / "none", 5) == ""


def test_a_tail_of_a_huge_log_reads_only_its_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as file:
        file.truncate(10 * 2**30)  # ten sparse gigabytes
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert logs.tail(log, 1) == "the end\n"


def test_rotation_leaves_the_writer_writing(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    writer = logs.open_for_append(log)
    try:
        os.write(writer, b"x" * 100)
        assert not logs.rotate(log, 100)
        os.write(writer, b"y")
        assert logs.rotate(log, 100)
        os.write(writer, b"after\n")
    finally:
        os.close(writer)
    assert log.read_bytes() == b"after\n"
    assert (tmp_path / "engine.log.1").stat().st_size == 101


async def test_following_goes_on_after_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("one\ntwo\n")
    seen = bytearray()
    with trio.fail_after(10):
        follower = logs.follow(log, 1)
        async for data in follower:
            seen += data
            if seen.endswith(b"two\n"):
                logs.append_line(log, "three")
            elif seen.endswith(b"three\n"):
                logs.rotate(log, 1)
                logs.append_line(log, "four")
            elif seen.endswith(b"four\n"):
                break
        await follower.aclose()  # type: ignore[attr-defined]
    assert bytes(seen) == b"two\nthree\nfour\n"
