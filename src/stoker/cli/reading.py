"""Reads what a command was given in a file, or on standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from stoker.errors import StokerError


def read_json(named: str) -> tuple[str, Any]:
    """The text of a file (``-``: standard input), and the JSON that it is. Raises StokerError where it is none."""
    try:
        text = sys.stdin.read() if named == "-" else Path(named).read_text(encoding="utf-8")
        return text, json.loads(text)
    except OSError as error:
        raise StokerError(f"{named} can't be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        what = "standard input" if named == "-" else named
        raise StokerError(f"{what} is not JSON: {error}") from error
