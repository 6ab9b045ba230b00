"""Faults are tried on the built file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.conftest import pyz, stoker_home

__all__ = ["pyz", "stoker_home"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these run the built file."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
