"""Asks before something happens to what nobody named: on a terminal; elsewhere it takes ``--yes``."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import Parameter

from stoker.cli.activity import warn
from stoker.errors import StokerError

Yes = Annotated[bool, Parameter(("--yes", "-y"), help="Don't ask.")]


def require_consent(plan: str) -> None:
    """Say what would happen, and return if it may.

    Raises StokerError where somebody says no, and where there is nobody to ask.
    """
    warn(plan)
    if not can_ask():
        raise StokerError("nothing was done, as nobody can be asked here; to do it, add --yes")
    if not agrees("Go on?"):
        raise StokerError("nothing was done")


def can_ask() -> bool:
    """Whether somebody reads what is asked, and can answer."""
    return sys.stdin is not None and sys.stdin.isatty() and sys.stderr.isatty()


def agrees(question: str) -> bool:
    """Ask on standard error, since standard output is for results. No answer is a no."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline()
    if not answer:
        warn("")  # Ctrl-D leaves the cursor behind the question
    return answer.strip().lower() in ("y", "yes")
