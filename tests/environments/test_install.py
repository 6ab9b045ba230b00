"""An environment is built step by step, told step by step, and is there only when it is whole."""

from __future__ import annotations

import errno
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from stoker import environments
from stoker.environments import Installed, Progress, State
from stoker.errors import EnvironmentFault, NotFoundError
from stoker.home import Home
from stoker.model import EnvironmentSpec

Install = Callable[..., Installed]

SPEC = EnvironmentSpec(
    requirements=("needy",),
    bare_requirements=("weights==3.0",),
    files={"serve.py": "print('serving')\n"},
    prepare=("{python}", "-c", "import pathlib, sys; pathlib.Path(sys.argv[1]).touch()", "{share}/prepared"),
    summary="for a test",
)
SMALL = EnvironmentSpec(requirements=(), files={"serve.py": "print('serving')\n"}, summary="for a test")
BROKEN = attrs.evolve(SMALL, prepare=("{python}", "-c", "import sys; print('no luck today'); sys.exit(7)"))


def run(python: Path, code: str) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def state(home: Home, spec: EnvironmentSpec) -> State:
    [found] = environments.listing(home, {"rt": spec})
    return found.state


def test_a_whole_environment_has_packages_files_and_what_was_prepared(home: Home, install: Install, heard: Any) -> None:
    installed = install(attrs.evolve(SPEC, remove=("tiny",)))
    assert installed.folder.parent == home.runtimes / "rt"
    assert run(installed.python, "import needy, weights; print(needy.VERSION, weights.VERSION)") == "2.0 3.0"
    assert installed.versions == {"needy": "2.0", "weights": "3.0"}, "tiny came as a dependency and was removed"
    assert (installed.share / "serve.py").read_text() == SPEC.files["serve.py"]
    assert (installed.share / "prepared").exists()
    assert installed.python_version == ".".join(map(str, sys.version_info[:3]))
    assert installed.size_bytes > 0
    steps = list(dict.fromkeys(progress.step for progress in heard.steps))
    assert steps == ["create", "install", "remove", "files", "prepare", "finish", "done"]


def test_it_is_found_and_listed_as_what_it_is(home: Home, install: Install) -> None:
    assert environments.find(home, "rt", SMALL) is None
    assert state(home, SMALL) is State.MISSING
    installed = install(SMALL)
    assert environments.find(home, "rt", SMALL) == installed
    assert home.path.stat().st_mode & 0o077 == 0
    [listed] = environments.listing(home, {"rt": SMALL})
    assert listed == environments.EnvironmentState(
        name="rt",
        state=State.INSTALLED,
        summary="for a test",
        python=installed.python,
        versions=installed.versions,
        size_bytes=installed.size_bytes,
        installed_at=installed.installed_at,
    )


def test_what_is_there_is_not_installed_again(install: Install, heard: Any) -> None:
    first = install(SMALL)
    heard.steps.clear()
    assert install(SMALL) == first
    assert install(SMALL, python=Path(sys.executable)) == first
    assert install(attrs.evolve(SMALL, summary="other words")) == first
    assert heard.steps == []


def test_a_package_nobody_has_fails_with_the_last_lines_and_the_next_try_goes_on(
    home: Home, install: Install, heard: Any, wheels: Path, write: Callable[..., None]
) -> None:
    spec = EnvironmentSpec(requirements=("tiny", "late"))
    with pytest.raises(EnvironmentFault) as caught:
        install(spec)
    message = str(caught.value)
    assert "installing runtime 'rt' failed at step 'install'" in message
    assert "ERROR: No matching distribution found for late" in message
    assert f"nothing that fits Python {platform.python_version()} and this platform" in message
    assert "stoker runtime install rt" in message
    assert "No matching distribution" in (home.logs / "runtime-rt.log").read_text()
    assert environments.find(home, "rt", spec) is None
    assert state(home, spec) is State.INCOMPLETE
    write(wheels, "late", "1.0")
    heard.steps.clear()
    assert install(spec).versions == {"tiny": "1.0", "late": "1.0"}
    assert "going on with an interrupted installation" in heard.text


def test_a_failing_preparation_is_told_and_what_is_there_is_not_used(home: Home, install: Install) -> None:
    with pytest.raises(
        EnvironmentFault, match=r"step 'prepare', whose command ended with exit code 7:\n  no luck today"
    ):
        install(BROKEN)
    assert environments.find(home, "rt", BROKEN) is None
    assert state(home, BROKEN) is State.INCOMPLETE


