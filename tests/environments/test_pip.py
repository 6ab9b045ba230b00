"""Which pip is taken, how its lines are read, and what a failure is said to be."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from stoker.environments import pip
from stoker.environments.child import Ended
from stoker.errors import EnvironmentFault


def run(argv: Sequence[str]) -> Ended:
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return Ended(done.returncode, done.stdout.splitlines())


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment without pip."""
    folder = tmp_path_factory.mktemp("bare") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def test_the_interpreters_own_pip_comes_first(bare_python: Path) -> None:
    found = pip.locate(Path(sys.executable), bare_python, run)
    assert found.command == (sys.executable, "-P", "-m", "pip", "--python", str(bare_python))


def test_without_one_ensurepip_is_asked(bare_python: Path) -> None:
    found = pip.locate(bare_python, bare_python, run)
    assert found.command == (str(bare_python), "-P", "-m", "pip")
    assert run(found.install("--help")).status == 0


def test_without_that_the_wheel_that_rides_along_is_run(tmp_path: Path) -> None:
    bundled = Path(sysconfig.get_path("stdlib")) / "ensurepip" / "_bundled"
    [wheel] = bundled.glob("pip-*.whl")
    folder = tmp_path / "package" / "_pip"
    folder.mkdir(parents=True)
    (folder / wheel.name).write_bytes(wheel.read_bytes())
    env = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", env], check=True)
    python = env / "bin" / "python"
    found = pip.riding_along(python, python, run, package=tmp_path / "package")
    assert found is not None
    assert run((*found.command, "list")).status == 0
    assert pip.riding_along(python, python, run, package=tmp_path) is None


def test_without_any_the_error_says_what_to_install() -> None:
    with pytest.raises(EnvironmentFault, match=r"/usr/bin/python3 has no pip.*apt install python3-venv"):
        pip.locate(Path("/usr/bin/python3"), Path("/env/bin/python"), lambda _argv: Ended(1, ["No module named pip"]))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("pip 22.2", None),
        ("pip 23.0.1", False),
        ("pip 24.1b1 from /x (python 3.11)", True),
        ("no pip here", None),
    ],
)
def test_an_old_pip_is_used_for_what_it_can(said: str, found: bool | None) -> None:
    of = pip.of_the_interpreter(Path("python"), Path("env"), lambda _argv: Ended(0, [said]))
    assert (None if of is None else of.raw_progress) == found
    if of is not None:
        assert ("raw" in of.install("tiny")) == of.raw_progress


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("Collecting tiny>=1 (from needy)", "collecting tiny>=1"),
        ("  Downloading tiny-1.0-cp310-abi3-manylinux2014_x86_64.whl (33.8 MB)", "downloading tiny-1.0 (33.8 MB)"),
        ("  Using cached tiny-1.0-py3-none-any.whl (1 kB)", "using cached tiny-1.0 (1 kB)"),
        ("Processing /some/where/tiny-1.0-py3-none-any.whl (from needy)", "using tiny-1.0"),
        ("Requirement already satisfied: tiny in /x (1.0)", "already there: tiny"),
        ("  Building wheel for tiny (pyproject.toml): started", "building tiny (this can take minutes)"),
        ("Installing collected packages: tiny, needy", "installing tiny, needy"),
        ("  Preparing metadata (pyproject.toml): started", "preparing metadata"),
        ("Successfully installed needy-2.0 tiny-1.0", "installed needy-2.0 tiny-1.0"),
        ("WARNING: Retrying (Retry(total=4)) after connection broken by 'X'", "Retrying"),
        ("WARNING: something else", None),
        ("", None),
    ],
)
def test_lines_of_pip_are_told_in_few_words(line: str, text: str | None) -> None:
    said = pip.spoken(line)
    assert said == ("the package index does not answer; trying again" if text == "Retrying" else text)


def test_a_long_line_is_cut() -> None:
    said = pip.spoken(f"Installing collected packages: {'a, ' * 500}")
    assert said is not None
    assert len(said) == 120
    assert said.endswith("…")


@pytest.mark.parametrize(
    ("line", "done"), [("Progress 0 of 10", 0.0), ("Progress 5 of 10", 0.5), ("Progress 0 of 0", None), ("x", None)]
)
def test_raw_progress_is_a_fraction(line: str, done: float | None) -> None:
    assert pip.fraction(line) == done


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "make room in /f"),
        ("WARNING: Retrying … [Errno -3] Temporary failure in name resolution", "can't be reached"),
        ("ERROR: No matching distribution found for x", "nothing that fits Python 3.14.1 and this platform; try"),
        ("ERROR: No matching distribution found for torch==2.13.0+cpu", "name it in PIP_EXTRA_INDEX_URL"),
        ("error: subprocess-exited-with-error", "building failed"),
        ("PermissionError: [Errno 13] Permission denied: '/f/x'", "files in /f belong to somebody else"),
        ("something nobody has seen", "read the log"),
    ],
)
def test_a_failure_has_a_remedy(line: str, advice: str) -> None:
    assert advice in pip.remedy(["Collecting x", line], Path("/f"), "Python 3.14.1")


def test_a_dead_network_counts_before_what_follows_from_it() -> None:
    lines = ["WARNING: Retrying after connection broken by NewConnectionError", "ERROR: No matching distribution found"]
    assert "can't be reached" in pip.remedy(lines, Path("/f"), "Python 3.14.1")


def test_pip_gets_the_users_environment_without_what_misleads() -> None:
    user: Mapping[str, str] = {"HTTPS_PROXY": "p", "PYTHONPATH": "x", "PIP_TARGET": "y", "CMAKE_ARGS": "mine"}
    clean = pip.clean(user, {"CMAKE_ARGS": "theirs", "CC": "gcc"})
    assert clean["HTTPS_PROXY"] == "p"
    assert clean["CMAKE_ARGS"] == "mine"
    assert clean["CC"] == "gcc"
    assert clean["MAKEFLAGS"].startswith("-l")  # a build must not take the whole machine
    assert pip.clean({"MAKEFLAGS": "-j1"}, {})["MAKEFLAGS"] == "-j1"
    assert not {"PYTHONPATH", "PIP_TARGET"} & clean.keys()
