"""Tiny packages made on the spot, and an installation that sees nothing but them."""

from __future__ import annotations

import base64
import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs
import pytest

from stoker import environments
from stoker.environments import Installed, Progress
from stoker.home import Home
from stoker.model import EnvironmentSpec

Install = Callable[..., Installed]
FRESH = {"PIP_NO_CACHE_DIR": "1"}  # or a folder that tests are given again finds wheels of the last time


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A folder that takes the place of the package index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    write_wheel(folder, "tiny", "1.0")
    write_wheel(folder, "needy", "2.0", requires=("tiny",))
    write_wheel(folder, "weights", "3.0", requires=("nowhere-to-be-found",))
    return folder


@pytest.fixture
def write() -> Callable[..., None]:
    """Writes one more wheel into the folder."""
    return write_wheel


@pytest.fixture
def environ(wheels: Path) -> Mapping[str, str]:
    """The environment variables of somebody who has that folder and no network."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return {**inherited, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull, **FRESH}


@attrs.define
class Heard:
    """What was reported."""

    steps: list[Progress] = attrs.field(factory=list)

    def __call__(self, progress: Progress) -> None:
        self.steps.append(progress)

    @property
    def text(self) -> str:
        return "\n".join(f"{progress.step}: {progress.text}" for progress in self.steps)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def install(home: Home, environ: Mapping[str, str], heard: Heard) -> Install:
    """Installs a spec as the runtime ``rt`` of the home."""

    def run(spec: EnvironmentSpec, **options: object) -> Installed:
        given = {"report": heard, "environ": environ, **options}
        return environments.install(home, "rt", spec, **given)  # type: ignore[arg-type]

    return run


def write_wheel(folder: Path, name: str, version: str, requires: tuple[str, ...] = ()) -> None:
    """A package with one module that knows its version."""
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": metadata + "".join(f"Requires-Dist: {one}\n" for one in requires),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [f"{path},sha256={_digest(text)},{len(text)}\n" for path, text in files.items()]
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", "".join([*rows, f"{info}/RECORD,,\n"]))


def _digest(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
