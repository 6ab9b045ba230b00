"""The page for authors of plugins, followed step by step: what it has them write works as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stoker import config

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "how-to" / "write-a-plugin.md"
EXAMPLES = ROOT / "examples" / "plugins"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def my_plugins(tmp_path: Path) -> Path:
    """The folder that a reader of the page has by the end of it."""
    folder = tmp_path / "my-plugins"
    folder.mkdir()
    policy, test = blocks("python")
    (folder / "lowest_id.py").write_text(policy)
    (folder / "test_lowest_id.py").write_text(test)
    return folder


def python(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(path for path in sys.path if path)
    environ = {**os.environ, "STOKER_HOME": str(cwd / "home"), "NO_COLOR": "1", "PYTHONPATH": paths}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)


def stoker(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "stoker", *arguments, cwd=cwd)


def test_the_policy_of_the_page_passes_the_suite_that_the_page_runs(my_plugins: Path) -> None:
    done = python("-m", "pytest", "-q", cwd=my_plugins)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.findall(r"(\d+) passed", done.stdout)[0]) >= 6


def test_it_is_listed_with_where_it_came_from(my_plugins: Path) -> None:
    done = stoker("plugin", "list", "--plugin-path", my_plugins, cwd=my_plugins.parent)
    assert done.returncode == 0, done.stderr
    [row] = [line for line in done.stdout.splitlines() if "lowest-id" in line]
    assert "lowest_id.py" in row


def test_its_configuration_is_right_with_the_plugin_and_wrong_without(my_plugins: Path, tmp_path: Path) -> None:
    [text] = [block for block in blocks("toml") if "[gateway]" in block]
    config.parse(text, "the page")
    (tmp_path / "stoker.toml").write_text(text)
    known = stoker("config", "check", "-c", "stoker.toml", "--plugin-path", my_plugins, cwd=tmp_path)
    unknown = stoker("config", "check", "-c", "stoker.toml", cwd=tmp_path)
    assert (known.returncode, unknown.returncode) == (0, 1), known.stderr + unknown.stderr
    assert "lowest-id" in unknown.stderr


def test_its_project_file_names_the_module(my_plugins: Path) -> None:
    [text] = [block for block in blocks("toml") if "[project]" in block]
    [module] = tomllib.loads(text)["project"]["entry-points"]["stoker"].values()
    assert (my_plugins / f"{module}.py").exists()


@pytest.mark.parametrize("folder", sorted(EXAMPLES.glob("stoker-*")), ids=lambda folder: folder.name)
def test_each_example_is_a_distribution_with_a_test_and_is_in_the_listing(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    [target] = project["project"]["entry-points"]["stoker"].values()
    module = folder / "src" / f"{target.partition(':')[0]}.py"
    assert len(module.read_text().splitlines()) < 70, "an example is what a stranger writes in an afternoon"
    assert list(folder.glob("tests/test_*.py"))
    assert f"[`{folder.name}`]({module.relative_to(EXAMPLES)})" in (EXAMPLES / "README.md").read_text()
