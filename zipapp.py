#!/usr/bin/env python3
"""Builds Stoker as one file, ``dist/stoker.pyz``, and runs it.

::

    python3 zipapp.py                 build dist/stoker.pyz, if it isn't up to date
    python3 zipapp.py --run ARGS...   the same, then run it with ARGS
    python3 zipapp.py --output FILE   build it there instead
    python3 zipapp.py --clean         remove what was built and gathered

Needs Python 3.11 or newer and its pip, nothing else. Dependencies are gathered once, into ``build/onefile``; after that
a build needs no network. What the file holds is described in docs/explanation/architecture.md.

This file shadows the standard module of its name while its folder is on ``sys.path``. So when it is imported as
``zipapp``, or run by ``python -m zipapp``, it steps aside and the standard module takes its place.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs it with an older one should read why it fails
    sys.exit("zipapp.py: Stoker needs Python 3.11 or newer; this is Python %d.%d" % sys.version_info[:2])  # noqa: UP031

import argparse
import contextlib
import hashlib
import importlib.machinery
import importlib.util
import json
import marshal
import os
import re
import shutil
import subprocess
import tempfile
import tomllib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

ROOT = Path(__file__).resolve().parent
CACHE = ROOT / "build" / "onefile"
OUTPUT = ROOT / "dist" / "stoker.pyz"
PIP_FOLDER = "stoker/environments/_pip"
INVOKED_AS = "python3 zipapp.py --run"

DEAD_WEIGHT = re.compile(
    r"(^|/)(__pycache__|_?tests)/|^bin/|^example\.py$"
    r"|\.(pyc|pyi|pyx|pxd|c|h)$"
    r"|\.dist-info/(RECORD|WHEEL|INSTALLER|REQUESTED|direct_url\.json)$"
)
NATIVE = re.compile(r"\.(so|dylib|pyd)$")
ABI = importlib.machinery.EXTENSION_SUFFIXES[0].split(".")[1]  # whose native modules pip finds for us
SOURCE_ONLY = re.compile(r"^pygments/(lexers|styles)/")  # hundreds of modules, of which a run loads one or none

MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("stoker needs Python 3.11 or newer; this is Python %d.%d" % sys.version_info[:2])

from stoker.__main__ import main

sys.exit(main())
"""


class BuildError(Exception):
    """The file can't be built; the message says why and what to do."""


@dataclass(frozen=True)
class Project:
    """A folder with a ``pyproject.toml`` and its packages below ``src``: Stoker itself, or a plugin."""

    folder: Path

    @cached_property
    def _pyproject(self) -> dict[str, Any]:
        return tomllib.loads((self.folder / "pyproject.toml").read_text())

    @property
    def table(self) -> dict[str, Any]:
        """The ``[project]`` table."""
        table: dict[str, Any] = self._pyproject["project"]
        return table

    @property
    def rides_along(self) -> bool:
        """Whether the file has it. One with much to bring says no in ``[tool.stoker]``."""
        return bool(self._pyproject.get("tool", {}).get("stoker", {}).get("rides-along", True))

    @property
    def dist_info(self) -> str:
        """The name of its metadata folder."""
        return f"{canonical(self.table['name']).replace('-', '_')}-{self.table['version']}.dist-info"

    def files(self) -> Iterator[tuple[str, Path]]:
        """Everything below ``src`` that belongs into the archive, by the name it has there."""
        source = self.folder / "src"
        for path in sorted(source.rglob("*")):
            name = path.relative_to(source).as_posix()
            if path.is_file() and "__pycache__" not in path.parts and ".egg-info/" not in name:
                yield name, path

    def metadata(self) -> Iterator[tuple[str, str]]:
        """What ``importlib.metadata`` reads: the files of its metadata folder."""
        head = {
            "Metadata-Version": "2.4",
            "Name": self.table["name"],
            "Version": self.table["version"],
            "Summary": self.table.get("description", ""),
            "Requires-Python": self.table.get("requires-python", ""),
            "License-Expression": self.table.get("license", ""),
        }
        lines = [f"{key}: {value}\n" for key, value in head.items() if value]
        lines += [f"Requires-Dist: {requirement}\n" for requirement in self.table.get("dependencies", ())]
        yield "METADATA", "".join(lines)
        sections: list[str] = []
        for group, entries in self.table.get("entry-points", {}).items():
            sections += [f"[{group}]\n", *(f"{name} = {target}\n" for name, target in entries.items())]
        yield "entry_points.txt", "".join(sections)


