"""Which pip installs, and what it says: its lines read as progress, its failures as causes with a remedy."""

from __future__ import annotations

import importlib.resources
import os
import re
from collections.abc import Callable, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

import attrs

from stoker.environments.child import Ended
from stoker.errors import EnvironmentFault

Run = Callable[[Sequence[str]], Ended]

TARGETS_ANOTHER_PYTHON = (22, 3)  # the first pip with --python
SHOWS_RAW_PROGRESS = (24, 1)  # the first one with --progress-bar raw
RIDES_ALONG = "_pip"  # a folder in this package, where a build of the one file puts a wheel of pip
COPY = "pip.whl"  # of that wheel, in the environment, for as long as it is built
MODULE = ("-P", "-m")  # whatever lies in the current folder must not pass for a module of pip's
# What in a user's environment would turn an installation away from the one we mean.
MISLEADING = frozenset(
    {"PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "VIRTUAL_ENV", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON"}
    | {"PIP_REQUIRE_VIRTUALENV", "PIP_DRY_RUN", "PIP_QUIET", "PIP_REPORT", "PIP_PROGRESS_BAR", "PIP_NO_DEPS"}
)
DECIDED = {
    "PIP_NO_INPUT": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_USER": "0",
    "PYTHONNOUSERSITE": "1",
    "PYTHONUNBUFFERED": "1",
}

# Some packages run make with -j and no number: a compiler for every file at once, which takes 10 GB for llama.cpp.
CONSIDERATE = {"MAKEFLAGS": f"-l{(os.cpu_count() or 1) + 1}"}


@attrs.frozen
class Pip:
    """A pip that installs into one environment: the words before its subcommand, and what it can do."""

    command: tuple[str, ...]
    raw_progress: bool

    def install(self, *words: str) -> tuple[str, ...]:
        """The command that installs ``words``."""
        progress = ("--progress-bar", "raw") if self.raw_progress else ()
        return (*self.command, "install", *progress, *words)

    def uninstall(self, *names: str) -> tuple[str, ...]:
        """The command that removes packages; names of packages that aren't there are passed over."""
        return (*self.command, "uninstall", "--yes", *names)


Way = Callable[[Path, Path, Run], Pip | None]


def of_the_interpreter(python: Path, env_python: Path, run: Run) -> Pip | None:
    """The pip of the Python that the environment was made with, told to install into the environment."""
    version = _version((str(python), "-P", "-c", "import pip; print('pip', pip.__version__)"), run)
    if version is None or version < TARGETS_ANOTHER_PYTHON:
        return None
    return Pip((str(python), *MODULE, "pip", "--python", str(env_python)), version >= SHOWS_RAW_PROGRESS)


def by_ensurepip(python: Path, env_python: Path, run: Run) -> Pip | None:
    """The pip that Python brings along; Debian takes it out of python3 and puts it into python3-venv."""
    if run((str(env_python), *MODULE, "ensurepip", "--upgrade")).status:
        return None
    return _whose(str(env_python), *MODULE, "pip", run=run)


def riding_along(python: Path, env_python: Path, run: Run, package: Traversable | None = None) -> Pip | None:
    """A wheel of pip that came with us. It runs as it is, out of the wheel."""
    folder = (package or importlib.resources.files("stoker.environments")) / RIDES_ALONG
    for wheel in folder.iterdir() if folder.is_dir() else ():
        copy = env_python.parent.parent / COPY
        copy.write_bytes(wheel.read_bytes())
        return _whose(str(env_python), str(copy / "pip"), run=run)
    return None


WAYS: Sequence[Way] = (of_the_interpreter, by_ensurepip, riding_along)


def locate(python: Path, env_python: Path, run: Run, ways: Sequence[Way] = WAYS) -> Pip:
    """The first pip there is. Raises :class:`EnvironmentFault` where there is none."""
    for way in ways:
        if (pip := way(python, env_python, run)) is not None:
            return pip
    raise EnvironmentFault(
        f"{python} has no pip, and no ensurepip to get one from; install pip for it "
        "(on Debian and Ubuntu: apt install python3-venv), then try again"
    )


