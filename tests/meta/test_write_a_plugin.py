"""The page for authors of plugins, followed step by step: what it has them write works as it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

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


def environment(cwd: Path) -> dict[str, str]:
    """As in a virtual environment in which Stoker is installed."""
    own = {"STOKER_HOME": str(cwd / "home"), "NO_COLOR": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, **own, "PATH": path}


def python(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment(cwd), capture_output=True, text=True, check=False)


def stoker(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return python("-m", "stoker", *arguments, cwd=cwd)


def test_the_policy_of_the_page_passes_the_suite_that_the_page_runs(my_plugins: Path) -> None:
    done = python("-m", "pytest", "-q", cwd=my_plugins)
    assert done.returncode == 0, done.stdout + done.stderr
    [passed] = re.findall(r"(\d+) passed", done.stdout)
    assert f"These are {passed} tests" in PAGE.read_text()


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


def test_its_engines_run_and_the_policy_chooses_between_them(my_plugins: Path, tmp_path: Path) -> None:
    """They were vLLM's, so that nobody without a GPU came to the end of the page."""
    [text] = [block for block in blocks("toml") if "[gateway]" in block]
    (tmp_path / "stoker.toml").write_text(text)
    up = [sys.executable, "-m", "stoker", "up", "--plugin-path", str(my_plugins), "--listen", "127.0.0.1:0"]
    with subprocess.Popen(up, cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE, text=True) as gateway:
        try:
            assert gateway.stdout is not None
            said = [gateway.stdout.readline(), gateway.stdout.readline()]
            assert "starting 2 x pretended" in said[1]
            told = explained(tmp_path)
            while not all(engine["candidate"] for engine in told["engines"]) and gateway.poll() is None:
                told = explained(tmp_path)
        finally:
            gateway.terminate()
    assert (told["policy"], told["choice"], gateway.returncode) == ("lowest-id", "pretended", 0)


def explained(cwd: Path) -> Any:
    done = stoker("route", "explain", "pretended", "--json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


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