class Archive:
    """A zip file that is being written, the same bytes for the same contents: fixed times, the order as given."""

    def __init__(self, zip_file: ZipFile) -> None:
        self.zip_file = zip_file

    def add(self, name: str, data: bytes) -> None:
        """Add a file; a module with its byte code beside it, where zipimport looks first."""
        if name.endswith(".dist-info/METADATA"):
            data = data.partition(b"\n\n")[0].rstrip() + b"\n"  # the description is a dependency's README
        code = byte_code(name, data) if name.endswith(".py") and not SOURCE_ONLY.search(name) else None
        if code is not None:
            self._write(name + "c", code)
        self._write(name, data)

    def add_all(self, files: Sequence[tuple[str, Path]]) -> None:
        """Add files, and an entry for each folder that is a namespace package: zipimport knows no other."""
        names = {name for name, _ in files}
        packages = {str(folder) for name in names if name.endswith(".py") for folder in PurePosixPath(name).parents}
        for package in sorted(packages - {"."}):
            if f"{package}/__init__.py" not in names:
                self._write(f"{package}/", b"")
        for name, path in files:
            self.add(name, path.read_bytes())

    def _write(self, name: str, data: bytes) -> None:
        entry = ZipInfo(name)
        entry.create_system = 3  # Unix, wherever it is built
        entry.external_attr = 0o644 << 16
        # Byte code is what a start-up reads, and inflating it takes longer than reading it.
        entry.compress_type = ZIP_STORED if name.endswith((".pyc", ".whl", "/")) else ZIP_DEFLATED
        self.zip_file.writestr(entry, data)


def byte_code(name: str, source: bytes) -> bytes | None:
    """A ``.pyc`` that is taken without looking at its source (PEP 552), or None where the source doesn't compile."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(source, f"stoker.pyz/{name}", "exec", dont_inherit=True)
    except SyntaxError:  # the importer says it better, and only for a module that is really used
        return None
    unchecked_hash = (1).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + unchecked_hash + importlib.util.source_hash(source) + marshal.dumps(code)


def canonical(name: str) -> str:
    """A distribution's name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def projects() -> list[Project]:
    """Stoker, then the plugins that ride along."""
    plugins = [Project(path.parent) for path in sorted(ROOT.glob("plugins/*/pyproject.toml"))]
    return [Project(ROOT), *(plugin for plugin in plugins if plugin.rides_along)]


def requirements(of: Sequence[Project]) -> list[str]:
    """What pip has to gather: each project's dependencies that no earlier one brings."""
    wanted: dict[str, str] = {}
    for project in of:
        for requirement in project.table.get("dependencies", ()):
            name = re.match(r"[\w.-]+", requirement)
            wanted.setdefault(canonical(name[0]) if name else requirement, requirement)
    ours = {canonical(project.table["name"]) for project in of}
    return [requirement for name, requirement in wanted.items() if name not in ours]


def accelerators() -> list[str]:
    """The native packages that Stoker is faster with: what its extra ``fast`` names."""
    named: list[str] = Project(ROOT).table.get("optional-dependencies", {}).get("fast", [])
    return named


def fingerprint() -> str:
    """Of everything a build is made from, so that a file which carries it is up to date."""
    digest = hashlib.blake2b(importlib.util.MAGIC_NUMBER + ABI.encode(), digest_size=16)
    for project in projects():
        for name, path in [*project.files(), ("pyproject.toml", project.folder / "pyproject.toml")]:
            content = path.read_bytes()
            digest.update(f"{project.folder.name}/{name}:{len(content)}:".encode() + content)
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()


