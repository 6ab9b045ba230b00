"""The one file: what ``zipapp.py`` puts into it, when it builds, and that it hurts nobody else."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from hashlib import blake2b
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pytest

import stoker
from stoker.accelerators import ABI

from .checkout import ROOT, Checkout

# What is in it


def test_it_runs_with_the_arguments_it_was_given(built: Checkout) -> None:
    done = built.zipapp("--run", "up", "--config", "x.toml")
    assert done.returncode == 7
    assert done.stdout == "python3 zipapp.py --run ['up', '--config', 'x.toml']\n"
    alone = subprocess.run([sys.executable, built.output, "--version"], capture_output=True, text=True, check=False)
    assert alone.stdout == "run by itself ['--version']\n"


def test_it_can_be_run_as_a_command(built: Checkout) -> None:
    assert os.access(built.output, os.X_OK)
    assert built.output.read_bytes().startswith(b"#!/usr/bin/env python3\n")


def test_every_module_has_byte_code_that_is_used(built: Checkout) -> None:
    with ZipFile(built.output) as archive:
        names = set(archive.namelist())
        modules = {name for name in names if name.endswith(".py") and "broken_template" not in name}
        assert {f"{name}c" for name in modules} <= names
        assert all(archive.getinfo(f"{name}c").compress_type == ZIP_STORED for name in modules)
    assert built.python("import stoker; print(stoker.__file__)").endswith("stoker/__init__.pyc")


def test_a_module_without_usable_byte_code_falls_back_to_its_source(checkout: Checkout) -> None:
    """As another version of Python does, for which the byte code's magic number is wrong."""
    other = checkout.output.with_suffix(".other")
    with ZipFile(checkout.output) as archive, ZipFile(other, "w") as copy:
        for name in archive.namelist():
            data = archive.read(name)
            copy.writestr(name, b"\0\0\r\n" + data[4:] if name.endswith(".pyc") else data)
    other.replace(checkout.output)
    assert checkout.python("import stoker; print(stoker.__file__)").endswith("stoker/__init__.py")


def test_a_traceback_shows_the_source_line(built: Checkout) -> None:
    code = "import stoker, traceback\ntry:\n    stoker.where()\nexcept RuntimeError:\n    print(traceback.format_exc())"
    assert "raise RuntimeError('here')" in built.python(code)


def test_dead_weight_and_the_native_code_of_dependencies_stay_outside(built: Checkout) -> None:
    with ZipFile(built.output) as archive:
        names = [name for name in archive.namelist() if not name.startswith("native/")]
        manifest = json.loads(archive.read("onefile.json"))
        metadata = archive.read("half_native-1.0.dist-info/METADATA").decode()
    assert not [name for name in names if re.search(r"\.(so|pyi)$|/tests/|RECORD|egg-info|__pycache__", name)]
    assert manifest["native_left_out"] == ["half_native/_fast.so"]
    assert built.python("import half_native; print(half_native.f)") == "None"
    assert "Read me" not in metadata


def test_accelerators_ride_along_where_no_import_finds_them_by_itself(built: Checkout) -> None:
    folder = f"native/{ABI}"
    with ZipFile(built.output) as archive:
        names = {name for name in archive.namelist() if name.startswith("native/")}
        manifest = json.loads(archive.read("onefile.json"))
        library = archive.read(f"{folder}/all_native/deep/_core.so")
    package = {"__init__.py", "__init__.pyc", "deep/_core.so"}
    info = {"METADATA", "licenses/LICENSE"}
    expected = {f"all_native/{name}" for name in package} | {f"all_native-1.0.dist-info/{name}" for name in info}
    assert names == {f"{folder}/{name}" for name in expected}
    assert manifest["native"] == {ABI: {"all_native/deep/_core.so": blake2b(library).hexdigest()}}
    find = "import importlib.util; print(importlib.util.find_spec('all_native'), importlib.util.find_spec('native'))"
    assert built.python(find) == "None None"


