"""Which engine a process belongs to, also a grandchild that writes over its environment. Blocking: use a thread."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from stoker.supervise.proctable import HAS_PROC, ProcessEntry, read_entry, read_mark

_FIRST_NAMESPACE = "pid:[4026531836]"


def owners(pids: Iterable[int], sessions: Mapping[int, str], marks: Mapping[str, str]) -> Mapping[int, str]:
    """The engines of those of ``pids`` that belong to one.

    ``sessions`` and ``marks`` say whose each is. A process is an engine's by its session, by its marker, or because its
    parent is. In a container the driver may speak of pids as the host counts them. They can't be told from ours but by
    not being there: as soon as one is not, none is matched, so that no stranger's memory is taken for an engine's.
    """
    wanted = set(pids)
    if not HAS_PROC or not wanted or (_in_container() and not all(map(_exists, wanted))):
        return {}
    found = ((pid, _owner(pid, sessions, marks)) for pid in wanted)
    return {pid: owner for pid, owner in found if owner is not None}


def _owner(pid: int, sessions: Mapping[int, str], marks: Mapping[str, str]) -> str | None:
    entry = read_entry(pid)
    while entry is not None and entry.pid > 1:
        if owner := sessions.get(entry.session) or _by_mark(entry, marks):
            return owner
        entry = read_entry(entry.parent)
    return None


def _by_mark(entry: ProcessEntry, marks: Mapping[str, str]) -> str | None:
    mark = read_mark(entry.pid)
    return None if mark is None else marks.get(mark)


def _in_container() -> bool:
    try:
        return str(Path("/proc/self/ns/pid").readlink()) != _FIRST_NAMESPACE
    except OSError:
        return True


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
