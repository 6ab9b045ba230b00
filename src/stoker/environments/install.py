"""Builds an environment, or completes one that an earlier installation left half-built."""

from __future__ import annotations

import errno
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import IO

import attrs

from stoker.environments import child, leftovers, lock, manage, pip
from stoker.environments.place import Place, family, fingerprint, write_durably
from stoker.environments.records import Installed, Progress
from stoker.errors import EnvironmentFault
from stoker.home import Home
from stoker.model import EnvironmentSpec

Report = Callable[[Progress], None]

SHOWN_LINES = 12
DESCRIBE = (
    "import platform, sys, sysconfig; "
    "print('python', sys.implementation.cache_tag, sysconfig.get_platform(), platform.python_version(), sys.prefix)"
)


def install(
    home: Home,
    name: str,
    spec: EnvironmentSpec,
    report: Report,
    *,
    python: Path | None = None,
    wait: bool = True,
    environ: Mapping[str, str] | None = None,
) -> Installed:
    """Make the environment of runtime ``name`` complete, and return it. Blocks for as long as that takes.

    ``python`` is the interpreter to build with (default: the running one). Where another process installs the same
    runtime it is waited for, or refused with ``wait`` false. ``report`` hears every step, and at least once a second
    while a command runs; whatever it raises, and Ctrl-C, ends the installation without leaving a process behind. The
    half-built environment stays, is never used, and the next installation goes on from there.

    Raises :class:`EnvironmentFault` with the last lines of what failed and what to do about it.
    """
    folder = family(home, name)
    base = python or Path(sys.executable)
    surroundings = pip.clean(os.environ if environ is None else environ, spec.env)
    try:
        home.path.mkdir(parents=True, exist_ok=True, mode=0o700)  # whoever is first here makes it the owner's alone
        with lock.held(manage.lock_of(home, name), name, report, wait=wait) as held:
            if python is None and (there := manage.find(home, name, spec)):
                return there
            home.logs.mkdir(parents=True, exist_ok=True)
            with (home.logs / f"runtime-{name}.log").open("w", encoding="utf-8") as log:
                tools = _Tools(name, folder, log, surroundings, held, report)
                return _build(home, folder, spec, base, tools)
    except KeyboardInterrupt:
        report(Progress("interrupted", f"interrupted; `stoker runtime install {name}` goes on from here"))
        raise
    except OSError as error:
        raise EnvironmentFault(f"installing runtime {name!r} failed: {_explained(error, home)}") from error


@attrs.frozen
class _Interpreter:
    """What an interpreter says of itself: what an environment must agree on with it, its version, where it lives."""

    fits: str
    version: str
    prefix: Path


@attrs.define
class _Tools:
    """Runs the commands of one installation: heard by the log and by ``report``, and ended with it."""

    name: str
    folder: Path
    log: IO[str]
    environ: Mapping[str, str]
    lock: int
    report: Report
    python: str = "this Python"
    _said: Progress = attrs.field(factory=lambda: Progress("create", ""))

    def say(self, step: str, text: str, fraction: float | None = None) -> None:
        self._said = Progress(step, text, fraction)
        self.report(self._said)

    def run(self, step: str, argv: Sequence[str]) -> child.Ended:
        """Run a command to its end, however that is."""
        self.log.write(f"$ {shlex.join(argv)}\n")
        self.log.flush()
        return child.run(argv, environ=self.environ, inherit=(self.lock,), hear=lambda line: self._hear(step, line))

    def must(self, step: str, argv: Sequence[str]) -> child.Ended:
        """Run a command that has to succeed. Raises :class:`EnvironmentFault` when it does not."""
        ended = self.run(step, argv)
        if ended.status:
            raise self.fault(step, ended)
        return ended

    def fault(self, step: str, ended: child.Ended) -> EnvironmentFault:
        how = f"was killed by signal {-ended.status}" if ended.status < 0 else f"ended with exit code {ended.status}"
        shown = "".join(f"\n  {line}" for line in ended.lines[-SHOWN_LINES:])
        advice = pip.remedy(ended.lines, self.folder, self.python)
        return EnvironmentFault(
            f"installing runtime {self.name!r} failed at step {step!r}, whose command {how}:{shown}\n"
            f"{advice}; the whole log is {self.log.name}; to go on from here: stoker runtime install {self.name}"
        )

    def _hear(self, step: str, line: str | None) -> None:
        if line is None:
            self.report(self._said)
        elif (done := pip.fraction(line)) is not None:
            self.say(step, self._said.text, done)
        else:
            self.log.write(f"{line}\n")
            self.log.flush()
            if text := pip.spoken(line):
                self.say(step, text)


