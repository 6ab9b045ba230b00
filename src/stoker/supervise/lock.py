"""One supervisor per home: a lock that the kernel gives back however its holder ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from stoker.errors import ConflictError


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the lock. Raises :class:`ConflictError` that names the process that has it. Doesn't wait."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise ConflictError(
                f"another Stoker (pid {holder}) runs on {path.parent}; stop it, or give this one its own STOKER_HOME"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
