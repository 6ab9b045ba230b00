"""The border to plugins: whatever a stranger's code raises costs what it was asked for, and is told in one line."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator

from stoker.errors import PluginError, StokerError

MOST_CHARACTERS = 1000

_BREAK = re.compile(r"\s*[^\S ]\s*")


@contextlib.contextmanager
def contained(
    what: str, kind: type[StokerError] = PluginError, *, passing: type[StokerError] | None = None
) -> Iterator[None]:
    """Turn what the block raises into an error of ``kind`` that begins with ``what``; what is ``passing`` goes through.

    Without ``passing`` that is what is of ``kind`` already. Also what is no ``Exception`` is turned: whether Stoker
    ends is not a plugin's affair. Only Ctrl-C goes through. Nothing in the block may await: a cancellation would be
    taken for the plugin's.
    """
    try:
        yield
    except BaseException as error:  # the plugin boundary
        if isinstance(held(error), passing or kind):
            raise
        raise kind(f"{what}: {told(error)}") from error


def held(error: BaseException) -> BaseException:
    """``error``, which was caught at the border; if it is none that is held there, it is raised: only Ctrl-C is not.

    For those who can't use :func:`contained`, because they do otherwise with it than raise, or have no time for it.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error
    return error


def told(error: BaseException) -> str:
    """The type of an exception and what it says, in one line. Never raises, though a stranger's ``__str__`` may."""
    name, text = type(error).__name__, _text(error)
    return f"{name}: {text}" if text else name


def words(error: BaseException) -> str:
    """What an exception says, in one line; where that is nothing, its type. Never raises."""
    return _text(error) or type(error).__name__


def described(value: object) -> str:
    """The ``repr`` of what a stranger gave, in one line. Never raises, though his ``__repr__`` may."""
    try:
        return one_line(repr(value))
    except BaseException as error:  # noqa: BLE001 - a stranger's code, as everything here
        held(error)
        return f"a {type(value).__name__}"


def one_line(text: str) -> str:
    """``text`` without line breaks and what else can't be seen, and cut where it is too long for anybody to read."""
    line = "".join(filter(str.isprintable, _BREAK.sub(" ", text.strip())))
    return line if len(line) <= MOST_CHARACTERS else f"{line[:MOST_CHARACTERS]}…"


def _text(error: BaseException) -> str:
    try:
        return one_line(str(error))
    except BaseException as failure:  # noqa: BLE001 - the text of a stranger's exception is a stranger's code too
        held(failure)
        return ""


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """Have what is printed in the block go to standard error: standard output is for results. Not for threads."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def is_text(value: object) -> bool:
    """Whether it is one, whatever its type says: a plugin may have been written without a type checker."""
    return isinstance(value, str)