def _build(home: Home, folder: Path, spec: EnvironmentSpec, base: Path, tools: _Tools) -> Installed:
    interpreter = _ask(base, tools)
    if interpreter is None:
        raise EnvironmentFault(
            f"{base} is no Python 3.11 or newer that runs; name another to build runtime {tools.name!r} with"
        )
    tools.python = f"Python {interpreter.version}"
    place = Place(tools.name, folder / fingerprint(spec, interpreter.fits))
    if there := place.complete(spec):
        return there
    if _can_go_on(place, interpreter, tools):
        _forget_unfinished(place, tools)
    else:
        _create(place, base, tools)
    _install_packages(place, spec, base, tools)
    _write_files(place, spec, tools)
    _prepare(place, spec, tools)
    installed = _declare(place, spec, interpreter.version, tools)
    manage.retire_others(home, keep=place)
    tools.say("done", f"runtime {tools.name!r} is installed", 1.0)
    return installed


def _ask(python: Path, tools: _Tools) -> _Interpreter | None:
    """What ``python`` says of itself; None for what does not run."""
    try:
        ended = tools.run("python", (str(python), "-P", "-c", DESCRIBE))
    except OSError:
        return None
    for line in ended.lines:
        if found := re.fullmatch(r"python (\S+ \S+) (\S+) (.+)", line):
            return _Interpreter(found[1], found[2], Path(found[3]))
    return None


def _can_go_on(place: Place, interpreter: _Interpreter, tools: _Tools) -> bool:
    """Whether there is an environment that works, and that really is one: else pip would install who knows where."""
    if not place.python.is_file():
        return False
    there = _ask(place.python, tools)
    return there is not None and there.fits == interpreter.fits and there.prefix.samefile(place.folder)


def _forget_unfinished(place: Place, tools: _Tools) -> None:
    tools.say("create", "going on with an interrupted installation")
    for site_packages in place.site_packages:
        for package in leftovers.forget_unfinished(site_packages):
            tools.log.write(f"{package} was cut short; it will be installed again\n")


def _create(place: Place, base: Path, tools: _Tools) -> None:
    if place.folder.exists():
        tools.say("create", "what an earlier installation left is broken; starting over")
        place.remove()
    tools.say("create", f"creating a virtual environment with {base}")
    tools.must("create", (str(base), *pip.MODULE, "venv", "--without-pip", str(place.folder)))


def _install_packages(place: Place, spec: EnvironmentSpec, base: Path, tools: _Tools) -> None:
    if not (spec.requirements or spec.bare_requirements or spec.remove):
        return
    installer = pip.locate(base, place.python, lambda argv: tools.run("pip", argv))
    if spec.requirements:
        tools.say("install", f"installing {', '.join(spec.requirements)}")
        tools.must("install", installer.install(*spec.requirements))
    if spec.bare_requirements:
        tools.say("install", f"installing {', '.join(spec.bare_requirements)}")
        tools.must("install", installer.install("--no-deps", *spec.bare_requirements))
    if spec.remove:
        tools.say("remove", f"removing {', '.join(spec.remove)}")
        tools.must("remove", installer.uninstall(*spec.remove))


def _write_files(place: Place, spec: EnvironmentSpec, tools: _Tools) -> None:
    place.share.mkdir(parents=True, exist_ok=True)
    for name, text in spec.files.items():
        tools.say("files", f"writing {name}")
        write_durably(place.share / name, text)


def _prepare(place: Place, spec: EnvironmentSpec, tools: _Tools) -> None:
    if not spec.prepare:
        return
    tools.say("prepare", "preparing")
    values = {"{python}": str(place.python), "{share}": str(place.share)}
    pattern = re.compile("|".join(re.escape(key) for key in values))
    argv = [pattern.sub(lambda found: values[found[0]], word) for word in spec.prepare]
    tools.must("prepare", argv)


def _declare(place: Place, spec: EnvironmentSpec, version: str, tools: _Tools) -> Installed:
    (place.folder / pip.COPY).unlink(missing_ok=True)
    tools.say("finish", "writing everything to the disk")
    os.sync()
    packages = distributions(path=[str(folder) for folder in place.site_packages])
    installed = Installed(
        name=tools.name,
        folder=place.folder,
        python_version=version,
        versions={package.name.lower(): package.version for package in packages},
        installed_at=time.time(),
        size_bytes=place.size_bytes(),
    )
    place.write(installed, spec)
    return installed


def _explained(error: OSError, home: Home) -> str:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        free = shutil.disk_usage(home.path).free // 2**20 if home.path.exists() else 0
        return f"the disk is full ({free} MiB free); make room in {home.runtimes}, then try again"
    return f"{error}; see that {home.path} is yours to write to"
