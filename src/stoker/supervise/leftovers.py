"""Processes of an earlier run that nobody goes on with: found by their marker, and ended before new engines start.

A supervisor that was killed leaves its engines running, by design, and the next one adopts them. What it can't adopt
(what is left of an engine whose first process died, or was being stopped) only holds memory and GPUs that others want.
Only processes marked with this very home are touched; the home's lock makes sure that no living supervisor owns them.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from pathlib import Path

import attrs
import trio

from stoker.model import Stray
from stoker.supervise import proctable

GRACE_SECONDS = 5.0
KILL_SECONDS = 10.0
SHOWN_CHARACTERS = 200


@attrs.frozen
class Leftovers:
    """What was found, as pids, and which of them could not be ended."""

    found: tuple[int, ...]
    remaining: tuple[int, ...]


def find_leftovers(home_digest: str, spared: Collection[str] = ()) -> list[proctable.ProcessEntry]:
    """Every process with the marker of this home, but for those ``spared``, and what descends from them. Blocks."""
    if not proctable.HAS_PROC:
        return []
    prefix = f"{home_digest}:"
    return proctable.members(None, lambda mark: mark.startswith(prefix) and mark not in spared)


def find_strays(home_digest: str, spared: Collection[str] = ()) -> tuple[Stray, ...]:
    """What :func:`find_leftovers` finds, for people. Blocks."""
    boot = _boot_time()
    ticks = os.sysconf("SC_CLK_TCK")
    return tuple(
        Stray(
            pid=entry.pid,
            engine_id=_engine_in(proctable.read_mark(entry.pid) or ""),
            began_at=boot + entry.started / ticks,
            command=_command_of(entry.pid),
        )
        for entry in find_leftovers(home_digest, spared)
    )


async def end_leftovers(home_digest: str, spared: Collection[str] = ()) -> Leftovers:
    """End what :func:`find_leftovers` finds: SIGTERM, five seconds, SIGKILL."""
    found: dict[tuple[int, int], proctable.ProcessEntry] = {}

    def scan() -> list[proctable.ProcessEntry]:
        # Whoever was found once is watched to its end: those that showed the way to it may end before it does.
        for entry in find_leftovers(home_digest, spared):
            found[entry.pid, entry.started] = entry
        return proctable.still_there(found.values())

    left = await trio.to_thread.run_sync(scan)
    for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        await trio.to_thread.run_sync(proctable.send, left, number)
        with trio.move_on_after(seconds):
            while left:
                await trio.sleep(0.05)
                left = await trio.to_thread.run_sync(scan)
    return Leftovers(tuple(pid for pid, _ in found), tuple(entry.pid for entry in left))


def _engine_in(mark: str) -> str:
    """The engine that a marker (home, run, engine, incarnation) names; empty for none."""
    parts = mark.split(":")
    return parts[2] if len(parts) == 4 else ""


def _command_of(pid: int) -> str:
    try:
        words = proctable.read_file(pid, "cmdline")
    except OSError:
        return ""
    return words.replace(b"\0", b" ").decode(errors="replace").strip()[:SHOWN_CHARACTERS]


def _boot_time() -> float:
    for line in Path(f"{proctable.PROC}/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
