"""A compiled driver for all of these tests, and a machine for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from .driver import Driver, NoCompilerError, compile_driver


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the compiled stub."""
    try:
        return compile_driver(tmp_path_factory.mktemp("driver"))
    except NoCompilerError as reason:
        pytest.skip(str(reason))


@pytest.fixture
def driver(library: Path, tmp_path: Path) -> Driver:
    """A driver that knows no GPU yet."""
    says = tmp_path / "nvml"
    says.mkdir()
    return Driver(library, says)
