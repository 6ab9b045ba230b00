"""Finds every process of an engine, also those that left its session, and signals them without hitting a stranger.

Three signs make a process a member: the session of the engine's first process, the marker in its environment (kept
across ``setsid`` and double forks), and a parent or a session that a member has. The last is needed because a process
that writes a title for itself (vLLM's core and workers do) writes over its environment. Everything here blocks: call it
in a thread.

Files of ``/proc`` are named by plain text: pathlib interns every part of a path, and so every pid there ever was. That
made the table of interned strings be built anew (2 MB) again and again, each time in the memory of another thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator

import attrs

MARK_VARIABLE = "STOKER_MARK"
PROC = "/proc"
HAS_PROC = sys.platform == "linux"


@attrs.frozen
class ProcessEntry:
    """One line of the process table. ``started`` (clock ticks since boot) tells it from a later bearer of its pid."""

    pid: int
    parent: int
    session: int
    state: str
    started: int
    group: int = 0

    @property
    def gone(self) -> bool:
        """A zombie holds nothing but its exit status."""
        return self.state in "ZX"


def read_file(pid: int | str, name: str) -> bytes:
    """What the kernel tells of a process in the file ``name``. Raises OSError."""
    with open(f"{PROC}/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - see above
        return file.read()


def read_entry(pid: int) -> ProcessEntry | None:
    """The entry of ``pid``, or None where there is no such process (any more) that we may see."""
    try:
        stat = read_file(pid, "stat")
    except (FileNotFoundError, ProcessLookupError, PermissionError):  # the last: another user's, under hidepid
        return None
    # The command's name stands in parentheses and may itself hold any character.
    fields = stat[stat.rindex(b")") + 2 :].split()
    return ProcessEntry(
        pid=pid,
        state=fields[0].decode(),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        started=int(fields[19]),
    )


def boot_id() -> str:
    """What tells this boot of the machine from others; empty where the system has none."""
    try:
        return read_file("sys", "kernel/random/boot_id").decode().strip()
    except OSError:
        return ""


def process_table() -> list[ProcessEntry]:
    """Every process there is, zombies too."""
    pids = [int(name) for name in os.listdir(PROC) if name.isdigit()]  # noqa: PTH208 - a tenth of iterdir's cost
    return [entry for pid in pids if (entry := read_entry(pid)) is not None]


def read_mark(pid: int) -> str | None:
    """The marker in the environment that ``pid`` was started with; None where there is none or it can't be read."""
    try:
        environ = read_file(pid, "environ")
    except OSError:  # gone, or another user's: not ours either way
        return None
    prefix = f"{MARK_VARIABLE}=".encode()
    for variable in environ.split(b"\0"):
        if variable.startswith(prefix):
            return variable.removeprefix(prefix).decode(errors="replace")
    return None


def members(session: int | None, is_mark: Callable[[str], bool], began: int = 0) -> list[ProcessEntry]:
    """The living processes that are in ``session``, carry a marker that ``is_mark`` knows, or belong to such.

    To belong is to descend from one, or to be in one's session. Our own session is nobody's. ``began`` is when the
    leader of ``session`` did, if that is known: a later session of the same number is a stranger's.
    """
    table = process_table()
    nobodys = {0, os.getsid(0)}  # 0: of a session outside our container
    if began and any(entry.pid == session and entry.started != began for entry in table):
        session = None
    found = {entry.pid for entry in table if entry.session == session or _is_marked(entry, is_mark)}
    while True:
        sessions = {entry.session for entry in table if entry.pid in found} - nobodys
        more = {entry.pid for entry in table if entry.parent in found or entry.session in sessions} - found
        if not more:
            return [entry for entry in table if entry.pid in found and not entry.gone]
        found |= more


def still_there(entries: Iterable[ProcessEntry]) -> list[ProcessEntry]:
    """Those of ``entries`` that live yet."""
    now = [(entry, read_entry(entry.pid)) for entry in entries]
    return [entry for entry, later in now if later is not None and later.started == entry.started and not later.gone]


def _is_marked(entry: ProcessEntry, is_mark: Callable[[str], bool]) -> bool:
    if entry.gone:
        return False
    mark = read_mark(entry.pid)
    return mark is not None and is_mark(mark)


def send(entries: Iterable[ProcessEntry], number: signal.Signals) -> None:
    """Signal exactly these processes: one that ended meanwhile is passed over, a new bearer of its pid is not hit.

    One that we may not signal is passed over too: it shows in whatever looks for it next.
    """
    for entry in entries:
        with contextlib.suppress(ProcessLookupError, PermissionError), _handle_of(entry) as handle:
            if handle is not None:
                signal.pidfd_send_signal(handle, number)


@contextlib.contextmanager
def _handle_of(entry: ProcessEntry) -> Iterator[int | None]:
    """None where it is gone. What has a handle can't become another process, so it is looked at after that is had."""
    try:
        handle = os.pidfd_open(entry.pid)
    except OSError as error:
        if error.errno != errno.EINVAL:  # before Linux 6.15: gone, but its number still names a group, or a session
            raise
        yield None
        return
    try:
        now = read_entry(entry.pid)
        yield handle if now is not None and now.started == entry.started else None
    finally:
        os.close(handle)


def signal_group(leader: int, number: signal.Signals) -> None:
    """Signal the process group that a child of ours leads, or led: one that was not reaped, so that it is no other's.

    Nothing happens where nobody is in it whom we may signal.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)
