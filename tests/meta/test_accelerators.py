"""Native modules out of an archive: unpacked once, used only as they were packed, and never needed."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
import time
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile
from zipimport import zipimporter

import attrs
import pytest

from stoker.accelerators import ABI, OLDEST, UNUSED_SECONDS, Accelerators, cache_folder, load, provide, unpack
from stoker.errors import StokerError

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = {f"swift/deep/_core.{ABI}.so": b"a library, say" * 50_000, f"fleet/_fast.{ABI}.so": b"another"}


@attrs.frozen
class Packed:
    """A small archive like the one file, and an empty cache."""

    archive: zipimporter
    modules: Mapping[str, str]
    cache: Path

    def unpack(self) -> Mapping[str, Path]:
        return unpack(self.archive, self.modules, self.cache)

    def are_whole(self, files: Mapping[str, Path]) -> bool:
        return [file.read_bytes() for file in files.values()] == list(LIBRARIES.values())


def pack(file: Path, libraries: Mapping[str, bytes], abi: str = ABI) -> Mapping[str, str]:
    modules = {name: blake2b(data).hexdigest() for name, data in libraries.items()}
    with ZipFile(file, "w") as archive:
        for name, data in libraries.items():
            archive.writestr(f"native/{abi}/{name}", data)
        archive.writestr("onefile.json", json.dumps({"native": {abi: modules} if modules else {}}))
    return modules


@pytest.fixture
def packed(tmp_path: Path) -> Packed:
    modules = pack(tmp_path / "one.pyz", LIBRARIES)
    return Packed(zipimporter(str(tmp_path / "one.pyz")), modules, tmp_path / "cache" / "stoker")


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


# Unpacking


def test_the_first_start_unpacks_into_folders_of_its_own(packed: Packed) -> None:
    files = packed.unpack()
    assert list(files) == ["swift.deep._core", "fleet._fast"]
    assert packed.are_whole(files)
    [folder] = packed.cache.iterdir()
    assert set(folder.iterdir()) == set(files.values())
    assert (mode(packed.cache), mode(folder)) == (0o700, 0o700)
    assert {mode(file) for file in files.values()} == {0o600}


def test_later_starts_take_what_is_there(packed: Packed) -> None:
    before = {file: file.stat().st_ino for file in packed.unpack().values()}
    assert {file: file.stat().st_ino for file in packed.unpack().values()} == before


def test_another_build_has_another_folder(packed: Packed, tmp_path: Path) -> None:
    first = packed.unpack()
    other = pack(tmp_path / "other.pyz", {name: data + b"!" for name, data in LIBRARIES.items()})
    second = unpack(zipimporter(str(tmp_path / "other.pyz")), other, packed.cache)
    assert packed.are_whole(first)
    assert not set(first.values()) & set(second.values())


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def replace(file: Path) -> None:
    file.write_bytes(b"#" * file.stat().st_size)


def link(file: Path) -> None:
    file.rename(file.parent.parent / "elsewhere")
    file.symlink_to(file.parent.parent / "elsewhere")


def open_to_others(file: Path) -> None:
    file.chmod(0o666)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("spoil", [Path.unlink, empty, cut, replace, link, open_to_others, pipe])
def test_a_file_that_is_not_as_it_was_packed_is_unpacked_again(packed: Packed, spoil: Callable[[Path], None]) -> None:
    files = packed.unpack()
    for file in files.values():
        spoil(file)
        assert packed.unpack() == files
        assert packed.are_whole(files)
        assert not file.is_symlink()
        assert mode(file) == 0o600


def test_what_could_not_be_written_leaves_nothing_behind(packed: Packed) -> None:
    file = packed.unpack()["fleet._fast"]
    file.unlink()
    file.mkdir()
    with pytest.raises(IsADirectoryError):
        packed.unpack()
    assert len(list(file.parent.iterdir())) == len(LIBRARIES)


def test_any_number_of_first_starts_at_once_find_whole_files(packed: Packed, tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def start(cache: Path) -> bool:
        together.wait()
        return packed.are_whole(unpack(packed.archive, packed.modules, cache))

    with ThreadPoolExecutor(8) as threads:
        for turn in range(20):
            cache = tmp_path / f"cache {turn}"
            assert all(threads.map(start, [cache] * 8))
            [folder] = cache.iterdir()
            assert len(list(folder.iterdir())) == len(LIBRARIES)


def test_what_other_builds_left_and_nobody_used_for_long_is_removed(packed: Packed) -> None:
    packed.cache.mkdir(parents=True, mode=0o700)
    long_ago = time.time() - UNUSED_SECONDS - 60
    for name in ("native-old", "native-recent", "somebody-else's"):
        (packed.cache / name).mkdir()
        (packed.cache / name / "file").touch()
    for name in ("native-old", "somebody-else's"):
        os.utime(packed.cache / name, (long_ago, long_ago))
    [mine] = {file.parent.name for file in packed.unpack().values()}
    assert {folder.name for folder in packed.cache.iterdir()} == {"native-recent", "somebody-else's", mine}


def test_using_a_folder_keeps_it(packed: Packed) -> None:
    folder = packed.unpack()["fleet._fast"].parent
    os.utime(folder, (0, 0))
    packed.unpack()
    assert folder.stat().st_mtime > time.time() - UNUSED_SECONDS


# Whose folder it is


@pytest.mark.parametrize("bits", [0o720, 0o702, 0o777])
@pytest.mark.parametrize("above", [False, True])
def test_a_folder_that_others_can_write_is_refused_with_the_remedy(packed: Packed, bits: int, above: bool) -> None:
    folder = packed.unpack()["fleet._fast"].parent
    refused = folder.parent if above else folder
    refused.chmod(bits)
    with pytest.raises(StokerError, match=f"others can change what is in {refused};.*chmod 700.*XDG_CACHE_HOME"):
        packed.unpack()
    refused.chmod(0o700)
    assert packed.are_whole(packed.unpack())


def test_a_folder_of_another_user_is_refused(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    packed.unpack()
    monkeypatch.setattr(os, "geteuid", lambda: packed.cache.stat().st_uid + 1)
    with pytest.raises(StokerError, match=f"others can change what is in {packed.cache}"):
        packed.unpack()


def test_a_cache_that_lives_elsewhere_behind_a_link_is_used(packed: Packed, tmp_path: Path) -> None:
    (tmp_path / "big disk").mkdir(mode=0o700)
    packed.cache.parent.mkdir()
    packed.cache.symlink_to(tmp_path / "big disk")
    assert {file.parent.parent for file in packed.unpack().values()} == {tmp_path / "big disk"}


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HOME": "/home/me"}, "/home/me/.cache/stoker"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "/big/cache"}, "/big/cache/stoker"),
        ({"HOME": "/home/me", "XDG_CACHE_HOME": "relative/is/to/be/ignored"}, "/home/me/.cache/stoker"),
    ],
)
def test_where_the_cache_is(environ: Mapping[str, str], folder: str) -> None:
    assert cache_folder(environ) == Path(folder)


def test_without_a_home_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)  # whom the system doesn't know, as in some containers
    with pytest.raises(StokerError, match="XDG_CACHE_HOME"):
        cache_folder({})


# What an archive has


@pytest.mark.parametrize(("libraries", "has"), [({"swift/_core.so": b""}, "those for cpython-20-abacus"), ({}, "none")])
def test_an_archive_without_modules_for_this_python_says_so(
    tmp_path: Path, libraries: Mapping[str, bytes], has: str
) -> None:
    pack(tmp_path / "other.pyz", libraries, abi="cpython-20-abacus")
    with pytest.raises(StokerError, match=f"this Python \\({ABI}\\) needs .* the file holds {has}$"):
        provide(zipimporter(str(tmp_path / "other.pyz")), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_its_packages_come_before_installed_ones(packed: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    for _ in range(2):
        provide(packed.archive, packed.cache)
    assert [path for path in sys.path if "one.pyz" in path] == sys.path[:1]
    spec = sys.meta_path[-1].find_spec("fleet._fast", None)
    assert spec is not None
    assert spec.origin == str(packed.unpack()["fleet._fast"])


# What is loaded


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, ModuleType]:
    """Stand-ins for both, just new enough."""
    modules = {name: ModuleType(name) for name in OLDEST}
    for name, module in modules.items():
        vars(module)["__version__"] = ".".join(map(str, OLDEST[name]))
        monkeypatch.setitem(sys.modules, name, module)
    return modules


def test_what_is_installed_is_used(
    installed: Mapping[str, ModuleType], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = load({}, tmp_path / "cache")
    assert (found.httptools, found.msgspec) == (installed["httptools"], installed["msgspec"])
    assert (found.parser, found.reader) == ("httptools", "msgspec")
    assert not caplog.records
    assert not (tmp_path / "cache").exists()  # this is no archive


@pytest.mark.parametrize(
    ("missing", "parser", "reader"), [("httptools", "h11", "msgspec"), ("msgspec", "httptools", "json")]
)
@pytest.mark.usefixtures("installed")
def test_what_is_not_installed_is_said_in_a_line_with_the_remedy(
    missing: str, parser: str, reader: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    found = load({})
    assert (found.parser, found.reader) == (parser, reader)
    [record] = caplog.records
    assert re.match(f"slower without {missing}: .*{missing}.*'\\.\\[fast\\]'", record.getMessage())


def test_what_is_too_old_is_not_used(installed: Mapping[str, ModuleType], caplog: pytest.LogCaptureFixture) -> None:
    vars(installed["httptools"])["__version__"] = "0.6.3"
    assert load({}).parser == "h11"
    [record] = caplog.records
    assert "httptools 0.6.3 is too old, install 0.6.4 or newer" in record.getMessage()


@pytest.mark.parametrize("value", ["1", "true", "Yes", "on"])
@pytest.mark.usefixtures("installed")
def test_they_can_be_switched_off(value: str) -> None:
    assert load({"STOKER_PURE_PYTHON": value}) == Accelerators()
    assert (Accelerators().parser, Accelerators().reader) == ("h11", "json")


@pytest.mark.parametrize("value", ["", "0", "False", "no", "off"])
@pytest.mark.usefixtures("installed")
def test_saying_no_to_switching_them_off_leaves_them_on(value: str) -> None:
    assert load({"STOKER_PURE_PYTHON": value}).parser == "httptools"


def test_the_oldest_versions_are_those_of_the_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = {f"{name}>={'.'.join(map(str, version))}" for name, version in OLDEST.items()}
    assert set(project["optional-dependencies"]["fast"]) == oldest
