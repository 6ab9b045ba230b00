"""Finds, lists and removes environments."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path

from stoker.environments import lock
from stoker.environments.place import Place, family, standing
from stoker.environments.records import EnvironmentState, Installed, Progress, State
from stoker.errors import EnvironmentFault, NotFoundError
from stoker.home import Home
from stoker.model import EnvironmentSpec

PROCESSES = Path("/proc")


def find(home: Home, name: str, spec: EnvironmentSpec) -> Installed | None:
    """The complete environment of runtime ``name`` for exactly ``spec``, the newest of several.

    Reads a small file or two and starts nothing, but may touch the disk.
    """
    return _newest(home, name, spec)


def _newest(home: Home, name: str, spec: EnvironmentSpec | None) -> Installed | None:
    complete = [there for place in standing(home, name) if (there := place.complete(spec))]
    return max(complete, key=lambda one: one.installed_at, default=None)


def listing(home: Home, specs: Mapping[str, EnvironmentSpec]) -> tuple[EnvironmentState, ...]:
    """What is there for each runtime in ``specs``, in their order."""
    return tuple(_state(home, name, spec) for name, spec in specs.items())


def _state(home: Home, name: str, spec: EnvironmentSpec) -> EnvironmentState:
    if current := find(home, name, spec):
        return _of(State.INSTALLED, current, spec)
    if old := _newest(home, name, None):
        return _of(State.OUTDATED, old, spec)
    begun = tuple(standing(home, name))
    if begun:
        size = sum(place.size_bytes() for place in begun)
        return EnvironmentState(name=name, state=State.INCOMPLETE, summary=spec.summary, size_bytes=size)
    return EnvironmentState(name=name, state=State.MISSING, summary=spec.summary)


def _of(state: State, there: Installed, spec: EnvironmentSpec) -> EnvironmentState:
    return EnvironmentState(
        name=there.name,
        state=state,
        summary=spec.summary,
        python=there.python,
        versions=there.versions,
        size_bytes=there.size_bytes,
        installed_at=there.installed_at,
    )


def remove(home: Home, name: str) -> None:
    """Remove all there is of runtime ``name``'s environments, complete or not.

    Raises :class:`NotFoundError` when there is nothing, and :class:`EnvironmentFault` when an engine still uses one,
    an installation is going on, or the disk refuses.
    """
    if not any(standing(home, name)):
        raise NotFoundError(f"runtime {name!r} has no environment; see: stoker runtime list")
    with lock.held(lock_of(home, name), name, _unheard, wait=False):
        places = tuple(standing(home, name))
        for place in places:
            if users := in_use(place.folder):
                pids = ", ".join(str(pid) for pid in users)
                raise EnvironmentFault(
                    f"the environment of runtime {name!r} is in use by process {pids}; stop it first"
                )
        for place in places:
            try:
                place.remove()
            except OSError as error:
                raise EnvironmentFault(f"{place.folder} can't be removed: {error.strerror or error}") from error


def lock_of(home: Home, name: str) -> Path:
    """The lock file of runtime ``name``. It stays for good: removing it would let two in."""
    return family(home, name).with_name(f"{name}.lock")


def retire_others(home: Home, keep: Place) -> None:
    """Remove the runtime's other environments, as far as nobody uses them and the disk lets us."""
    for place in standing(home, keep.name):
        if place != keep and in_use(place.folder) == ():
            with suppress(OSError):
                place.remove()


def in_use(folder: Path) -> tuple[int, ...] | None:
    """The processes that run out of ``folder``; None where there is no way to tell.

    An environment's interpreter is a link to another, so it is the arguments and the mapped libraries that tell.
    """
    if not (PROCESSES / "self" / "maps").exists():
        return None
    needles = {os.fsencode(path) + b"/" for path in (folder, folder.resolve())}
    pids = [int(entry.name) for entry in PROCESSES.iterdir() if entry.name.isdigit()]
    return tuple(pid for pid in pids if pid != os.getpid() and _mentions(pid, needles))


def _mentions(pid: int, needles: Collection[bytes]) -> bool:
    for name in ("cmdline", "maps"):
        try:
            text = (PROCESSES / str(pid) / name).read_bytes()
            if any(needle in text for needle in needles):
                return True
        except OSError:  # it ended, or belongs to somebody else, who has no engines of ours
            continue
    return False


def _unheard(_progress: Progress) -> None:
    """Nobody waits, so there is nobody to tell."""
