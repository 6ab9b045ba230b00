"""Engine logs. A log is the engine's own stdout and stderr, so that it outlives us; we only append, read and rotate.

Rotation copies and truncates, because the engine keeps writing to the file it was given (opened for appending, so the
next line lands at the new end). What it writes between the copy and the truncation is lost, as with logrotate's
``copytruncate``. Functions without ``async`` block: call them in a thread.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import trio

EXCERPT_LINES = 12
FIRST_CAUSES, LAST_CAUSES = 3, 3  # what follows from an error is often told at more length than the error
LONGEST_LINE = 400  # characters: vLLM prints its whole configuration in one line
READ_BYTES = 256 * 1024
# How vLLM begins its lines: (EngineCore pid=7) ERROR 10-01 12:00:00 [core.py:900]
_PREFIX = re.compile(r"(?:\(\w+ pid=\d+\) ?)?(?:(?P<level>[A-Z]+) \d\S* \S+ \[[^\]]*\] ?)?")
_CAUSE = re.compile(r"\b(?:[A-Z]\w*(?:Error|Exception|Interrupt)|error|fatal|Killed)\b[^\n]*:")
_HARMLESS = frozenset({"DEBUG", "INFO", "WARNING"})
_GRAVE = frozenset({"ERROR", "CRITICAL", "FATAL"})
_HEAD = re.compile(r'  File "[^"]*", line \d+|usage: ')  # of a frame, or of all the flags there are
_NOISE = re.compile(
    r"^Traceback \(most recent call last\):|^/\S+:\d+: \w+Warning: |^  warnings\.warn\("
    r'|"[A-Z]+ \S+ HTTP/[\d.]+" 2\d\d\b'
)
_LETTER = re.compile(r"\w")


def open_for_append(path: Path) -> int:
    """A file descriptor that appends to ``path``, made readable for its owner only. The caller closes it."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def append_line(path: Path, line: str) -> int:
    """Append a line of ours; returns the size of the file after it."""
    descriptor = open_for_append(path)
    try:
        os.write(descriptor, f"{line}\n".encode())
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def rotate(path: Path, max_bytes: int) -> bool:
    """Move a log over ``max_bytes`` to ``….1`` by copying and truncating; says whether it did."""
    try:
        if path.stat().st_size <= max_bytes:
            return False
    except FileNotFoundError:
        return False
    older = path.with_name(f"{path.name}.1")
    older.unlink(missing_ok=True)
    with path.open("rb") as source, os.fdopen(open_for_append(older), "wb") as copy:
        shutil.copyfileobj(source, copy)
    os.truncate(path, 0)
    return True


def tail(path: Path, lines: int | None = None, *, since: int = 0, most: int = READ_BYTES) -> str:
    """The last ``lines`` lines (None: all that is read) of the last ``most`` bytes, from the offset ``since`` on."""
    return _tail_and_end(path, lines, since, most)[0]


def _tail_and_end(path: Path, lines: int | None, since: int = 0, most: int = READ_BYTES) -> tuple[str, int]:
    """A tail, and the offset at which it ends: what is appended meanwhile comes after it."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(since if since <= size else 0, size - most)  # 0: rotated meanwhile
            file.seek(start)
            text = file.read(size - start).decode(errors="replace")
    except FileNotFoundError:
        return "", 0
    return (text if lines is None else "".join(text.splitlines(keepends=True)[-lines:] if lines else ())), size


def excerpt(text: str) -> str:
    """What somebody needs to see of a log to know why its engine ended: the errors in it, then its last lines.

    The true cause is rarely in the last line: vLLM prints it from its core, then a page of tracebacks. So their frames
    are left out, lines that say that a request was served, banners, Python's warnings, and argparse's list of flags.
    """
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    lines = _without_frames(lines) or lines
    end = lines[-EXCERPT_LINES:]
    told = {_message(line) for line in end}
    causes: dict[str, str] = {}
    for line in lines[:-EXCERPT_LINES]:
        if _tells_a_cause(line) and _message(line) not in told:
            causes.setdefault(_message(line), line)
    chosen = list(causes.values())
    if len(chosen) > FIRST_CAUSES + LAST_CAUSES:
        chosen[FIRST_CAUSES:-LAST_CAUSES] = []
    return "\n".join(line[:LONGEST_LINE] for line in chosen + (["…"] if chosen else []) + end)


def _message(line: str) -> str:
    """A line without time and process, which differ where several processes say the same."""
    return _PREFIX.sub("", line, count=1)


def _tells_a_cause(line: str) -> bool:
    prefix = _PREFIX.match(line)
    level = None if prefix is None else prefix["level"]
    return level in _GRAVE or (level not in _HARMLESS and _CAUSE.search(line) is not None)


def _without_frames(lines: Sequence[str]) -> list[str]:
    kept = []
    in_frame = False
    for line in lines:
        message = _message(line)
        in_frame = _HEAD.match(message) is not None or (in_frame and message.startswith("    "))
        if not in_frame and _LETTER.search(message) and not _NOISE.search(message):
            kept.append(line)
    return kept


async def follow(path: Path, lines: int) -> AsyncIterator[bytes]:
    """The last ``lines`` lines, then whatever is appended, for ever; rotation is followed. Cancel it to end it."""
    text, offset = await trio.to_thread.run_sync(_tail_and_end, path, lines)
    if text:
        yield text.encode()
    while True:
        data, offset = await trio.to_thread.run_sync(_read_on, path, offset)
        if data:
            yield data
        else:
            await trio.sleep(0.2)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_on(path: Path, offset: int) -> tuple[bytes, int]:
    size = _size(path)
    if size < offset:
        offset = 0
    if size == offset:
        return b"", offset
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(READ_BYTES)
    return data, offset + len(data)
