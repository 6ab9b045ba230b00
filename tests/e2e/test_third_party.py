"""Plugins of somebody who never talked to us, dropped beside the one file as they are: each does its work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx2
import pytest

from stoker.home import Home
from stoker.testing.engines import fake_engine_env
from tests import loopback
from tests.gpu.driver import Driver, driver, library

from .conftest import ROOT
from .running import Program, running, until

__all__ = ["driver", "library"]

pytestmark = pytest.mark.e2e

EXAMPLES = ROOT / "examples" / "plugins"
FAKE = f"""\
runtime = "command"
command = [{json.dumps(sys.executable)}, "-m", "stoker.testing.fake_engine", "--host", "{{host}}", "--port", "{{port}}",
    "--model", "{{model}}"]
env = {{ PYTHONPATH = {json.dumps(fake_engine_env()["PYTHONPATH"])} }}
"""
CHAT = {"messages": [{"role": "user", "content": "Good morning."}]}


@pytest.fixture
def somewhere(pyz: Path, tmp_path: Path) -> Path:
    """A folder with the file in it, and nothing else."""
    folder = tmp_path / "somewhere"
    folder.mkdir()
    shutil.copy(pyz, folder)
    return folder


def drop(example: str, somewhere: Path) -> Path:
    """Put the distribution of an example beside the file, and return the folder for ``--plugin-path``."""
    beside = somewhere / "extra"
    shutil.copytree(EXAMPLES / example, beside / example, ignore=shutil.ignore_patterns("__pycache__"))
    return beside / example


def up(somewhere: Path, config: str, *arguments: str | Path) -> tuple[Path, Home, list[str]]:
    file = somewhere / "stoker.toml"
    file.write_text('[gateway]\nlisten = "127.0.0.1:0"\n' + config)
    words = ["up", "-c", str(file), *map(str, arguments)]
    return somewhere / "stoker.pyz", Home(somewhere / "home"), words


def stoker(somewhere: Path, *arguments: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "NO_COLOR": "1", "STOKER_HOME": str(somewhere / "home"), **env}
    command = [sys.executable, somewhere / "stoker.pyz", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


def chat(program: Program, model: str) -> httpx2.Response:
    answer = loopback.post(f"{program.url}/v1/chat/completions", json={"model": model, **CHAT}, timeout=60)
    assert answer.status_code == httpx2.codes.OK, answer.text
    return answer


def test_every_example_is_listed_with_what_it_provides(somewhere: Path) -> None:
    paths = [
        word for each in sorted(EXAMPLES.glob("stoker-*")) for word in ("--plugin-path", drop(each.name, somewhere))
    ]
    done = stoker(somewhere, "plugin", "list", "--json", *paths)
    assert done.returncode == 0, done.stderr
    listed = {each["name"]: json.dumps(each) for each in json.loads(done.stdout)}
    for name, thing in {"roomiest": "roomiest", "tei": "tei", "coolest": "coolest", "usage": "usage"}.items():
        assert thing in listed[name]
        assert str(somewhere / "extra") in listed[name], "where it came from"


def test_what_lies_in_the_folder_beside_the_file_needs_no_flag(somewhere: Path) -> None:
    folder = somewhere / "stoker-plugins"
    folder.mkdir(mode=0o755)
    module = Path(shutil.copy(EXAMPLES / "stoker-roomiest" / "src" / "stoker_roomiest.py", folder))
    module.chmod(0o644)
    assert "policies roomiest" in stoker(somewhere, "plugin", "list").stdout
    module.chmod(0o666)
    untrusted = stoker(somewhere, "plugin", "list")
    assert "roomiest" not in untrusted.stdout
    assert f"others can write to {module}" in untrusted.stderr


def test_a_policy_beside_the_file_chooses(somewhere: Path) -> None:
    policy = drop("stoker-roomiest", somewhere)
    config = f'[[engine]]\nmodel = "m"\nlabel = "one"\nreplicas = 2\npolicy = "roomiest"\n{FAKE}'
    file, home, words = up(somewhere, config, "--plugin-path", policy)
    with running(file, home, *words) as program:
        program.wait_until_ready(2)
        engines = Counter(chat(program, "m").headers["x-stoker-engine"] for _ in range(4))
        done = stoker(somewhere, "route", "explain", "m")
    assert engines.total() == 4
    assert done.returncode == 0, done.stderr
    assert "roomiest" in done.stdout
    assert "KV cache of" in done.stdout, "the sentence is the plugin's own"


def test_a_runtime_beside_the_file_runs_its_engine(somewhere: Path) -> None:
    """The engine is a stand-in that takes the server's flags; the runtime is the example as it is."""
    server = somewhere / "text-embeddings-router"
    script = (
        "import re, runpy, sys\n"
        "words = ' '.join(sys.argv[1:])\n"
        "def value(flag): return re.search(flag + r' (\\S+)', words)[1]\n"
        "sys.argv[1:] = ['--host', value('--hostname'), '--port', value('--port'), '--kind', 'embedding', "
        "'--model', value('--served-model-name')]\n"
        "runpy.run_module('stoker.testing.fake_engine', run_name='__main__')\n"
    )
    server.write_text(f"#!{sys.executable}\nimport sys\nsys.path[:0] = {sys.path!r}\n{script}")
    server.chmod(0o700)
    config = '[[engine]]\nmodel = "BAAI/bge-small-en-v1.5"\nnames = ["bge"]\nkind = "embedding"\nruntime = "tei"\n'
    file, home, words = up(somewhere, config, "--plugin-path", drop("stoker-tei", somewhere))
    with running(file, home, *words, PATH=f"{somewhere}{os.pathsep}{os.environ['PATH']}") as program:
        [engine] = program.wait_until_ready(1)
        answer = loopback.post(f"{program.url}/v1/embeddings", json={"model": "bge", "input": "a word"}, timeout=60)
        assert engine["runtime"] == "tei"
        assert answer.status_code == httpx2.codes.OK, answer.text
        assert answer.json()["data"][0]["embedding"]
    assert not program.processes()