def preamble(print_of_sources: str) -> bytes:
    """What stands before the zip archive: how to run the file, and what it was made from."""
    return f"#!/usr/bin/env python3\n# {print_of_sources}\n".encode()


def is_fresh(output: Path, expected: bytes) -> bool:
    """Whether ``output`` was made from the sources as they are."""
    try:
        with output.open("rb") as file:
            return file.read(len(expected)) == expected
    except FileNotFoundError:
        return False


def build(output: Path) -> bool:
    """Make ``output`` up to date and say whether there was anything to do. Several may build at once: they queue."""
    expected = preamble(fingerprint())
    if is_fresh(output, expected):
        return False
    with locked():
        if is_fresh(output, expected):
            return False
        base = gathered(requirements(projects()), accelerators())
        say(f"building {shown(output)}")
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_name(f".{output.name}.partial")
        with partial.open("wb") as file:
            file.write(expected)
            with base.open("rb") as dependencies:
                shutil.copyfileobj(dependencies, file)
        with ZipFile(partial, "a") as zip_file:
            add_projects(Archive(zip_file))
        partial.chmod(0o755)
        partial.replace(output)  # whoever runs the old file keeps the old file
    return True


def add_projects(archive: Archive) -> None:
    """Add our own code, its plugins, and their metadata."""
    for project in projects():
        archive.add_all(list(project.files()))
        for name, text in project.metadata():
            archive.add(f"{project.dist_info}/{name}", text.encode())
        with contextlib.suppress(FileNotFoundError):
            archive.add(f"{project.dist_info}/licenses/LICENSE", (project.folder / "LICENSE").read_bytes())
    archive.add("__main__.py", MAIN.encode())


def gathered(wanted: Sequence[str], fast: Sequence[str]) -> Path:
    """A zip file with the dependencies, from the cache or by pip. Complete whenever it is there."""
    key = json.dumps([sorted(wanted), sorted(fast), ABI, sys.platform, Path(__file__).read_text()])
    base = CACHE / f"dependencies-{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}.zip"
    if base.exists():
        return base
    if importlib.util.find_spec("pip") is None:
        raise BuildError(
            f"{sys.executable} has no pip, which gathers the dependencies.\n"
            "Install it (Debian, Ubuntu: apt install python3-pip; elsewhere: python3 -m ensurepip), "
            "or use another Python 3.11 or newer that has it"
        )
    empty(CACHE)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        gather(wanted, fast, Path(scratch)).replace(base)
    return base


def gather(wanted: Sequence[str], fast: Sequence[str], scratch: Path) -> Path:
    """Let pip fetch everything into folders, and pack what of it is alive. Only ``wanted`` has to be had."""
    say(f"gathering {len(wanted)} dependencies and what they need with pip; this happens once")
    libraries, native, wheels = scratch / "libraries", scratch / "native", scratch / "wheels"
    into = ("install", "--only-binary=:all:", "--no-compile", "--target")
    try:
        pip(*into, str(libraries), *wanted)
    except subprocess.CalledProcessError as error:
        raise BuildError(
            f"pip could not gather the dependencies (exit code {error.returncode}); what it said stands above.\n"
            "They come from a package index, once: check the network, or name your own index with PIP_INDEX_URL"
        ) from None
    for requirement in fast:
        try:
            pip(*into, str(native), "--no-deps", requirement, quiet=True)
        except subprocess.CalledProcessError:
            say(f"no wheel of {requirement} for {ABI} could be had: the file is slower; try again after --clean")
    try:
        pip("download", "--dest", str(wheels), "--only-binary=:all:", "--no-deps", "pip")
    except subprocess.CalledProcessError:
        say("pip's own wheel could not be had: where Python has no pip, engine environments can't be installed")
    return pack(libraries, native, wheels, scratch / "packed.zip")


