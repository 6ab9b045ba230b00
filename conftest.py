"""How many processes run the tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """None of their own for a single file, which one would run whole, nor where somebody wants to watch (``-s``).

    Otherwise pytest-xdist says: one for each CPU. ``-n 4`` is four of them, and ``-n 0`` none.
    """
    named = [Path(argument.partition("::")[0]) for argument in config.args]
    is_one_file = len(set(named)) == 1 and named[0].is_file()
    return 0 if is_one_file or config.getoption("capture") == "no" else None
