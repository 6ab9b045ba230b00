"""The border at which plugins are met before anything is served: found, loaded, and asked what they bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from stoker.errors import PluginError


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Around all that touches a stranger's object: whatever that raises is a PluginError, which begins with ``what``.

    Only Ctrl-C passes. SystemExit does not: whether Stoker ends is not the plugin's affair.
    """
    try:
        yield
    except (PluginError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise PluginError(f"{what}: {_told(error)}") from error


def _told(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - the text of a stranger's exception is a stranger's code too
        return type(error).__name__
