"""What the operating system knows: CPU time and memory of process trees, CPUs to stay on, and what machine this is."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import socket
import subprocess
import time
from collections.abc import Collection, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


class BenchError(Exception):
    """It can't be measured; the message says why and what to do."""


def tree(pid: int) -> set[int]:
    """A process and all its descendants."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - names are enough, and this runs between measurements
        if entry.isdigit():
            with contextlib.suppress(OSError):
                parent = int(Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry))
    found, todo = {pid}, [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found.update(below)
        todo += below
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of a process tree, user and system, threads that ended included, to the nanosecond."""
    total = 0.0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            # The clock of another process, as clock_getcpuclockid(3) makes it; Python has no call for that.
            total += time.clock_gettime((~member << 3) | 2)
    return total


def resident_bytes(pid: int) -> int:
    """Resident memory of a process tree."""
    total = 0
    for member in tree(pid):
        with contextlib.suppress(OSError):
            rollup = Path("/proc", str(member), "smaps_rollup").read_text()
            total += sum(int(kilobytes) for kilobytes in re.findall(r"^Rss:\s+(\d+) kB", rollup, re.MULTILINE))
    return total * 1024


@contextlib.contextmanager
def pinned(cpus: Collection[int]) -> Iterator[None]:
    """Stay on these CPUs meanwhile. Processes that are started here stay on them for good."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def free_port() -> int:
    """A port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def about_machine() -> str:
    """Processor, memory and kernel, in a line."""
    cpuinfo, meminfo = Path("/proc/cpuinfo").read_text(), Path("/proc/meminfo").read_text()
    model = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+) kB$", meminfo, re.MULTILINE)
    name = model[1].strip() if model else platform.machine()
    gigabytes = f"{int(memory[1]) / 2**20:.0f} GB" if memory else "unknown memory"
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{name}, {os.cpu_count()} CPUs, {gigabytes}, Linux {kernel}"


def about_commit() -> str:
    """The commit that is checked out, and whether there are changes on top of it."""
    try:
        commit = _git("rev-parse", "--short", "HEAD")
        return commit + (" with changes" if _git("status", "--porcelain", "--", "src", "plugins", "zipapp.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.strip()
