"""How this program was started, so that what it tells people to type works, and so that it can start itself again."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import stoker

INVOKED_AS = "STOKER_INVOKED_AS"
_GROUPS = "config|engine|gateway|key|plugin|route|runtime|session"
_COMMAND = re.compile(rf"(?<!-m )(?<![\w/.-])stoker (?=(?:{_GROUPS}) [a-z])")


def program() -> str:
    """What to type to run Stoker as it was run this time."""
    if named := os.environ.get(INVOKED_AS):
        return named
    started = sys.argv[0]
    if (file := archive()) is not None:
        name = Path(started).name
        found = shutil.which(name)
        return shlex.quote(name) if found and Path(found).samefile(file) else f"python3 {shlex.quote(started)}"
    return "python3 -m stoker" if Path(started).name == "__main__.py" else "stoker"


def as_typed(text: str) -> str:
    """``text``, in which commands are called ``stoker …``, with what is typed here instead."""
    return _COMMAND.sub(lambda _: f"{program()} ", text)


def command() -> list[str]:
    """The argv, without arguments, that runs this very Stoker again."""
    if (file := archive()) is not None:
        return [sys.executable, str(file)]
    # -m alone would put the current folder before everything else; only repeat that where it was done before.
    safe_path = [] if Path(sys.argv[0]).name == "__main__.py" and not sys.flags.safe_path else ["-P"]
    return [sys.executable, *safe_path, "-m", "stoker"]


def archive() -> Path | None:
    """The ``.pyz`` this Stoker runs from, or None."""
    return next((parent for parent in Path(stoker.__file__).absolute().parents if parent.is_file()), None)
