"""What those who come from the SAGE gateway type, word for word, where it was installed as its page says.

The walk-through wants port 8000. It gets a network of its own, where the system allows that, so that the port is free
whatever else runs on this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import pytest

from stoker.home import Home

from .apart import NoNetworkError, network
from .conftest import ROOT, must
from .running import until

pytestmark = pytest.mark.e2e

PLUGIN = Path("plugins", "stoker-sage")
WHEELS = ROOT / "build" / "e2e" / "wheels"
PORT = 8000  # the walk-through's own
SECONDS = 300
CURL = shutil.which("curl")


def typed(section: str, language: str = "sh") -> str:
    """The first block of that language after those words on the plugin's page."""
    page = (ROOT / PLUGIN / "README.md").read_text()
    found = re.search(rf"{re.escape(section)}.*?```{language}\n(.*?)```", page, re.DOTALL)
    assert found is not None
    return found[1]


def is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@attrs.frozen
class Person:
    """Somebody with a clone, an environment in which it is installed, and port 8000."""

    clone: Path
    environ: Mapping[str, str]
    inside: Sequence[str] = ()
    """The words before a command that runs in the network of its own."""

    @property
    def folder(self) -> Path:
        """Where commands are typed."""
        return self.clone / PLUGIN

    def type(self, text: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.inside, "bash", "-euo", "pipefail", "-c", text],
            cwd=cwd or self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )

    def says(self, text: str) -> str:
        """What a command prints, which has to succeed."""
        done = self.type(text)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed of a clone, copied, because building leaves files in it."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("src", "plugins/stoker-embedded", "plugins/stoker-sage"):
        left = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
        shutil.copytree(ROOT / name, folder / name, ignore=left)
    return folder


@pytest.fixture(scope="module")
def installed(clone: Path, embedded_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Person:
    """All of it in a fresh environment, by the commands of the page. What they need is fetched once, and kept."""
    env = tmp_path_factory.mktemp("sage") / "env"
    must(sys.executable, "-m", "venv", env)
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "STOKER_"))},
        "PATH": f"{env / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "STOKER_HOME": str(embedded_home.path),
        "SAGE_RUNTIME": "embedded",
        "NO_COLOR": "1",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(WHEELS),
    }
    person = Person(clone, environ)
    words = typed("# stoker-sage") + typed("Without a GPU")
    if person.type(words, clone).returncode != 0:
        building = tomllib.loads((clone / "pyproject.toml").read_text())["build-system"]["requires"]
        must(env / "bin" / "python", "-m", "pip", "wheel", "--wheel-dir", WHEELS, f"{clone}[fast]", *building)
        done = person.type(words, clone)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return person


@pytest.fixture(scope="module")
def person(installed: Person) -> Iterator[Person]:
    with contextlib.ExitStack() as stack:
        try:
            inside = stack.enter_context(network())
        except NoNetworkError as error:
            if not is_free(PORT):
                pytest.skip(f"something listens on port {PORT}, and here is no network without it: {error}")
            inside = ()
        yield attrs.evolve(installed, inside=inside)


# In the foreground


def test_the_gateway_is_a_module_too(person: Person, tmp_path: Path) -> None:
    environ = {**person.environ, "STOKER_HOME": str(tmp_path / "home")}
    asks = f"import urllib.request as r; r.urlopen('http://localhost:{PORT}/health', timeout=5)"
    process = subprocess.Popen(
        [*person.inside, "python", "-m", "sage.llm.gateway"], env=environ, stdout=subprocess.PIPE, text=True
    )
    try:
        until(lambda: process.poll() is not None or person.type(f'python -c "{asks}"').returncode == 0, "it answers")
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=SECONDS)[0]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert f"http://127.0.0.1:{PORT}" in said


# The walk-through, and what there is besides. One test goes on where the one before it ended.


@pytest.fixture(scope="module")
def walk(person: Person) -> Iterator[subprocess.CompletedProcess[str]]:
    """The walk-through, done. The gateway runs on until all tests are."""
    if CURL is None:
        pytest.skip("there is no curl; install it")
    try:
        yield person.type(typed("## The walk-through") + typed("cd plugins/stoker-sage"), person.clone)
    finally:
        stopped = person.type("sage gateway stop")
    assert stopped.returncode == 0, stopped.stderr


def test_every_word_of_the_walk_through_does_what_it_says(walk: subprocess.CompletedProcess[str]) -> None:
    said = f"{walk.stdout}\n{walk.stderr}"
    assert walk.returncode == 0, said
    assert re.search(r"^smollm2\S* .* READY ", walk.stdout, re.MULTILINE), said
    decode, answers = json.JSONDecoder().raw_decode, walk.stdout[walk.stdout.index('{"') :]  # no line ends between
    chat, end = decode(answers)
    vectors, _ = decode(answers, end)
    assert chat["choices"][0]["message"]["content"], said
    assert len(vectors["data"]) == 2, said
    for step in (
        "Chat:",
        "Conversation:",
        "Stream:",
        "Embeddings: 3 of 384 numbers",
        "Found: An engine that fails",
    ):
        assert step in walk.stdout, said
    assert "GatewayUnreachable, as it should be" in walk.stdout, said
    assert "smollm2, which comes with the embedded runtime, answers as Qwen/Qwen2.5-0.5B-Instruct" in walk.stderr


@pytest.mark.usefixtures("walk")
def test_the_client_talks_to_the_model_by_its_name(person: Person) -> None:
    program = f"{typed('## The client', 'python')}\nprint(client.chat('Hello', model='Qwen/Qwen2.5-0.5B-Instruct'))\n"
    assert person.says(f"python -W error - <<'END'\n{program}client.close()\nEND\n").strip()


@pytest.mark.usefixtures("walk")
def test_the_gateway_is_looked_after(person: Person) -> None:
    assert f"http://127.0.0.1:{PORT}" in person.says("sage gateway status")
    assert "GPU" in person.says("sage llm gpu")
    assert len(person.says("sage gateway logs --lines 2").splitlines()) == 2
    before = engines(person)
    person.says("sage gateway restart")
    assert engines(person) == before
    assert set(before.values()) == {"READY"}


@pytest.mark.usefixtures("walk")
def test_an_engine_is_stopped_by_an_id_that_a_shell_completes(person: Person) -> None:
    [engine_id] = [each for each in engines(person) if each.startswith("all-minilm")]
    offered = person.says("stoker __complete sage llm engine stop all").splitlines()
    assert [line.split("\t")[0] for line in offered if line.startswith("all")] == [engine_id]
    person.says(f"sage llm engine stop {engine_id} --drain")
    assert [each.partition("-")[0] for each in engines(person)] == ["smollm2"]
    failed = person.type(f"sage llm engine stop {engine_id} --drain")
    assert failed.returncode == 1
    assert engine_id in failed.stderr


def engines(person: Person) -> Mapping[str, str]:
    """The state of every engine, by its id."""
    return {each["engine_id"]: each["state"] for each in json.loads(person.says("sage llm engine list --json"))}


# Not installed


def test_the_built_file_has_the_commands_and_the_client_too(pyz: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "STOKER_HOME": str(tmp_path), "PYTHONPATH": str(pyz), "NO_COLOR": "1"}
    words = [sys.executable, str(pyz), "sage", "gateway", "status"]
    status = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    assert status.returncode == 3, status.stderr
    assert "gateway start" in status.stderr
    code = "import sage.llm; print(sage.llm.__file__, sage.llm.UnifiedInferenceClient.__name__)"
    client = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert client.stdout.startswith(str(pyz))
    assert client.stdout.endswith(" UnifiedInferenceClient\n")
