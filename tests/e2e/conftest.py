"""The built file, and a home in which the embedded engine is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stoker.home import Home

ROOT = Path(__file__).resolve().parents[2]
INSTALLED = Home(ROOT / "build" / "e2e" / "home")


def must(*command: str | Path, **env: str) -> None:
    """Run a command that has to succeed, and show what it said if it doesn't."""
    environ = {**os.environ, **env}
    done = subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}"


@pytest.fixture(scope="session")
def pyz() -> Path:
    """``dist/stoker.pyz``, made from the sources as they are."""
    must(sys.executable, ROOT / "zipapp.py")
    return ROOT / "dist" / "stoker.pyz"


@pytest.fixture
def stoker_home(tmp_path: Path) -> Home:
    """A home that doesn't exist yet."""
    return Home(tmp_path / "home")


@pytest.fixture(scope="session")
def embedded_home(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home of this test run in which the embedded runtime is installed, as ``stoker runtime install`` does it.

    The environment itself is kept in ``build/e2e`` from run to run; installing what is there and current does nothing.
    """
    must(sys.executable, pyz, "runtime", "install", "embedded", STOKER_HOME=str(INSTALLED.path))
    home = Home(tmp_path_factory.mktemp("embedded"))
    home.runtimes.symlink_to(INSTALLED.runtimes)
    return home
