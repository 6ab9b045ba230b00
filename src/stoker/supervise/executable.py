"""Why a command can't be executed, for somebody who has to mend it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

LONGEST_FIRST_LINE = 256


def why_not(word: str, env: Mapping[str, str], cwd: str | None) -> str | None:
    """What is wrong with the first word of a command, with the remedy; None where it looks as if it could run. Blocks.

    A word with a slash is a path, seen from ``cwd``; any other is looked for on the PATH of ``env``.
    """
    if os.sep not in word:
        if shutil.which(word, path=env.get("PATH")) is None:
            return f"there is no executable {word!r} on the PATH; install it, or name it with its whole path"
        return None
    path = Path(cwd or "", word)
    if not path.exists():
        return f"there is no executable {word!r}: {path.absolute()} does not exist; correct the path, or install it"
    if path.is_dir():
        return f"{word!r} is a folder, not an executable; name the program in it"
    if not os.access(path, os.X_OK):
        return f"{word!r} is not executable; make it so (chmod +x), or name its interpreter before it"
    return None


def why_refused(word: str, error: OSError, env: Mapping[str, str], cwd: str | None) -> str:
    """Why the system would not execute what :func:`why_not` found nothing wrong with. Blocks."""
    path = _found(word, env, cwd)
    interpreter = _interpreter(path)
    if interpreter and isinstance(error, FileNotFoundError):
        return f"{word!r} can't be executed: its first line names the interpreter {interpreter!r}, which is not there"
    if isinstance(error, FileNotFoundError):
        return f"{word!r} can't be executed: what it needs to be loaded is not there; is it for another system?"
    return f"{word!r} can't be executed: {error.strerror}; is it a program for this machine, or a script without #!?"


def _found(word: str, env: Mapping[str, str], cwd: str | None) -> Path:
    return Path(cwd or "", word) if os.sep in word else Path(shutil.which(word, path=env.get("PATH")) or word)


def _interpreter(path: Path) -> str:
    """What follows ``#!`` in a script; empty where that can't be read."""
    try:
        with path.open("rb") as file:
            first = file.readline(LONGEST_FIRST_LINE)
    except OSError:
        return ""
    words = first[2:].decode(errors="replace").split() if first.startswith(b"#!") else []
    return words[0] if words else ""
