"""The manual's page names every setting there is."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from stoker.config.rules import OLDER, RULES
from stoker.config.schema import name_in_file, reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "configuration.md"


@pytest.mark.parametrize("cls", list(RULES))
def test_every_setting_stands_in_the_manual_with_its_default_and_meaning(cls: type) -> None:
    page = PAGE.read_text()
    for field in attrs.fields(cls):
        assert f"| `{name_in_file(cls, field.name)}` | " in page
        assert RULES[cls][field.name].meaning in page
    assert reference(cls) in page, "the page is stale: run python3 docs/generate.py"


def test_the_older_names_stand_there_too() -> None:
    page = PAGE.read_text()
    for older, name in OLDER.items():
        assert f"| `{older}` | `{name}`" in page
