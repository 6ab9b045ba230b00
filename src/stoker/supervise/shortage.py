"""Shortages of our own machine: they say nothing about an engine, and pass."""

from __future__ import annotations

import errno

_OURS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def is_shortage(error: BaseException | None) -> bool:
    """Whether ``error``, or what it came from, is a lack of descriptors or memory in this process or machine."""
    while error is not None:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        elif isinstance(error, OSError) and error.errno in _OURS:
            return True
        else:
            error = error.__cause__
    return False