def test_licences_and_data_files_are_kept(built: Checkout) -> None:
    with ZipFile(built.output) as archive:
        names = set(archive.namelist())
    assert "half_native-1.0.dist-info/licenses/LICENSE" in names
    assert "stoker-1.2.3.dist-info/licenses/LICENSE" in names
    assert "stoker/data.txt" in names


def test_namespace_packages_can_be_imported(built: Checkout) -> None:
    assert built.python("from name_space.inner.deep.module import VALUE; print(VALUE)") == "deep"


def test_metadata_and_entry_points_are_found_inside(built: Checkout) -> None:
    code = """
from importlib.metadata import entry_points, version
print(version("stoker"), version("stoker-toy"), version("half-native"))
print({entry.name: entry.load().__name__ for entry in entry_points(group="stoker")})
"""
    assert built.python(code) == "1.2.3 0.5 1.0\n{'own': 'stoker', 'toy': 'stoker_toy'}"


def test_a_plugin_that_says_so_does_not_ride_along(checkout: Checkout) -> None:
    project = checkout.root / "plugins" / "stoker-toy" / "pyproject.toml"
    project.write_text(project.read_text() + "\n[tool.stoker]\nrides-along = false\n")
    with checkout.build() as archive:
        assert not [name for name in archive.namelist() if "toy" in name]


# When it is built


def test_a_second_build_has_nothing_to_do(checkout: Checkout) -> None:
    before = checkout.output.stat()
    done = checkout.zipapp()
    assert "up to date" in done.stderr
    assert checkout.output.stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    ("folder", "name"),
    [("src", "stoker/data.txt"), ("src", "stoker/new.py"), ("plugins/stoker-toy/src", "stoker_toy/__init__.py")],
)
def test_a_changed_source_is_built_without_pip(checkout: Checkout, folder: str, name: str) -> None:
    (checkout.root / folder / name).write_text("NEW = 1\n")
    for wheel in checkout.wheels.iterdir():
        wheel.unlink()
    with checkout.build() as archive:
        assert archive.read(name) == b"NEW = 1\n"


def test_a_changed_dependency_is_gathered(checkout: Checkout) -> None:
    project = checkout.root / "pyproject.toml"
    project.write_text(project.read_text().replace(', "Name.Space"', ""))
    with checkout.build() as archive:
        assert not [name for name in archive.namelist() if name.startswith("name_space")]


def test_a_changed_accelerator_is_gathered(checkout: Checkout) -> None:
    project = checkout.root / "pyproject.toml"
    project.write_text(project.read_text().replace('"all-native>=1"', ""))
    with checkout.build() as archive:
        assert not [name for name in archive.namelist() if name.startswith("native/")]
        assert json.loads(archive.read("onefile.json"))["native"] == {}


def test_the_same_sources_give_the_same_bytes(checkout: Checkout) -> None:
    first = checkout.output.read_bytes()
    assert checkout.zipapp("--clean").returncode == 0
    assert not checkout.output.exists()
    checkout.build().close()
    assert checkout.output.read_bytes() == first


def test_an_open_file_keeps_what_it_was(checkout: Checkout) -> None:
    first = checkout.output.read_bytes()
    (checkout.root / "src/stoker/data.txt").write_text("changed")
    with checkout.output.open("rb") as running:
        checkout.build().close()
        assert running.read() == first
    assert checkout.output.read_bytes() != first


def test_several_builds_at_once_do_not_spoil_each_other(fresh_checkout: Checkout) -> None:
    command, environ = fresh_checkout.command("--run", "hello"), fresh_checkout.environ
    runs = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said = [run.communicate() for run in runs]
    assert [output for output, _ in said] == ["python3 zipapp.py --run ['hello']\n"] * 4
    assert sum("gathering" in error for _, error in said) == 1