def test_a_changed_spec_makes_it_outdated_until_it_is_installed_again(home: Home, install: Install) -> None:
    old = install(SMALL)
    changed = attrs.evolve(SMALL, files={"serve.py": "print('better')\n"})
    assert environments.find(home, "rt", changed) is None
    assert state(home, changed) is State.OUTDATED
    new = install(changed)
    assert new.folder != old.folder
    assert (new.share / "serve.py").read_text() == "print('better')\n"
    assert not old.folder.exists(), "nobody used it"
    assert state(home, changed) is State.INSTALLED


def test_an_old_environment_stays_while_somebody_runs_in_it(home: Home, install: Install) -> None:
    old = install(SMALL)
    with subprocess.Popen([old.python, "-c", "input()"], stdin=subprocess.PIPE) as engine:
        install(attrs.evolve(SMALL, files={}))
        assert old.python.exists()
        with pytest.raises(EnvironmentFault, match=f"in use by process {engine.pid}"):
            environments.remove(home, "rt")
        assert engine.stdin is not None
        engine.stdin.write(b"\n")
        engine.stdin.close()
    assert engine.returncode == 0
    environments.remove(home, "rt")
    assert not old.folder.exists()


def test_removing_takes_all_there_is(home: Home, install: Install) -> None:
    installed = install(SMALL)
    environments.remove(home, "rt")
    assert not installed.folder.exists()
    assert state(home, SMALL) is State.MISSING
    with pytest.raises(NotFoundError, match="'rt' has no environment"):
        environments.remove(home, "rt")


@pytest.mark.parametrize("name", ["../..", "a/b", "", ".", "Upper"])
def test_a_name_cannot_lead_out_of_the_folder(home: Home, name: str) -> None:
    with pytest.raises(NotFoundError, match="there is no runtime"):
        environments.remove(home, name)
    with pytest.raises(NotFoundError, match="there is no runtime"):
        environments.install(home, name, SPEC, lambda _progress: None)


def test_what_a_user_has_set_does_not_lead_it_astray(
    install: Install, environ: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Modules in the current folder, packages on PYTHONPATH, and pip told to install elsewhere."""
    for name in ("pip", "venv", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong module')\n")
    elsewhere = tmp_path / "elsewhere"
    info = elsewhere / "tiny-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    monkeypatch.chdir(tmp_path)
    misled = {"PYTHONPATH": str(elsewhere), "PIP_TARGET": str(elsewhere), "PIP_USER": "1", "PIP_DRY_RUN": "1"}
    installed = install(EnvironmentSpec(requirements=("tiny",)), environ={**environ, **misled})
    assert installed.versions == {"tiny": "1.0"}
    assert run(installed.python, "import tiny; print(tiny.__file__)").startswith(str(installed.folder))


def test_the_variables_of_the_spec_reach_pip_unless_the_user_has_set_them(
    install: Install, environ: Mapping[str, str], wheels: Path, tmp_path: Path
) -> None:
    spec = EnvironmentSpec(requirements=("tiny",), env={"PIP_FIND_LINKS": str(wheels)})
    lost = {name: value for name, value in environ.items() if name != "PIP_FIND_LINKS"}
    with pytest.raises(EnvironmentFault, match="No matching distribution"):
        install(spec, environ={**lost, "PIP_FIND_LINKS": str(tmp_path)})
    assert install(spec, environ=lost).versions == {"tiny": "1.0"}


def test_a_python_that_is_none_is_named(install: Install, tmp_path: Path) -> None:
    for python in (tmp_path / "no-such-python", Path("/bin/false")):
        with pytest.raises(EnvironmentFault, match=f"{python} is no Python 3.11 or newer that runs"):
            install(SPEC, python=python)


def test_a_home_that_is_a_file_and_a_full_disk_are_explained(install: Install, home: Home) -> None:
    def no_room(_progress: Progress) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(EnvironmentFault, match=rf"the disk is full .* make room in {home.runtimes}"):
        install(SPEC, report=no_room)
    file = home.path.with_name("file")
    file.touch()
    with pytest.raises(EnvironmentFault, match=r"File exists.*is yours to write to"):
        environments.install(Home(file), "rt", SPEC, lambda _progress: None)


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"format": 99}', '{"format": 1}'], ids=repr)
def test_a_record_that_cannot_be_read_does_not_count(home: Home, install: Install, damage: str) -> None:
    spec = attrs.evolve(SMALL, files={})
    record = install(spec).folder / "complete.json"
    record.write_text(damage)
    assert environments.find(home, "rt", spec) is None
    assert state(home, spec) is State.INCOMPLETE


def test_a_record_of_another_platform_does_not_count(home: Home, install: Install) -> None:
    spec = attrs.evolve(SMALL, files={})
    record = install(spec).folder / "complete.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "platform": "amiga-68000"}))
    assert environments.find(home, "rt", spec) is None
