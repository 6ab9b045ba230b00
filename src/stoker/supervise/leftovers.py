"""Processes of an earlier run that nobody goes on with: found by their marker, and ended before new engines start.

A supervisor that was killed leaves its engines running, by design, and the next one adopts them. What it can't adopt
(what is left of an engine whose first process died, or was being stopped) only holds memory and GPUs that others want.
Only processes marked with this very home are touched; the home's lock makes sure that no living supervisor owns them.
"""

from __future__ import annotations

import signal
from collections.abc import Collection

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


async def end_leftovers(home_digest: str, spared: Collection[str] = ()) -> Leftovers:
    """End every process with the marker of this home, but for those ``spared``: SIGTERM, five seconds, SIGKILL."""
    if not proctable.HAS_PROC:
        return Leftovers((), ())
    prefix = f"{home_digest}:"
    found: dict[tuple[int, int], proctable.ProcessEntry] = {}

    def scan() -> list[proctable.ProcessEntry]:
        # Whoever was found once is watched to its end: those that showed the way to it may end before it does.
        for entry in proctable.members(None, lambda mark: mark.startswith(prefix) and mark not in spared):
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
