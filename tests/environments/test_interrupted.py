"""An installation can be killed, cancelled, interrupted or doubled; what is half-built is never used, and goes on."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from stoker import environments
from stoker.environments import Installed, Progress
from stoker.errors import EnvironmentFault
from stoker.home import Home
from stoker.model import EnvironmentSpec

Install = Callable[..., Installed]

# An installer of its own, to be killed: it prints what it reports.
INSTALLER = """
import sys
from pathlib import Path
from stoker import environments
from stoker.home import Home
from stoker.model import EnvironmentSpec

def show(progress):
    print(f"{progress.step}: {progress.text}", flush=True)

spec = EnvironmentSpec(requirements=("tiny", "slow"))
try:
    print(environments.install(Home(Path(sys.argv[1])), "rt", spec, show).python)
except KeyboardInterrupt:
    sys.exit(130)
"""
SPEC = EnvironmentSpec(requirements=("tiny", "slow"))
# Builds its wheel when it is let: pip stands still in the middle of its work.
BACKEND = """
import os, pathlib, shutil

HERE = pathlib.Path(__file__).parent
GATE = pathlib.Path({gate!r})

def build_wheel(folder, config_settings=None, metadata_directory=None):
    if GATE.exists():
        GATE.read_text()
    shutil.copy({wheel!r}, folder)
    return os.path.basename({wheel!r})
