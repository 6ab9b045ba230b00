"""``dist/stoker.pyz`` as somebody finds it: one file, any folder, an empty home, nothing installed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import httpx2
import pytest

import stoker
from stoker.home import Home
from tests import loopback

from .running import Program, find_python, running, until

pytestmark = pytest.mark.e2e

BAD_CONFIG = """
[gateway]
listen = "nowhere"
polcy = "least-load"

[[engine]]
model = "m"
runtime = "command"
replicas = -1
"""

IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import stoker
for module in pkgutil.walk_packages(stoker.__path__, "stoker."):
    for_plugin_authors = module.name.startswith("stoker.testing.") and "fake_engine" not in module.name
    if not module.name.endswith("__main__") and not for_plugin_authors:  # who have pytest and Hypothesis
        importlib.import_module(module.name)
print("imported", len([name for name in sys.modules if name.startswith("stoker.")]))
"""

LIST_PLUGINS = """
import sys
sys.path.insert(0, sys.argv[1])
from stoker.plugins import build_registry, builtin, installed
from itertools import chain
registry = build_registry(chain(builtin(), installed()))
print(registry.runtime("embedded").name, registry.plugins)
"""


def run(
    pyz: Path, *arguments: str, home: Home | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "NO_COLOR": "1", **({"STOKER_HOME": str(home.path)} if home else {})}
    command = [sys.executable, str(pyz), *arguments]
    return subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, check=False)


def alone(python: str | Path, pyz: Path, code: str) -> str:
    """What ``code`` prints in a Python that sees the standard library and the file, and nothing that was installed."""
    done = subprocess.run([python, "-I", "-S", "-c", code, pyz], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_says_its_version(pyz: Path) -> None:
    done = run(pyz, "--version")
    assert (done.returncode, done.stdout) == (0, f"stoker {stoker.__version__}\n")


def test_help_names_the_commands(pyz: Path) -> None:
    done = run(pyz, "--help")
    assert done.returncode == 0
    for command in ("up", "demo", "gateway", "engine", "runtime", "config"):
        assert f"  {command}: " in done.stdout


def test_an_unknown_command_is_a_usage_error_that_names_it(pyz: Path) -> None:
    done = run(pyz, "explode")
    assert done.returncode == 2
    assert "explode" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_configuration_shows_every_mistake_with_its_path(pyz: Path, tmp_path: Path, stoker_home: Home) -> None:
    config = tmp_path / "stoker.toml"
    config.write_text(BAD_CONFIG)
    done = run(pyz, "config", "check", "-c", str(config), home=stoker_home)
    assert done.returncode == 1
    for part in (str(config), "gateway.listen", "gateway.polcy", "engine[0].replicas"):
        assert part in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_it_works_wherever_it_is_moved_to(pyz: Path, tmp_path: Path, stoker_home: Home) -> None:
    moved = tmp_path / "a folder" / "s"
    moved.parent.mkdir()
    shutil.copy(pyz, moved)
    config = tmp_path / "stoker.toml"
    config.write_text('[[engine]]\nmodel = "m"\nruntime = "remote"\nurl = "http://127.0.0.1:1"\n')
    done = run(moved, "config", "check", "-c", "stoker.toml", home=stoker_home, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_it_works_with_an_empty_home_and_next_to_no_environment(pyz: Path, tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "PATH": os.defpath}
    command = [sys.executable, str(pyz), "gateway", "status"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr  # not running
    assert "Traceback" not in done.stderr


def test_everything_in_it_can_be_imported_without_anything_installed(pyz: Path) -> None:
    assert alone(sys.executable, pyz, IMPORT_EVERYTHING).startswith("imported")


def test_what_lost_its_native_code_works_without(pyz: Path) -> None:
    with ZipFile(pyz) as archive:
        native = [name for name in archive.namelist() if name.endswith((".so", ".dylib", ".pyd"))]
        assert not [name for name in native if not name.startswith("native/")]
        left_out = json.loads(archive.read("onefile.json"))["native_left_out"]
    packages = sorted({name.split("/")[0].removesuffix(".so") for name in left_out})
    code = f"import importlib, sys; sys.path.insert(0, sys.argv[1]); [importlib.import_module(p) for p in {packages}]"
    alone(sys.executable, pyz, code)


def test_the_embedded_plugin_rides_along(pyz: Path) -> None:
    assert alone(sys.executable, pyz, LIST_PLUGINS).startswith("embedded ")


REPLACED = """
[gateway]
listen = "127.0.0.1:0"

[[engine]]
model = "fake"
runtime = "command"
command = [{python}, "-m", "stoker.testing.fake_engine", "--host", "{{host}}", "--port", "{{port}}", "--model", "fake"]
env = {{ PYTHONPATH = {pyz} }}
restart_base_seconds = 0.1
"""


def test_a_running_gateway_outlives_its_file(pyz: Path, tmp_path: Path, stoker_home: Home) -> None:
    """Somebody copies a new version over the old one. What runs must not need the old file for anything any more."""
    config, mine = tmp_path / "stoker.toml", tmp_path / "mine.pyz"
    config.write_text(REPLACED.format(python=json.dumps(sys.executable), pyz=json.dumps(str(pyz))))
    shutil.copy(pyz, mine)
    with running(mine, stoker_home, "up", "-c", str(config)) as program:
        program.wait_until_ready(1)
        mine.write_bytes(b"another version, say")
        body = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
        for stream in (False, True):
            answer = loopback.post(f"{program.url}/v1/chat/completions", json=body | {"stream": stream}, timeout=60)
            assert answer.status_code == httpx2.codes.OK, answer.text
        assert loopback.post(f"{program.url}/v1/chat/completions", content=b"{", timeout=60).status_code == 400
        assert loopback.get(f"{program.url}/v1/models", timeout=60).status_code == httpx2.codes.OK
        for path in ("/engines", "/status", "/gpu", "/backends", "/engines/fake/logs", "/nothing"):
            assert program.manage("GET", path).status_code in (200, 404)
        assert program.manage("POST", "/reload").status_code == httpx2.codes.OK
        assert program.manage("POST", "/engines/start", {"model": "x", "runtime": "vllm"}).status_code < 500
        [engine] = [engine for engine in program.engines() if engine["model"] == "fake"]
        assert program.signal_engine(engine["pid"])
        until(lambda: _came_back(program), "the engine is started again")
        program.signal(signal.SIGINT)
        assert program.wait() == 0
    said = program.output.read_text()
    assert "Traceback" not in said
    assert "EOFError" not in said  # what zipimport raises for a file that became shorter


def _came_back(program: Program) -> bool:
    [engine] = [engine for engine in program.engines() if engine["model"] == "fake"]
    return bool(engine["restarts"] and engine["state"] == "READY")


@pytest.mark.parametrize("minor", [12, 13])
def test_later_versions_of_python_run_it_too(pyz: Path, minor: int) -> None:
    python = find_python(minor)
    if python is None:
        pytest.skip(f"there is no Python 3.{minor} here")
    assert alone(python, pyz, IMPORT_EVERYTHING).startswith("imported")
    assert alone(python, pyz, LIST_PLUGINS).startswith("embedded ")