def test_output_can_be_put_elsewhere(checkout: Checkout, tmp_path: Path) -> None:
    checkout.output.unlink()
    elsewhere = tmp_path / "a folder" / "s"
    assert checkout.zipapp("--output", str(elsewhere)).returncode == 0
    assert subprocess.run([sys.executable, elsewhere], capture_output=True, check=False).returncode == 7
    assert not checkout.output.exists()


# What can go wrong


def test_a_python_that_is_too_old_can_read_what_tells_it_so(built: Checkout) -> None:
    """A syntax error would come before any message. None of those Pythons need be here to try: the parser knows."""
    with ZipFile(built.output) as archive:
        sources = [built.root.joinpath("zipapp.py").read_text(), archive.read("__main__.py").decode()]
    for source in sources:
        ast.parse(source, feature_version=(3, 7))
        told = source.index("needs Python 3.11")
        assert not re.search(r"^(import|from) (?!sys\b)", source[:told], re.MULTILINE)


def test_without_pip_it_says_so(fresh_checkout: Checkout) -> None:
    done = fresh_checkout.zipapp(options=["-S"])
    assert done.returncode == 1
    assert "has no pip" in done.stderr
    assert "python3-pip" in done.stderr
    assert "Traceback" not in done.stderr


def test_dependencies_that_cannot_be_had_leave_nothing_half_made(fresh_checkout: Checkout) -> None:
    wheels, aside = fresh_checkout.wheels, fresh_checkout.wheels.with_name("aside")
    wheels.rename(aside)
    done = fresh_checkout.zipapp()
    assert done.returncode == 1
    assert "half-native" in done.stderr
    assert "PIP_INDEX_URL" in done.stderr
    assert "Traceback" not in done.stderr
    assert not fresh_checkout.output.exists()
    aside.rename(wheels)
    fresh_checkout.build().close()


def test_a_missing_wheel_of_an_accelerator_is_reported_in_a_line_and_tried_again_after_a_clean(
    fresh_checkout: Checkout,
) -> None:
    [wheel] = fresh_checkout.wheels.glob("all_native*")
    aside = wheel.rename(fresh_checkout.wheels.with_name(wheel.name))
    done = fresh_checkout.zipapp()
    assert done.returncode == 0
    [line] = [line for line in done.stderr.splitlines() if "all-native" in line]
    assert f"no wheel of all-native>=1 for {ABI} could be had" in line
    assert "--clean" in line
    aside.rename(wheel)
    assert fresh_checkout.zipapp("--clean").returncode == 0
    with fresh_checkout.build() as archive:
        assert list(json.loads(archive.read("onefile.json"))["native"]) == [ABI]


def test_a_missing_wheel_of_pip_is_reported_and_no_more(fresh_checkout: Checkout) -> None:
    done = fresh_checkout.zipapp()
    assert "pip's own wheel could not be had" in done.stderr
    assert done.returncode == 0


def test_pip_rides_along_where_it_can_be_had(fresh_checkout: Checkout) -> None:
    fresh_checkout.write_wheel("pip-99.0-py3-none-any", {"pip/__init__.py": ""})
    with fresh_checkout.build() as archive:
        assert "stoker/environments/_pip/pip-99.0-py3-none-any.whl" in archive.namelist()


# The standard module of the same name


def test_importing_zipapp_beside_it_gives_the_standard_module() -> None:
    code = "import sys; sys.path.insert(0, '.'); import zipapp as z; print(z.__file__, z.create_archive.__module__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    file, module = done.stdout.split()
    assert module == "zipapp"
    assert Path(file).resolve() != ROOT / "zipapp.py"


def test_the_standard_command_works_beside_it(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__main__.py").write_text("print('standard')")
    command = [sys.executable, "-m", "zipapp", str(tmp_path / "app"), "--output", str(tmp_path / "app.pyz")]
    subprocess.run(command, cwd=ROOT, check=True)
    done = subprocess.run([sys.executable, tmp_path / "app.pyz"], capture_output=True, text=True, check=True)
    assert done.stdout == "standard\n"


def test_the_version_is_said_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert stoker.__version__ == project["version"]
