"""Engines of an earlier run that nobody watches any more: found by their marker, and ended before new ones start.

A supervisor that was killed leaves its engines running, by design. Until they can be adopted, they only hold memory
and GPUs that the next run wants. Only processes marked with this very home are touched; the home's lock makes sure
that no living supervisor owns them.
"""

from __future__ import annotations

import signal

import attrs
import trio

from stoker.supervise import proctable

GRACE_SECONDS = 5.0
KILL_SECONDS = 10.0


@attrs.frozen
class Leftovers:
    """What was found, as pids, and which of them could not be ended."""

    found: tuple[int, ...]
    remaining: tuple[int, ...]


async def end_leftovers(home_digest: str) -> Leftovers:
    """End every process that carries the marker of this home: SIGTERM, five seconds, SIGKILL."""
    if not proctable.HAS_PROC:
        return Leftovers((), ())
    prefix = f"{home_digest}:"
    found: dict[tuple[int, int], proctable.ProcessEntry] = {}

    def scan() -> list[proctable.ProcessEntry]:
        # Whoever was found once is watched to its end: those that showed the way to it may end before it does.
        for entry in proctable.members(None, lambda mark: mark.startswith(prefix)):
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
