"""Whether a folder that nobody named may be a place for plugins: only if nobody else decides what is imported there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def untrusted(folder: Path, user: int) -> str:
    """Why plugins of ``folder`` are not loaded unless somebody names it, or an empty text.

    Whoever can write there runs what he likes with our rights: so all that is in it, and all that it is reached
    through, must be ``user``'s own or root's, and nobody else may write to it. What is hidden does not matter: it can't
    be imported.
    """
    try:
        return next(_doubts(folder.absolute(), user, set()), "")
    except OSError as error:
        return f"{error.filename} can't be looked at: {error.strerror}"


def _doubts(path: Path, user: int, seen: set[Path]) -> Iterator[str]:
    """Of ``path``, of the way to it, and of all that is in it, but for the folders in ``seen``."""
    shared = False
    for each in _way_to(path):
        try:
            about = each.lstat()
        except FileNotFoundError:  # a link that leads to nothing is no danger, unless somebody can put something there
            if shared:
                yield f"others can put something at {each}"
            return
        shared = bool(about.st_mode & _BY_OTHERS)
        yield from _doubts_of(each, about, user, above=True)
    real = path.resolve()
    yield from _doubts_of(real, real.stat(), user)
    if real.is_dir():
        yield from _doubts_inside(real, user, seen)


def _doubts_inside(folder: Path, user: int, seen: set[Path]) -> Iterator[str]:
    if folder in seen:
        return
    seen.add(folder)
    for each in sorted(folder.iterdir()):
        if each.name.startswith("."):
            continue
        about = each.lstat()
        if stat.S_ISLNK(about.st_mode):
            yield from _doubts(each, user, seen)
            continue
        yield from _doubts_of(each, about, user)
        if stat.S_ISDIR(about.st_mode):
            yield from _doubts_inside(each, user, seen)


def _doubts_of(path: Path, about: os.stat_result, user: int, *, above: bool = False) -> Iterator[str]:
    """Of one thing by itself. In a sticky folder ``above`` the place, others can't rename what is ours."""
    if about.st_uid not in (user, 0):
        yield f"{path} belongs to another user"
    harmless = stat.S_ISLNK(about.st_mode) or (above and stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX)
    if about.st_mode & _BY_OTHERS and not harmless:
        yield f"others can write to {path}"


def _way_to(path: Path) -> Iterator[Path]:
    """All that ``path`` is reached through, folders and links and the ways those lead, and itself. It is absolute."""
    here = Path(path.anchor)
    yield here
    for part in path.parts[1:]:
        here /= part
        yield here
        if here.is_symlink():
            with suppress(FileNotFoundError):  # but not that links go in a circle
                here.stat()
            yield from _way_to(here.parent / here.readlink())
            here = here.resolve()
