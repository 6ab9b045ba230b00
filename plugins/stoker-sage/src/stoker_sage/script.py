"""The program ``sage``: the command line of Stoker, at ``stoker sage``."""

from __future__ import annotations

import os
import sys

from stoker.__main__ import main as stoker


def main() -> None:
    """Run ``sage``, and exit with the exit code that Stoker has for what came of it."""
    os.environ.setdefault("STOKER_INVOKED_AS", "stoker")  # what messages tell people to type
    sys.argv[1:1] = ["sage"]
    stoker()
