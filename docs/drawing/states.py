"""What leads from one state of an engine to another."""

from __future__ import annotations

from drawing.marks import Parts
from drawing.prose import table
from stoker.core.states import TRANSITIONS, mermaid


def _transitions() -> str:
    rows = ((before or "(new)", trigger.value, after) for (before, trigger), after in TRANSITIONS.items())
    return table(("from", "trigger", "to"), rows)


PARTS: Parts = {"diagram": lambda: f"```mermaid\n{mermaid()}\n```", "transitions": _transitions}
