"""Native modules that Stoker is faster with and works without: httptools frames HTTP, msgspec reads bodies.

Where they are installed they are imported, and that is all. The one file brings its own, and compiled modules can only
be loaded from a file of their own: they are unpacked once, into the user's cache. The Python half of their packages
stays in the archive, so nothing is run from the cache but what a digest in the archive speaks for.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from io import FileIO
from pathlib import Path
from types import MappingProxyType, ModuleType
from zipimport import zipimporter

import attrs

from stoker.errors import StokerError

log = logging.getLogger("stoker.accelerators")

OLDEST: Mapping[str, tuple[int, ...]] = MappingProxyType({"httptools": (0, 6, 4), "msgspec": (0, 19)})
ABI = EXTENSION_SUFFIXES[0].split(".")[1]  # names the version, the machine and the C library
NO = frozenset({"", "0", "false", "no", "off"})
UNUSED_SECONDS = 30 * 24 * 3600


@attrs.frozen
class Accelerators:
    """The modules that could be loaded; None for one that could not, whose work plain Python does."""

    httptools: ModuleType | None = None
    msgspec: ModuleType | None = None

    @property
    def parser(self) -> str:
        """What frames HTTP."""
        return "httptools" if self.httptools else "h11"

    @property
    def reader(self) -> str:
        """What reads JSON bodies."""
        return "msgspec" if self.msgspec else "json"


def load(
    environ: Mapping[str, str], cache: Path | None = None, *, warn: Callable[[str], None] = log.warning
) -> Accelerators:
    """Import what there is; in the one file, unpack it first. Never raises: what is missing ``warn`` is told, and why.

    ``STOKER_PURE_PYTHON=1`` in ``environ`` turns all of it off. ``cache`` is the folder to unpack into, else ``stoker``
    in the user's cache folder (XDG_CACHE_HOME, ``~/.cache``). Blocks: call it in a thread, or before the loop runs.
    """
    if environ.get("STOKER_PURE_PYTHON", "").lower() not in NO:
        log.info("STOKER_PURE_PYTHON is set: no native modules are used")
        return Accelerators()
    obstacle = _provide_from_the_one_file(environ, cache)
    found: dict[str, ModuleType] = {}
    missing: dict[str, str] = {}
    for name in OLDEST:
        try:
            found[name] = _import(name)
        except ImportError as error:
            missing[name] = str(error)
    if missing:
        warn(f"slower without {' and '.join(missing)}: {obstacle or '; '.join(missing.values())}")
    return Accelerators(**found)


def _import(name: str) -> ModuleType:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{error}; install it, in the clone: pip install '.[fast]'") from error
    version: str = getattr(module, "__version__", "0")
    if tuple(map(int, re.findall(r"\d+", version)[:3])) < OLDEST[name]:
        oldest = ".".join(map(str, OLDEST[name]))
        raise ImportError(f"{name} {version} is too old, install {oldest} or newer")
    return module


def _provide_from_the_one_file(environ: Mapping[str, str], cache: Path | None) -> str | None:
    """What stands in the way, if anything does."""
    archive: object = __spec__.loader
    if not isinstance(archive, zipimporter):
        return None
    try:
        provide(archive, cache or cache_folder(environ))
    except StokerError as error:
        return str(error)
    except (OSError, ImportError) as error:  # ImportError: zipimport's, where the archive is damaged
        return f"they can't be unpacked ({error}); name another cache in XDG_CACHE_HOME"
    return None


def cache_folder(environ: Mapping[str, str]) -> Path:
    """Where modules are unpacked. Raises :class:`StokerError` where the user has no home."""
    named = environ.get("XDG_CACHE_HOME", "")
    if Path(named).is_absolute():  # the others are to be ignored, says the XDG specification
        return Path(named) / "stoker"
    try:
        return Path(environ.get("HOME") or Path.home()).absolute() / ".cache" / "stoker"
    except RuntimeError as error:
        raise StokerError(f"there is no folder to unpack them into ({error}); name one in XDG_CACHE_HOME") from error


def provide(archive: zipimporter, cache: Path) -> None:
    """Make the native packages in ``archive`` importable, ahead of installed ones.

    Unpacks into ``cache`` whatever is not there as it should be. Any number of processes may do so at once. Raises
    :class:`StokerError` where the archive has none for this Python, or others could change what is in the folder, and
    OSError where it can't be written.
    """
    every = json.loads(archive.get_data("onefile.json"))["native"]
    modules: Mapping[str, str] | None = every.get(ABI)
    if modules is None:
        has = f"those for {', '.join(every)}" if every else "none"
        raise StokerError(f"this Python ({ABI}) needs native modules of its own, and the file holds {has}")
    packages = f"{archive.archive}/native/{ABI}"
    if packages in sys.path:
        return
    files = unpack(archive, modules, cache)
    sys.meta_path.append(Unpacked(files))
    sys.path.insert(0, packages)


def unpack(archive: zipimporter, modules: Mapping[str, str], cache: Path) -> Mapping[str, Path]:
    """The file of each module, by its dotted name. ``modules`` has their digests by their paths in the archive."""
    build = hashlib.blake2b(json.dumps(modules, sort_keys=True).encode(), digest_size=16).hexdigest()
    folder = _private(_private(cache).resolve() / f"native-{build}")
    os.utime(folder)
    files = {}
    for path, digest in modules.items():
        file = folder / path.replace("/", ".")
        if not _is_whole(file, digest):
            _write(file, archive.get_data(f"native/{ABI}/{path}"))
            _remove_unused(folder.parent)
        files[path.partition(".")[0].replace("/", ".")] = file
    return files


@attrs.frozen
class Unpacked(MetaPathFinder):
    """Finds compiled modules whose packages stand elsewhere."""

    files: Mapping[str, Path]

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's spec, if it is one of ours."""
        file = self.files.get(fullname)
        return None if file is None else spec_from_file_location(fullname, file)


def _ours(status: os.stat_result) -> bool:
    """Whether nobody but us (and root) can change it."""
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _private(folder: Path) -> Path:
    """``folder``, made if it is missing. Code is loaded from it, so nobody else may be able to put any there."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _ours(folder.stat()):
        raise StokerError(
            f"others can change what is in {folder}; make it yours alone (chown, chmod 700), remove it, "
            "or name another cache in XDG_CACHE_HOME"
        )
    return folder


def _is_whole(file: Path, digest: str) -> bool:
    try:
        with FileIO(file, opener=_as_it_stands) as there:
            return _ours(os.fstat(there.fileno())) and hashlib.blake2b(there.readall()).hexdigest() == digest
    except OSError:
        return False


def _as_it_stands(path: str, flags: int) -> int:
    """Opens no file behind a link, and waits for nobody at a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _write(file: Path, data: bytes) -> None:
    """Whoever looks at ``file`` finds all of it, or what was there before."""
    descriptor, beside = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.write(data)
        Path(beside).replace(file)
    except BaseException:
        Path(beside).unlink()
        raise


def _remove_unused(cache: Path) -> None:
    """Remove what other builds unpacked and did not use for long; one that still runs keeps what it has loaded."""
    long_ago = time.time() - UNUSED_SECONDS
    for folder in cache.glob("native-*"):
        with suppress(OSError):  # another start removes it too, or it is not ours
            if folder.lstat().st_mtime < long_ago:
                shutil.rmtree(folder)
