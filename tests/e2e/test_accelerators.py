"""The native modules that ride along in ``dist/stoker.pyz``: unpacked when wanted, done without when need be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from zipfile import ZipFile

import pytest

from stoker.accelerators import ABI

from .running import find_python

pytestmark = pytest.mark.e2e

LOAD = """
import logging, os, sys
sys.path.insert(0, sys.argv[1])
logging.basicConfig(format="%(message)s", stream=sys.stdout)
from stoker import accelerators
found = accelerators.load(os.environ)
print(found.parser, found.reader)
if found.msgspec:
    assert found.msgspec.json.decode(b'{"model": "m"}') == {"model": "m"}
if found.httptools:
    parser = found.httptools.HttpRequestParser(object())
    parser.feed_data(b"POST / HTTP/1.1\\r\\n\\r\\n")
    assert parser.get_method() == b"POST"
"""


def command(pyz: Path, python: str = sys.executable) -> list[str]:
    """Loads them in a Python that sees the standard library and the file, and nothing that was installed."""
    return [python, "-I", "-S", "-c", LOAD, str(pyz)]


def loading(pyz: Path, home: Path, environ: Mapping[str, str] | None = None, python: str = sys.executable) -> list[str]:
    """What loading them says: which serve in the last line, and before it why not others."""
    given = {"HOME": str(home), **(environ or {})}
    done = subprocess.run(command(pyz, python), env=given, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def unpacked(home: Path) -> list[Path]:
    """Every file in the cache, which has one folder."""
    [folder] = (home / ".cache" / "stoker").iterdir()
    return sorted(folder.iterdir())


def test_in_an_empty_home_they_are_unpacked_and_used(pyz: Path, tmp_path: Path) -> None:
    assert loading(pyz, tmp_path) == ["httptools msgspec"]
    with ZipFile(pyz) as archive:
        modules = json.loads(archive.read("onefile.json"))["native"][ABI]
    assert [file.name for file in unpacked(tmp_path)] == sorted(name.replace("/", ".") for name in modules)


def test_the_next_start_finds_them_there(pyz: Path, tmp_path: Path) -> None:
    loading(pyz, tmp_path)
    before = [(file, file.stat().st_ino) for file in unpacked(tmp_path)]
    assert loading(pyz, tmp_path) == ["httptools msgspec"]
    assert [(file, file.stat().st_ino) for file in unpacked(tmp_path)] == before


def test_starts_at_the_same_time_do_not_disturb_each_other(pyz: Path, tmp_path: Path) -> None:
    runs = [
        subprocess.Popen(command(pyz), env={"HOME": str(tmp_path)}, stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    assert [run.communicate()[0] for run in runs] == ["httptools msgspec\n"] * 6
    assert not [file for file in unpacked(tmp_path) if ABI not in file.name]


def test_what_was_tampered_with_is_unpacked_again(pyz: Path, tmp_path: Path) -> None:
    loading(pyz, tmp_path)
    whole = {file: file.read_bytes() for file in unpacked(tmp_path)}
    for file in whole:
        file.write_bytes(b"something else")
    assert loading(pyz, tmp_path) == ["httptools msgspec"]
    assert {file: file.read_bytes() for file in unpacked(tmp_path)} == whole


def test_a_cache_that_others_can_write_is_not_used(pyz: Path, tmp_path: Path) -> None:
    loading(pyz, tmp_path)
    cache = tmp_path / ".cache" / "stoker"
    cache.chmod(0o777)
    why, serving = loading(pyz, tmp_path)
    assert serving == "h11 json"
    assert f"others can change what is in {cache}" in why


def test_a_cache_that_cannot_be_written_is_done_without(pyz: Path, tmp_path: Path) -> None:
    cache = tmp_path / "a file"
    cache.touch()
    why, serving = loading(pyz, tmp_path, {"XDG_CACHE_HOME": str(cache)})
    assert serving == "h11 json"
    assert why.startswith("slower without httptools and msgspec: ")
    assert str(cache) in why
    assert "XDG_CACHE_HOME" in why


def test_libraries_that_do_not_load_are_done_without(pyz: Path, tmp_path: Path) -> None:
    """As where the cache's file system has no executable files, or the C library is older than they need."""
    broken = tmp_path / "broken.pyz"
    with ZipFile(pyz) as archive, ZipFile(broken, "w") as copy:
        manifest = json.loads(archive.read("onefile.json"))
        for name in archive.namelist():
            module = name.removeprefix(f"native/{ABI}/")
            if module in manifest["native"][ABI]:
                manifest["native"][ABI][module] = blake2b(b"no library").hexdigest()
                copy.writestr(name, b"no library")
            elif name != "onefile.json":
                copy.writestr(name, archive.read(name))
        copy.writestr("onefile.json", json.dumps(manifest))
    why, serving = loading(broken, tmp_path)
    assert serving == "h11 json"
    assert why.startswith("slower without httptools and msgspec: ")
    assert all(str(file.parent) in why for file in unpacked(tmp_path))


def test_they_can_be_switched_off(pyz: Path, tmp_path: Path) -> None:
    assert loading(pyz, tmp_path, {"STOKER_PURE_PYTHON": "1"}) == ["h11 json"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("minor", [12, 13])
def test_another_python_does_without(pyz: Path, tmp_path: Path, minor: int) -> None:
    python = find_python(minor)
    if python is None or f"cpython-3{minor}" in ABI:
        pytest.skip(f"there is no other Python 3.{minor} here")
    why, serving = loading(pyz, tmp_path, python=python)
    assert serving == "h11 json"
    assert f"cpython-3{minor}" in why
    assert why.endswith(f"the file holds those for {ABI}")


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["config", "schema"], ["runtime", "list"]])
def test_what_does_not_serve_does_not_unpack(pyz: Path, tmp_path: Path, arguments: list[str]) -> None:
    environ = {"HOME": str(tmp_path), "PATH": os.defpath}
    done = subprocess.run([sys.executable, pyz, *arguments], env=environ, capture_output=True, check=False)
    assert done.returncode == 0
    assert not (tmp_path / ".cache" / "stoker").exists()
