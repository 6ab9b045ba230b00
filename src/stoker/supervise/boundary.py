"""The border to runtimes and schedulers: whatever a stranger's code raises costs one engine, and names its author."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Iterator

from stoker.errors import LaunchError, PermanentLaunchError


@contextlib.contextmanager
def contained(what: str, kind: type[LaunchError] = PermanentLaunchError) -> Iterator[None]:
    """Turn what the block raises into an error of ``kind`` that says ``what`` failed; a LaunchError passes as it is.

    Also what is no ``Exception``: ``sys.exit`` in a plugin is the plugin's own affair. Only Ctrl-C passes. Nothing in
    the block may await: a cancellation would be taken for the plugin's.
    """
    try:
        yield
    except (LaunchError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the plugin boundary
        raise kind(f"{what}: {told(error)}") from error


def told(error: BaseException) -> str:
    """An exception in a line. Never raises, though a stranger's ``__str__`` may."""
    return " ".join(traceback.format_exception_only(error)[-1].split())


def is_text(value: object) -> bool:
    """Whether it is one, whatever its type says."""
    return isinstance(value, str)
