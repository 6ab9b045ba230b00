"""The manual names the older names of settings. All others are drawn: ``docs/generate.py``."""

from __future__ import annotations

from pathlib import Path

from stoker.config.rules import OLDER

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "configuration.md"


def test_every_older_name_stands_there() -> None:
    page = PAGE.read_text()
    for older, name in OLDER.items():
        assert f"| `{older}` | `{name}`" in page
