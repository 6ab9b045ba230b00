"""Reads in an engine's log how far its start is, as its runtime understands it."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from pathlib import Path

import attrs
import trio

from stoker.containing import contained, described, is_text
from stoker.contracts import Narrating
from stoker.errors import PluginError
from stoker.model import StartProgress
from stoker.supervise import logs

EVERY_SECONDS = 1.0
MOST_BYTES = 16 * 1024  # of the end of the log
MOST_LINES = 200
LONGEST_PHASE = 60
_END = re.compile(r"[\r\n]+")  # a bar draws over itself

log = logging.getLogger(__name__)


async def narrate(
    runtime: Narrating,
    path: Path,
    since: int,
    ready: trio.Event,
    say: Callable[[StartProgress], None],
    every_seconds: float = EVERY_SECONDS,
) -> None:
    """``say`` how far it is whenever that is another, until it is ``ready``. A runtime that breaks isn't asked again.

    ``since`` is where the log of this start begins.
    """
    last: StartProgress | None = None
    while not ready.is_set():
        try:
            progress = await trio.to_thread.run_sync(_read, runtime, path, since)
        except PluginError as error:
            log.warning("%s", error)
            return
        except OSError as error:
            log.debug("%s can't be read: %s", path, error)
            progress = None
        if progress is not None and progress != last and not ready.is_set():
            if last is None or progress.phase != last.phase:
                log.info("%s: %s", path.stem.removeprefix("engine-"), progress.phase)
            last = progress
            say(progress)
        with trio.move_on_after(every_seconds):
            await ready.wait()


def _read(runtime: Narrating, path: Path, since: int) -> StartProgress | None:
    return latest(runtime, logs.tail(path, since=since, most=MOST_BYTES))


def latest(runtime: Narrating, text: str) -> StartProgress | None:
    """What the last line that tells something tells, with whole percents. Raises PluginError that names the runtime."""
    name = getattr(runtime, "name", type(runtime).__name__)
    with contained(f"runtime {name!r} could not read how far an engine is"):
        for line in reversed(_END.split(text)[-MOST_LINES:]):
            progress = runtime.start_progress(line)
            if progress is not None:
                return _checked(progress)
    return None


def _checked(progress: object) -> StartProgress:
    if not isinstance(progress, StartProgress) or not is_text(progress.phase):
        raise TypeError(f"it gave {described(progress)}, which is no StartProgress")
    fraction = progress.fraction
    if fraction is not None and not (isinstance(fraction, int | float) and math.isfinite(fraction)):
        raise TypeError(f"it gave the fraction {described(fraction)}, and must give a number from 0 to 1, or None")
    whole = None if fraction is None else round(min(max(float(fraction), 0.0), 1.0), 2)
    return attrs.evolve(progress, phase=progress.phase[:LONGEST_PHASE], fraction=whole)
