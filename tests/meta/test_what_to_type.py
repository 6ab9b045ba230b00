"""What the pages say to type could be typed: commands, options, configurations and programs are those there are.

``tests/e2e/test_what_to_type.py`` types it.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cyclopts import App, Argument, CycloptsError

from stoker.cli.extensions import add_commands
from stoker.cli.plugins import load_plugins
from stoker.cli.run import run
from stoker.cli.tree import make_app
from tests.pages import FENCE, PAGES, ROOT, SHOWN, TYPED, Block, blocks, said_to_stoker

WRITE_A_PLUGIN = ROOT / "docs" / "how-to" / "write-a-plugin.md"  # test_write_a_plugin.py does what it says
SPAN = re.compile(r"`((?:[^`]*(?:stoker\.pyz|--run) |stoker )[^`]+)`")
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
EVERYWHERE = frozenset({"--help", "-h", "--version", "-V"})


def where(block: Block) -> str:
    return str(block)


@pytest.fixture
def _a_home_with_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new home, and all plugins of this repository."""
    places = [*sorted(ROOT.glob("plugins/stoker-*")), *sorted(ROOT.glob("examples/plugins/stoker-*"))]
    monkeypatch.setenv("STOKER_PLUGIN_PATH", os.pathsep.join(map(str, places)))
    monkeypatch.setenv("STOKER_HOME", str(tmp_path / "home"))


@pytest.fixture
def app(_a_home_with_plugins: None) -> App:
    """The whole tree of commands, with those of the plugins."""
    tree = make_app()
    add_commands(tree, load_plugins(), strict=True)
    return tree


def test_every_block_is_in_a_language_that_is_looked_after() -> None:
    """One in another language, or indented, would be passed over."""
    known = TYPED | SHOWN | {"toml", "python", "pycon"}
    for page in PAGES:
        fences = re.findall(r"^\s*```(.*)$", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(list(blocks([page], known))), f"a fence of {page.name} is not as the others are"


def test_every_command_could_be_typed(app: App) -> None:
    said = [(block, words) for block in blocks() for line in block.commands for words in said_to_stoker(line)]
    assert len(said) > 30
    for block, words in said:
        try:
            app.parse_args(words, print_error=False, exit_on_error=False)
        except CycloptsError as error:
            raise AssertionError(f"{block}: stoker {shlex.join(words)}: {error}") from None


def of_stoker(line: str) -> bool:
    return bool(re.search(r"stoker\.pyz \w|--run \w|\bstoker [a-z]+ |^sage ", line))


def test_no_command_of_ours_is_passed_over() -> None:
    for block in blocks():
        for line in block.commands:
            assert list(said_to_stoker(line)) or not of_stoker(line), f"{block}: {line}"


def below(app: App, command: Sequence[str]) -> App:
    for word in command:
        app = app[word]
    return app


def is_group(app: App) -> bool:
    return any(not name.startswith("-") for name in app)


def arguments_of(app: App, command: Sequence[str]) -> Sequence[Argument]:
    app = below(app, command)
    return () if is_group(app) else app.assemble_argument_collection()


def options_of(app: App, command: Sequence[str]) -> frozenset[str]:
    """Every option of a command, by all of its names."""
    names = (name for argument in arguments_of(app, command) for name in argument.names)
    return frozenset(name for name in names if name.startswith("-")) | EVERYWHERE


def command_of(app: App, words: Sequence[str]) -> list[str]:
    """The words that are commands: of ``engine stop ID``, two."""
    chain, _, _ = app.parse_commands(words)
    return [word for word in chain if not word.startswith("-")]


def spans(page: Path) -> Iterator[list[str]]:
    """What is said to Stoker in running text and in tables: ``stoker engine stop ID [--forget]``."""
    for span in SPAN.findall(FENCE.sub("", page.read_text())):
        said = re.split(r"stoker\.pyz |--run |^stoker ", span)[-1]
        yield re.sub(r"[\[\]|\\]", " ", said.partition("-- ")[0]).split()


def test_every_command_in_running_text_is_one_and_has_the_options_it_is_named_with(app: App) -> None:
    seen = 0
    for page in PAGES:
        for words in spans(page):
            command = command_of(app, words)
            further = words[len(command) : len(command) + 1]
            known = not is_group(below(app, command)) or not further or not re.fullmatch(r"[a-z-]*[a-z]", further[0])
            assert known or further[0] in EVERYWHERE, f"{page.name}: stoker {' '.join(words)}"
            for option in filter(OPTION.fullmatch, words):
                seen += 1
                assert option in options_of(app, command), f"{page.name}: stoker {' '.join(words)}"
    assert seen > 60


@pytest.mark.usefixtures("_a_home_with_plugins")
@pytest.mark.parametrize("block", blocks([page for page in PAGES if page != WRITE_A_PLUGIN], ["toml"]), ids=where)
def test_every_configuration_is_right(block: Block, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["key", "create", "--name", "whoever listens to others has one"]) == 0
    file = tmp_path / "stoker.toml"
    file.write_text(block.text)
    assert run(["config", "check", "-c", str(file)]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("block", blocks(languages=["python"]), ids=where)
def test_every_program_is_one_and_its_imports_are_there(block: Block) -> None:
    own = {"lowest_id"}
    for node in ast.walk(ast.parse(block.text)):
        match node:
            case ast.ImportFrom(module=str(module), names=names) if module not in own:
                loaded = importlib.import_module(module)
                assert [each.name for each in names if not hasattr(loaded, each.name)] == []
            case ast.Import(names=names):
                assert [each.name for each in names if importlib.util.find_spec(each.name) is None] == []
