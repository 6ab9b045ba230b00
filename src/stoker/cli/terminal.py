"""The terminal, or whatever a command was given in its place."""

from __future__ import annotations

import os

from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """A terminal, or a file, to print to. ``NO_COLOR`` asks for plain text, so it gets nothing but text."""
    plain_text = bool(os.environ.get("NO_COLOR"))
    return Console(
        stderr=stderr,
        highlight=False,
        soft_wrap=False,
        emoji=False,
        markup=False,
        color_system=None if plain_text else "auto",
    )


def can_redraw(screen: Console) -> bool:
    """Whether what was drawn there can be drawn over."""
    return screen.is_terminal and not screen.is_dumb_terminal
