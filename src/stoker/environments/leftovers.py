"""What an installation that was interrupted left behind: an environment that can be completed, or has to go.

pip takes a package for installed as soon as its metadata is there, but writes its list of files (RECORD) last. One
without that list, or with files that don't agree with it, was cut short: without its metadata pip installs it again.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path


def forget_unfinished(site_packages: Path) -> tuple[str, ...]:
    """Take the metadata of packages away that were cut short. Returns what was forgotten."""
    unfinished = tuple(info for info in site_packages.glob("*.dist-info") if not _finished(info))
    for info in unfinished:
        shutil.rmtree(info)
    return tuple(info.name.removesuffix(".dist-info") for info in unfinished)


def _finished(info: Path) -> bool:
    try:
        with (info / "RECORD").open(newline="", encoding="utf-8") as file:
            return all(_agrees(info.parent / path, size) for path, size in _rows(file))
    except (OSError, ValueError):
        return False


def _rows(file: Iterator[str]) -> Iterator[tuple[str, str]]:
    for row in csv.reader(file):
        path, _, size = row
        yield path, size


def _agrees(path: Path, size: str) -> bool:
    # Byte code is listed without a size, and may be gone.
    return not size or path.stat().st_size == int(size)
