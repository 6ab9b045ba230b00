"""A small checkout like ours, with everything the one file has to cope with and nothing that needs the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import ZipFile

import attrs

ROOT = Path(__file__).resolve().parents[2]

PROJECT = """\
[project]
name = "stoker"
version = "1.2.3"
description = "A stand-in"
requires-python = ">=3.11"
dependencies = ["half-native>=1", "Name.Space"]

[project.optional-dependencies]
fast = ["all-native>=1"]

[project.entry-points.stoker]
own = "stoker"
"""

PLUGIN = """\
[project]
name = "stoker-toy"
version = "0.5"
dependencies = ["stoker", "half_native"]

[project.entry-points.stoker]
toy = "stoker_toy"
"""

MAIN = """\
def main():
    import os, sys
    print(os.environ.get("STOKER_INVOKED_AS", "run by itself"), sys.argv[1:])
    return 7
"""

WHEELS: Mapping[str, Mapping[str, str]] = {
    "half_native-1.0-py3-none-any": {
        "half_native/__init__.py": "try:\n    from half_native._fast import f\nexcept ImportError:\n    f = None\n",
        "half_native/_fast.so": "not a library at all",
        "half_native/_fast.pyi": "f: object",
        "half_native/tests/__init__.py": "",
        "half_native/broken_template.py": "def {{ name }}",
    },
    "all_native-1.0-py3-none-any": {
        "all_native/__init__.py": "from all_native.deep._core import f\n",
        "all_native/deep/_core.so": "not a library either",
        "all_native/deep/_core.pxd": "cdef f",
    },
    "name_space-2.0-py3-none-any": {"name_space/inner/deep/module.py": "VALUE = 'deep'\n"},
}


@attrs.frozen
class Checkout:
    """A folder with our ``zipapp.py`` and a small project beside it."""

    root: Path
    wheels: Path

    @property
    def output(self) -> Path:
        """Where the file is built."""
        return self.root / "dist" / "stoker.pyz"

    @property
    def environ(self) -> Mapping[str, str]:
        """Where pip finds the wheels, and nothing else."""
        return {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self.wheels), "PIP_CONFIG_FILE": os.devnull}

    def command(self, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        """The command that runs ``zipapp.py``."""
        return [sys.executable, *options, str(self.root / "zipapp.py"), *arguments]

    def zipapp(self, *arguments: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        """Run ``zipapp.py`` to its end."""
        command = self.command(*arguments, options=options)
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, check=False)

    def build(self) -> ZipFile:
        """Build the file, which must succeed, and open it."""
        done = self.zipapp()
        assert done.returncode == 0, done.stderr
        return ZipFile(self.output)

    def write_wheel(self, name: str, files: Mapping[str, str]) -> None:
        """Put the least that pip takes for a wheel into its index, with a README in its metadata as real ones have."""
        distribution, version = name.split("-")[:2]
        info = f"{distribution}-{version}.dist-info"
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n\n# Read me\n"
        contents = {
            **files,
            f"{info}/METADATA": metadata,
            f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/licenses/LICENSE": "Do what you like.\n",
        }
        contents[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*contents, f"{info}/RECORD"])
        with ZipFile(self.wheels / f"{name}.whl", "w") as wheel:
            for path, text in contents.items():
                wheel.writestr(path, text)

    def python(self, code: str) -> str:
        """What ``code`` prints in a Python that sees the built file, the standard library and nothing else."""
        command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(self.output)!r})\n{code}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def write_tree(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


FILES: Mapping[str, str] = {
    "pyproject.toml": PROJECT,
    "LICENSE": "Apache\n",
    "src/stoker/__init__.py": "def where():\n    raise RuntimeError('here')\n",
    "src/stoker/__main__.py": MAIN,
    "src/stoker/data.txt": "data",
    "src/stoker.egg-info/PKG-INFO": "left by an editable install",
    "plugins/stoker-toy/pyproject.toml": PLUGIN,
    "plugins/stoker-toy/src/stoker_toy/__init__.py": "NAME = 'toy'\n",
}


def make_checkout(folder: Path) -> Checkout:
    new = Checkout(folder / "checkout", folder / "wheels")
    write_tree(new.root, FILES)
    shutil.copy(ROOT / "zipapp.py", new.root)
    new.wheels.mkdir()
    for name, contents in WHEELS.items():
        new.write_wheel(name, contents)
    return new
