"""What the pages say to type, typed: against one gateway, with engines that are pretended.

``tests/meta/test_what_to_type.py`` looks at what can't be typed here.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest

from stoker.home import Home
from tests import loopback
from tests.faults.fleet import engine
from tests.pages import ROOT, Block, blocks

from .running import Program, running

FOLDERS = ("docs/tutorial/", "docs/how-to/", "plugins/", "README.md")
SECONDS = 60

NEVER_TYPED: Mapping[str, str] = {
    r"docs/how-to/write-a-plugin\.md .*": "tests/meta/test_write_a_plugin.py follows that page from its beginning",
    r"plugins/stoker-sage/README\.md (cd|sage|curl|python) .*": "tests/e2e/test_sage.py walks through it",
    r"docs/how-to/run-vllm\.md stoker engine (adapter|sleep|wake) .*": "vLLM: tests/engines/test_vllm_features.py",
    r"docs/how-to/chat-in-a-terminal\.md stoker chat qwen( --\S*session .*)?": "takes a terminal: tests/cli/chatting",
    r".* --run demo": "fetches models: tests/e2e/test_one_file.py runs it",
    r".*stoker engine start smollm2 --runtime embedded": "computes for long: tests/e2e/test_sage.py starts it",
    r".*(--run|stoker\.pyz) up( .*)?": "stays in the foreground: it is what all of this is typed against",
    r".*stoker(\.pyz)? runtime install .*": "fetches up to gigabytes; tests/environments installs",
    r".*python3 -m pip install .*": "the network; .ci/run installs",
    r"docs/how-to/change-what-runs\.md stoker gateway (stop|start) .*": "ends what all of this is typed against, and "
    "starts another one: tests/faults/test_supervisor_dies.py",
    r"docs/how-to/run-as-a-service\.md (user|install|systemctl|runuser).*": "takes root",
    r"docs/how-to/run-as-a-service\.md podman .*": "takes podman; tests/meta/test_deploy.py reads its file",
    r".*export SAGE_RUNTIME=embedded": "tests/e2e/test_sage.py types it",
}
"""What is only looked at, by page and command, and why."""


def typed_here(block: Block) -> list[str]:
    """The commands of a block that can be typed."""
    page = block.page.relative_to(ROOT)
    return [line for line in block.commands if not is_exception(f"{page} {line}")]


def is_exception(line: str) -> bool:
    return any(re.fullmatch(pattern, line, re.DOTALL) for pattern in NEVER_TYPED)


def of_users(languages: list[str]) -> list[Block]:
    """The blocks of the pages that say how to do something."""
    found = blocks(languages=languages)
    return [block for block in found if str(block.page.relative_to(ROOT)).startswith(FOLDERS)]


COMMANDS = [block for block in of_users(["sh", "console"]) if typed_here(block)]
PROGRAMS = [block for block in of_users(["python"]) if block.page.name != "write-a-plugin.md"]


@attrs.frozen
class Reader:
    """Somebody who reads a page, in the folder of a clone, with ``stoker`` on the path and a gateway that runs."""

    folder: Path
    gateway: Program
    session_id: str

    def own(self, text: str) -> str:
        """What this reader types instead: the address, and ids that the page has only one example of."""
        text = re.sub(r"http://(127\.0\.0\.1|localhost):8000", self.gateway.url, text)
        return text.replace("sess_5d7c2a90…", self.session_id)

    def type(self, *argv: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        environ = {
            **os.environ,
            "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT / "dist" / "stoker.pyz"),
            "STOKER_HOME": str(home or self.gateway.home.path),
            "NO_COLOR": "1",
        }
        return subprocess.run(
            argv,
            cwd=self.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )


def configuration() -> str:
    """Engines for every model that the pages ask for."""
    chat = engine("--name", "smollm2", model="qwen", names=["smollm2"])
    vectors = engine("--kind", "embedding", model="all-minilm-l6-v2", kind="embedding")
    return f'[gateway]\nlisten = "127.0.0.1:0"\n\n{chat}\n{vectors}'


@pytest.fixture(scope="module")
def reader(pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    for name in ("zipapp.py", "dist", "docs"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "stoker.pyz").symlink_to(pyz)
    (folder / "bin").mkdir()
    (folder / "bin" / "stoker").symlink_to(pyz)
    for name in ("python", "python3"):  # no link: an environment is found by the place of its interpreter
        script = folder / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        script.chmod(0o755)
    file = folder / "stoker.toml"
    file.write_text(configuration())
    for words in (["init", "--quiet"], ["add", "--intent-to-add", file.name]):  # so that there is a `git diff`
        subprocess.run(["git", *words], cwd=folder, check=True)
    with running(pyz, Home(folder / "home"), "up", "-c", str(file)) as gateway:
        gateway.wait_until_ready(2)
        begun = loopback.post(f"{gateway.url}/sessions", json={}, timeout=SECONDS).json()
        yield Reader(folder, gateway, begun["session_id"])


def shown(lines: str) -> re.Pattern[str]:
    """What is to be printed, as a page shows it: ids are other ones, and what ends in `…` is anything."""
    literal = re.sub(r"\w*…", ".*", re.escape(re.sub(r"[0-9a-f]{8}", "\0", lines)))
    return re.compile(literal.replace(re.escape("\0"), "[0-9a-f]{8}"), re.DOTALL)


@pytest.mark.e2e
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl; install it")
@pytest.mark.parametrize("block", COMMANDS, ids=str)
def test_the_commands_of_a_page_do_what_it_says(block: Block, reader: Reader, tmp_path: Path) -> None:
    lines = [reader.own(line).replace("curl ", "curl --fail-with-body -sS ") for line in typed_here(block)]
    makes_keys = any(line.startswith("stoker key") for line in lines)  # which would keep out whoever comes after
    done = reader.type("bash", "-euo", "pipefail", "-c", "\n".join(lines), home=tmp_path if makes_keys else None)
    assert done.returncode == 0, f"{lines}\n{done.stdout}{done.stderr}"
    said = done.stdout + done.stderr
    assert said.strip()
    if block.shown:
        assert shown("\n".join(block.shown)).search(said), said


@pytest.mark.e2e
@pytest.mark.parametrize("block", PROGRAMS, ids=str)
def test_the_programs_of_a_page_run(block: Block, reader: Reader) -> None:
    done = reader.type("python3", "-W", "error", "-c", reader.own(block.text))
    assert done.returncode == 0, done.stderr


def test_every_exception_is_one_and_its_reason_is_there() -> None:
    lines = [
        f"{block.page.relative_to(ROOT)} {line}" for block in of_users(["sh", "console"]) for line in block.commands
    ]
    for pattern, reason in NEVER_TYPED.items():
        assert any(re.fullmatch(pattern, line, re.DOTALL) for line in lines), f"nothing is like {pattern} any more"
        for path in re.findall(r"[\w./]+/[\w./]+", reason):
            assert (ROOT / path).exists(), f"{path} is no more"
    assert len(COMMANDS) >= 10
