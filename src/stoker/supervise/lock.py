"""One supervisor per home: a lock that the kernel gives back however its holder ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from stoker.errors import ConflictError


@contextlib.contextmanager
def hold(path: Path, inherited: int | None = None) -> Iterator[int]:
    """Hold the lock; the block gets its descriptor. ``inherited`` is one on which a predecessor holds it already.

    Raises :class:`ConflictError` that names the process that has it. Doesn't wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = _same(path, inherited) if inherited is not None else None
    if descriptor is None:
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
        yield descriptor
    finally:
        os.close(descriptor)


def _same(path: Path, inherited: int) -> int | None:
    """``inherited``, if it is this file."""
    try:
        if not os.path.samestat(os.fstat(inherited), path.stat()):
            return None
        os.set_inheritable(inherited, False)  # noqa: FBT003 - the standard library takes it so
    except OSError:
        return None
    return inherited