def test_a_scheduler_beside_the_file_gives_gpus(somewhere: Path, driver: Driver) -> None:
    for index, heat in enumerate((70, 40, 55)):
        driver.add_gpu(index)
        driver.say(f"gpu{index}/heat", heat)
    file, home, words = up(somewhere, "", "--plugin-path", drop("stoker-coolest", somewhere))
    config = somewhere / "stoker.toml"
    engine = f'[[engine]]\nmodel = "m"\ngpus = 2\nrequired_memory_gb = 20\n{FAKE}'
    config.write_text(f'scheduler = "coolest"\n{config.read_text()}{engine}')
    with running(file, home, *words, **driver.env) as program:
        [placed] = program.wait_until_ready(1)
        assert placed["gpus"] == ["GPU-00000001", "GPU-00000002"]


def test_an_observer_a_page_and_a_command_beside_the_file(somewhere: Path) -> None:
    usage = drop("stoker-usage", somewhere)
    file, home, words = up(somewhere, f'[[engine]]\nmodel = "m"\n{FAKE}', "--plugin-path", usage)
    with running(file, home, *words) as program:
        program.wait_until_ready(1)
        tokens = chat(program, "m").json()["usage"]["total_tokens"]
        page = until(lambda: loopback.get(f"{program.url}/usage").json(), "the observer has seen the request")
        done = stoker(somewhere, "usage", STOKER_URL=program.url, STOKER_PLUGIN_PATH=str(usage))
    assert page == {"m": tokens}
    assert (done.returncode, done.stdout) == (0, f"m  {tokens}\n"), done.stderr


def test_a_broken_plugin_beside_the_file_is_named_and_costs_nothing_else(somewhere: Path) -> None:
    broken = somewhere / "extra"
    broken.mkdir()
    (broken / "broken.py").write_text("from stoker.hookspecs import hookimpl\nraise OSError('no such luck')\n")
    file, home, words = up(somewhere, f'[[engine]]\nmodel = "m"\n{FAKE}', "--plugin-path", broken)
    with running(file, home, *words) as program:
        program.wait_until_ready(1)
        chat(program, "m")
        said = program.output.read_text()
        assert "broken" in said
        assert "no such luck" in said
    strict = stoker(somewhere, *words, "--strict")
    assert strict.returncode == 1
    assert "no such luck" in strict.stderr
