"""Draws what the pages show of the code: ``python3 docs/generate.py``, after a change of what they show.

The prose stands in the pages; what is between two marks is drawn, by ``docs/drawing``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from drawing import client, commands, configuration, hooks, http, metrics, routing, states
from drawing.marks import Parts, redrawn

DOCS = Path(__file__).resolve().parent
DRAWN: Mapping[str, Parts] = {
    "explanation/routing.md": routing.PARTS,
    "reference/cli.md": commands.PARTS,
    "reference/client.md": client.PARTS,
    "reference/configuration.md": configuration.PARTS,
    "reference/engine-states.md": states.PARTS,
    "reference/hooks.md": hooks.PARTS,
    "reference/http.md": http.PARTS,
    "reference/metrics.md": metrics.PARTS,
}


def pages() -> Mapping[Path, str]:
    """The pages with drawn parts, as they should be. Raises ValueError where a mark is missing."""
    return {DOCS / name: redrawn((DOCS / name).read_text(), parts) for name, parts in DRAWN.items()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