"""


@attrs.frozen
class Gate:
    """A named pipe. Who builds the package ``slow`` waits before it, until it is opened or taken away."""

    path: Path

    def open(self) -> None:
        """Let whoever waits go on. Returns when somebody did."""
        self.path.write_text("")

    def remove(self) -> None:
        """From now on nobody has to wait."""
        self.path.unlink()


@pytest.fixture
def gate(tmp_path: Path, wheels: Path, write: Callable[..., None]) -> Gate:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    write(hidden, "slow", "1.0")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    source = tmp_path / "slow-1.0"
    source.mkdir()
    (source / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: slow\nVersion: 1.0\n")
    project = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    (source / "pyproject.toml").write_text(project)
    backend = BACKEND.format(gate=str(gate), wheel=str(hidden / "slow-1.0-py3-none-any.whl"))
    (source / "backend.py").write_text(backend)
    subprocess.run(["tar", "-czf", wheels / "slow-1.0.tar.gz", "-C", tmp_path, "slow-1.0"], check=True)
    return Gate(gate)


@pytest.fixture
def installer(home: Home, gate: Gate, environ: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Another process, in the middle of installing."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    command = [sys.executable, "-c", INSTALLER, str(home.path)]
    env = {**environ, "PYTHONPATH": path}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        until(process.stdout, "preparing metadata")
        yield process
        pips = [] if gone(process.pid) else children(process.pid)
        process.kill()
        for pip in pips:  # each leads a session of its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pip, signal.SIGKILL)


def until(output: Any, text: str) -> str:
    for line in output:
        if text in line:
            return str(line)
    raise AssertionError(f"it ended without saying {text!r}")


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_after_a_kill_the_next_one_waits_for_the_orphan_and_completes_it(
    home: Home, install: Install, installer: subprocess.Popen[str], gate: Gate
) -> None:
    heard: list[str] = []

    def listen(progress: Progress) -> None:
        if progress.step == "wait" and "is gone, but its pip is still working" in progress.text and not heard:
            gate.open()
            gate.remove()
        heard.append(progress.text)

    installer.kill()
    installer.wait()
    assert environments.find(home, "rt", SPEC) is None
    installed = install(SPEC, report=listen)
    assert str(installer.pid) in heard[0]
    assert "going on with an interrupted installation" in heard
    assert installed.versions == {"tiny": "1.0", "slow": "1.0"}


def test_a_second_installer_is_told_who_is_at_it(install: Install, installer: subprocess.Popen[str]) -> None:
    with pytest.raises(EnvironmentFault, match=f"process {installer.pid} is at runtime 'rt' since"):
        install(SPEC, wait=False)


def test_nothing_is_removed_under_an_installers_hands(home: Home, installer: subprocess.Popen[str]) -> None:
    with pytest.raises(EnvironmentFault, match=f"process {installer.pid} is at runtime 'rt' since"):
        environments.remove(home, "rt")


def test_a_second_installer_waits_and_takes_what_the_first_made(
    install: Install, installer: subprocess.Popen[str], gate: Gate
) -> None:
    steps: list[str] = []

    def listen(progress: Progress) -> None:
        if not steps:
            gate.open()
            gate.remove()
        steps.append(progress.step)

    installed = install(SPEC, report=listen)
    assert set(steps) == {"wait"}, "all was done by the other one"
    assert installer.stdout is not None
    assert installer.stdout.read().splitlines()[-1] == str(installed.python)


def test_ctrl_c_ends_pip_and_says_how_to_go_on(install: Install, installer: subprocess.Popen[str], gate: Gate) -> None:
    [pip] = children(installer.pid)
    installer.send_signal(signal.SIGINT)
    assert installer.stdout is not None
    assert "`stoker runtime install rt` goes on from here" in until(installer.stdout, "interrupted")
    assert installer.wait() == 130
    assert gone(pip)
    gate.remove()
    assert install(SPEC, wait=False).versions == {"tiny": "1.0", "slow": "1.0"}


class Cancelled(BaseException):
    """As a task that was cancelled would raise it."""


def test_whatever_the_listener_raises_ends_it(install: Install, gate: Gate, heard: Any) -> None:
    """Also while the command is silent: pip stands before the gate."""
    others = set(children(os.getpid()))  # what other tests share and end later
    pips: set[int] = set()

    def listen(progress: Progress) -> None:
        heard(progress)
        pips.update(set(children(os.getpid())) - others)
        if [step.text for step in heard.steps].count("preparing metadata") > 1:
            raise Cancelled

    with pytest.raises(Cancelled):
        install(SPEC, report=listen)
    assert pips
    assert all(gone(pid) for pid in pips)
    gate.remove()
    assert install(SPEC, wait=False).versions == {"tiny": "1.0", "slow": "1.0"}


@pytest.fixture
def half_built(install: Install) -> Installed:
    """An environment that lacks its record."""
    installed = install(EnvironmentSpec(requirements=("needy",)))
    (installed.folder / "complete.json").unlink()
    return installed


def again(install: Install) -> Installed:
    return install(EnvironmentSpec(requirements=("needy",)))


def packages(installed: Installed) -> Path:
    [folder] = installed.folder.glob("lib/python3*/site-packages")
    return folder


def test_a_package_that_was_cut_short_is_installed_again(install: Install, half_built: Installed, heard: Any) -> None:
    folder = packages(half_built)
    (folder / "tiny-1.0.dist-info" / "RECORD").unlink()
    (folder / "tiny.py").unlink()
    (folder / "needy.py").write_text("VERS")
    heard.steps.clear()
    again(install)
    assert (folder / "tiny.py").read_text() == "VERSION = '1.0'\n"
    assert (folder / "needy.py").read_text() == "VERSION = '2.0'\n"
    assert "going on with an interrupted installation" in heard.text


def test_a_package_that_is_whole_is_left_as_it_is(install: Install, half_built: Installed) -> None:
    before = (packages(half_built) / "needy.py").stat()
    again(install)
    assert (packages(half_built) / "needy.py").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("how", ["no interpreter", "not an environment", "interpreter of another"])
def test_a_broken_environment_is_built_anew(install: Install, half_built: Installed, heard: Any, how: str) -> None:
    (half_built.folder / "left-over").touch()
    if how == "not an environment":
        # Its python is only a link: without this file it would be the one it points to, and pip would install there.
        (half_built.folder / "pyvenv.cfg").unlink()
    else:
        half_built.python.unlink()
        half_built.python.symlink_to("/no/such/python" if how == "no interpreter" else "/bin/false")
    heard.steps.clear()
    rebuilt = again(install)
    assert rebuilt.folder == half_built.folder
    assert not (rebuilt.folder / "left-over").exists()
    assert "starting over" in heard.text
    assert rebuilt.versions == {"needy": "2.0", "tiny": "1.0"}


def test_a_complete_environment_whose_python_went_away_is_not_used(home: Home, install: Install) -> None:
    installed = again(install)
    installed.python.unlink()
    installed.python.symlink_to("/no/such/python")
    assert environments.find(home, "rt", EnvironmentSpec(requirements=("needy",))) is None
    assert again(install).versions == {"needy": "2.0", "tiny": "1.0"}