def pack(libraries: Path, native: Path, wheels: Path, packed: Path) -> Path:
    """Write the dependencies to ``packed``, and what Stoker has to know about them to ``onefile.json`` in it."""
    pure = alive(libraries)
    left_out = [name for name, _ in pure if NATIVE.search(name)]
    whole = alive(native)
    modules = {name: hashlib.blake2b(path.read_bytes()).hexdigest() for name, path in whole if NATIVE.search(name)}
    contents = {
        "python": sys.implementation.cache_tag,
        "native": {ABI: modules} if modules else {},
        "native_left_out": left_out,
    }
    with ZipFile(packed, "w") as zip_file:
        archive = Archive(zip_file)
        archive.add_all([(name, path) for name, path in pure if name not in left_out])
        for name, path in whole:
            archive.add(f"native/{ABI}/{name}", path.read_bytes())
        archive.add_all([(f"{PIP_FOLDER}/{path.name}", path) for path in sorted(wheels.glob("*.whl"))])
        archive.add("onefile.json", json.dumps(contents, indent=2).encode())
    return packed


def alive(folder: Path) -> list[tuple[str, Path]]:
    """What pip installed into ``folder`` and somebody may use, by the name it has there."""
    files = [(path.relative_to(folder).as_posix(), path) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(name, path) for name, path in files if not DEAD_WEIGHT.search(name)]


def pip(*arguments: str, quiet: bool = False) -> None:
    """Run pip, whatever its configuration says about where things go. Raises CalledProcessError."""
    environ = {**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_ROOT_USER_ACTION": "ignore"}
    # -P: pip must not find this file when it imports the standard zipapp.
    command = [sys.executable, "-P", "-m", "pip", "-qq", "--disable-pip-version-check", *arguments]
    heard_on = subprocess.DEVNULL if quiet else sys.stderr
    subprocess.run(command, check=True, env=environ, stdin=subprocess.DEVNULL, stdout=heard_on, stderr=heard_on)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Hold the cache for ourselves; the lock goes with the process, however it ends."""
    import fcntl

    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clean(output: Path) -> None:
    """Remove what was built and gathered."""
    with locked():
        output.unlink(missing_ok=True)
        empty(CACHE)


def empty(cache: Path) -> None:
    """Remove everything but the lock, which others may be waiting for."""
    for path in cache.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != "lock":
            path.unlink()


def shown(path: Path) -> str:
    """``path`` as people here write it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def say(message: str) -> None:
    """One line for people. Standard output belongs to what is run."""
    print(f"zipapp.py: {message}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says and return the exit code; ``--run`` does not return."""
    about = "Build Stoker as one file, dist/stoker.pyz, and run it."
    parser = argparse.ArgumentParser(prog="zipapp.py", description=about, allow_abbrev=False)
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FILE", help="build FILE instead")
    parser.add_argument("--clean", action="store_true", help="remove what was built and gathered")
    run_help = "build what is stale, then run it with all that follows"
    parser.add_argument("--run", nargs=argparse.REMAINDER, metavar="ARGS", help=run_help)
    options = parser.parse_args(arguments)
    output = options.output.absolute()
    try:
        if options.clean:
            clean(output)
        if options.run is not None:
            build(output)
        elif not options.clean:
            built = build(output)
            say(f"{shown(output)} {'built' if built else 'is up to date'}: {output.stat().st_size / 1e6:.1f} MB")
    except (BuildError, OSError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    if options.run is not None:
        os.environ["STOKER_INVOKED_AS"] = INVOKED_AS
        os.execv(sys.executable, [sys.executable, str(output), *options.run])
    return 0


def standard_module() -> ModuleType:
    """Load the standard library's ``zipapp`` and put it where this file was about to be."""
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
    spec = importlib.machinery.PathFinder.find_spec("zipapp", elsewhere)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["zipapp"] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "zipapp":
    standard_module()
elif __name__ == "__main__":
    if __spec__ is not None and __spec__.name == "zipapp":
        sys.exit(standard_module().main())
    sys.exit(main(sys.argv[1:]))
