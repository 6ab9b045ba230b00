"""Faults are tried on the built file, or on a gateway that the faults of one module are done to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import pyz, stoker_home

from .stoker_up import Stoker, configuration, running

__all__ = ["pyz", "stoker_home"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these run the built file."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="module")
def stoker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stoker]:
    """One for the module: what one test does must not matter to the next."""
    with running(tmp_path_factory.mktemp("stoker"), configuration()) as stoker:
        yield stoker
