"""Where an environment stands, and the record that says it is complete.

A virtual environment can't be moved, so each is built where it will stay: ``runtimes/NAME/FINGERPRINT``. What tells a
finished one from a half-built one is ``complete.json``, written last.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from stoker.environments.records import Installed
from stoker.errors import NotFoundError
from stoker.home import Home
from stoker.model import EnvironmentSpec

FORMAT = 1
RECORD = "complete.json"
KEYS = frozenset({"spec", "platform", "python_version", "versions", "installed_at", "size_bytes"})
NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


def family(home: Home, name: str) -> Path:
    """The folder of all environments of one runtime. Raises :class:`NotFoundError` for what can't be a name."""
    if not NAME.fullmatch(name):
        raise NotFoundError(f"there is no runtime {name!r}; names are of lower-case letters, digits, '.', '_' and '-'")
    return home.runtimes / name


def digest(spec: EnvironmentSpec) -> str:
    """What distinguishes one spec from another; its summary is only for people."""
    fields = attrs.asdict(attrs.evolve(spec, summary=""), recurse=False)
    text = json.dumps(fields, sort_keys=True, default=dict)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def fingerprint(spec: EnvironmentSpec, interpreter: str) -> str:
    """The name of the folder for ``spec`` built with a Python that ``interpreter`` describes."""
    return hashlib.blake2b(f"{digest(spec)} {interpreter}".encode(), digest_size=8).hexdigest()


def standing(home: Home, name: str) -> Iterator[Place]:
    """Every environment of a runtime that was ever begun and not removed."""
    try:
        folders = sorted(family(home, name).iterdir())
    except FileNotFoundError:
        return
    yield from (Place(name, folder) for folder in folders if folder.is_dir())


@attrs.frozen
class Place:
    """One environment's folder, complete or not."""

    name: str
    folder: Path

    @property
    def python(self) -> Path:
        """The interpreter in it."""
        return self.folder / "bin" / "python"

    @property
    def share(self) -> Path:
        """The folder of the runtime's own files."""
        return self.folder / "share" / "stoker"

    @property
    def site_packages(self) -> tuple[Path, ...]:
        """Where its packages are."""
        return tuple(self.folder.glob("lib/python3*/site-packages"))

    def read(self) -> dict[str, Any] | None:
        """The record; None where there is none, none that is whole, or no interpreter any more."""
        try:
            record = json.loads((self.folder / RECORD).read_bytes())
        except (OSError, ValueError):
            return None
        if not isinstance(record, dict) or record.get("format") != FORMAT or not self.python.is_file():
            return None
        return record if record.keys() >= KEYS else None

    def complete(self, spec: EnvironmentSpec | None = None) -> Installed | None:
        """The environment, if it is complete, for this platform and, where one is given, for exactly ``spec``."""
        record = self.read()
        if record is None or record["platform"] != sysconfig.get_platform():
            return None
        if spec is not None and record["spec"] != digest(spec):
            return None
        return Installed(
            name=self.name,
            folder=self.folder,
            python_version=record["python_version"],
            versions=record["versions"],
            installed_at=record["installed_at"],
            size_bytes=record["size_bytes"],
        )

    def write(self, installed: Installed, spec: EnvironmentSpec) -> None:
        """Declare the environment complete. What was built must be on the disk by then."""
        record = {
            "format": FORMAT,
            "spec": digest(spec),
            "platform": sysconfig.get_platform(),
            "python_version": installed.python_version,
            "versions": dict(installed.versions),
            "installed_at": installed.installed_at,
            "size_bytes": installed.size_bytes,
        }
        write_durably(self.folder / RECORD, json.dumps(record, indent=1))

    def remove(self) -> None:
        """Take the whole folder away; the record first, so that what is left in between is never used."""
        (self.folder / RECORD).unlink(missing_ok=True)
        shutil.rmtree(self.folder)

    def size_bytes(self) -> int:
        """How much the files in it hold."""
        return sum((Path(folder) / name).lstat().st_size for folder, _, names in os.walk(self.folder) for name in names)


def write_durably(path: Path, text: str) -> None:
    """Write a file so that after a crash it is whole, or not there (or the old one)."""
    beside = path.with_name(f".{path.name}.new")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
