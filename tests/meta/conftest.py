"""Small checkouts to build from, at several stages."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from .checkout import Checkout, make_checkout


@pytest.fixture
def fresh_checkout(tmp_path: Path) -> Checkout:
    """A checkout in which nothing was gathered and nothing was built."""
    return make_checkout(tmp_path)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with its file built, to look at only."""
    done = make_checkout(tmp_path_factory.mktemp("built"))
    done.build().close()
    return done


@pytest.fixture
def checkout(tmp_path: Path, built: Checkout) -> Checkout:
    """A checkout with its file built, to change."""
    shutil.copytree(built.root, tmp_path / "checkout")
    shutil.copytree(built.wheels, tmp_path / "wheels")
    return Checkout(tmp_path / "checkout", tmp_path / "wheels")