def _whose(*command: str, run: Run) -> Pip | None:
    version = _version((*command, "--version"), run)
    return None if version is None else Pip(command, version >= SHOWS_RAW_PROGRESS)


def _version(command: Sequence[str], run: Run) -> tuple[int, int] | None:
    ended = run(command)
    for line in ended.lines if ended.status == 0 else ():
        if found := re.match(r"pip (\d+)\.(\d+)", line):
            return int(found[1]), int(found[2])
    return None


def clean(environ: Mapping[str, str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The environment for pip: the user's, with ``wanted`` where the user has not set it, and nothing misleading."""
    kept = {name: value for name, value in environ.items() if name not in MISLEADING}
    return {**CONSIDERATE, **wanted, **kept, **DECIDED}


_SPOKEN = (
    (re.compile(r"Collecting (\S+)"), "collecting {}"),
    (re.compile(r"\s*Downloading (.+)"), "downloading {}"),
    (re.compile(r"\s*Using cached (.+)"), "using cached {}"),
    (re.compile(r"Processing (?:\S*/)?(\S+)"), "using {}"),
    (re.compile(r"Requirement already satisfied: (\S+)"), "already there: {}"),
    (re.compile(r"\s*(?:Installing|Getting|Preparing) (build dependencies|requirements|metadata)"), "preparing {}"),
    (re.compile(r"\s*Building wheels? for ([^(:]+)"), "building {} (this can take minutes)"),
    (re.compile(r"Installing collected packages: (.+)"), "installing {}"),
    (re.compile(r"Successfully (.+)"), "{}"),
    (re.compile(r"(?:Found existing installation|Uninstalling): (.+)"), "removing {}"),
    (re.compile(r"WARNING: (Retrying) .*"), "the package index does not answer; trying again"),
)
_WHEEL = re.compile(r"([^-\s]+-[^-\s]+)-\S+\.whl\b")
_RAW = re.compile(r"Progress (\d+) of (\d+)")
_LONGEST = 120


def spoken(line: str) -> str | None:
    """What a line of pip tells somebody who waits; None where that is nothing."""
    for pattern, text in _SPOKEN:
        if found := pattern.match(line):
            said = _WHEEL.sub(r"\1", text.format(found[1].strip()))
            return said if len(said) <= _LONGEST else said[: _LONGEST - 1] + "…"
    return None


def fraction(line: str) -> float | None:
    """How much of the current download a raw progress line says is done."""
    found = _RAW.match(line)
    return int(found[1]) / int(found[2]) if found and int(found[2]) else None


_UNREACHABLE = (
    r"Temporary failure in name resolution|Name or service not known|NewConnectionError|ConnectTimeoutError"
    r"|ReadTimeoutError|Connection refused|ProxyError|Network is unreachable|after connection broken"
)
_CAUSES = (
    (r"No space left on device|Errno 28\b", "the disk is full; make room in {folder}"),
    (
        _UNREACHABLE,
        "the package index can't be reached; check the network, the proxy (HTTPS_PROXY) and pip's index-url",
    ),
    (r"CERTIFICATE_VERIFY_FAILED|SSLError", "the package index's certificate isn't trusted; see pip's cert setting"),
    (
        r"No matching distribution found for \S+\+cpu\b",
        "such builds are in a package index of PyTorch's own, for the CPU: name it in PIP_EXTRA_INDEX_URL",
    ),
    (
        r"No matching distribution found|Could not find a version that satisfies",
        "the package index has nothing that fits {python} and this platform; try another Python, 3.11 to 3.13",
    ),
    (r"THESE PACKAGES DO NOT MATCH THE HASHES", "a download was damaged; clear pip's cache (pip cache purge)"),
    (r"Permission denied|Errno 13\b", "files in {folder} belong to somebody else; see who owns them"),
    (r"Failed building wheel|subprocess-exited-with-error", "building failed; the log says which tool is missing"),
)


def remedy(lines: Sequence[str], folder: Path, python: str) -> str:
    """What to do about a failure whose last lines these are. ``python`` is what the environment is made of."""
    text = "\n".join(lines)
    for pattern, advice in _CAUSES:
        if re.search(pattern, text):
            return advice.format(folder=folder, python=python)
    return "read the log"
