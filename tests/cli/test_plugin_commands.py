"""The commands of plugins stand beside Stoker's own, and plugins are only loaded where one of theirs may be meant."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

SOURCE = """
import sys
from cyclopts import App
from stoker.hookspecs import hookimpl
from stoker.errors import StokerError

{first}
greet = App(name="greet", help="Say hello.")

@greet.default
def say(name: str = "world") -> int:
    {body}

@hookimpl
def stoker_register_commands(cli):
    return {answer}
"""


@attrs.frozen
class Shell:
    """Runs Stoker beside a folder of plugins."""

    folder: Path

    def has(
        self, body: str = "print('hello', name)", answer: str = "[greet]", name: str = "greeting", first: str = ""
    ) -> None:
        """There is a plugin with this command."""
        (self.folder / f"{name}.py").write_text(SOURCE.format(first=first, body=body, answer=answer))

    def __call__(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join(path for path in sys.path if path)
        own = {"PYTHONPATH": paths, "STOKER_HOME": str(self.folder / "home"), "STOKER_PLUGIN_PATH": str(self.folder)}
        environ: Mapping[str, str] = {**os.environ, "NO_COLOR": "1", **own, **env}
        command = [sys.executable, "-m", "stoker", *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_command_of_a_plugin_is_run(shell: Shell) -> None:
    shell.has()
    done = shell("greet", "--name", "you")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello you\n", "")


def test_what_a_plugin_prints_before_it_is_called_is_no_part_of_the_output(shell: Shell) -> None:
    shell.has(first="print('imported')", answer="print('asked') or [greet]")
    done = shell("greet")
    assert (done.stdout, done.stderr) == ("hello world\n", "imported\nasked\n")


def test_it_is_in_the_list_of_commands_with_its_plugin(shell: Shell) -> None:
    shell.has()
    for arguments in ((), ("--help",)):
        done = shell(*arguments)
        assert done.returncode == 0
        assert "greet: Say hello. (plugin greeting)" in done.stdout


@pytest.mark.parametrize("arguments", [("--version",), ("config", "schema"), ("gateway", "--help")])
def test_commands_of_stokers_own_load_no_plugin_for_it(shell: Shell, arguments: tuple[str, ...]) -> None:
    shell.has(first="print('imported')")
    done = shell(*arguments)
    assert done.returncode == 0
    assert "imported" not in done.stderr


def test_what_it_returns_is_the_exit_code(shell: Shell) -> None:
    shell.has("return 7")
    assert shell("greet").returncode == 7


def test_an_error_that_it_means_is_told_like_ours(shell: Shell) -> None:
    shell.has("raise StokerError('there is nobody to greet; bring somebody')")
    done = shell("greet")
    assert (done.returncode, done.stderr) == (1, "stoker: there is nobody to greet; bring somebody\n")


def test_any_other_error_names_the_plugin_and_shows_where_only_if_asked(shell: Shell) -> None:
    shell.has("1 / 0")
    plain, traced = shell("greet"), shell("greet", STOKER_TRACEBACK="1")
    assert plain.returncode == traced.returncode == 1
    assert "the command 'greet' of plugin 'greeting' failed with ZeroDivisionError: division by zero" in plain.stderr
    assert "Traceback" not in plain.stderr
    assert "Traceback" in traced.stderr


def test_a_wrong_option_is_told_as_for_our_own(shell: Shell) -> None:
    shell.has()
    done = shell("greet", "--nonsense")
    assert done.returncode == 2
    assert "greet --help" in done.stderr, "not the page of all commands"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("(1 / each for each in [0])", "ZeroDivisionError"),
        ("sys.exit(3)", "SystemExit: 3"),
        ("[App(help='no name')]", "it failed"),
        ("[greet, App(name='--help')]", "already registered"),
        ("3", "returned a int"),
        ("[3]", "3 is no App"),
        ("[App(name='up')]", "there is a command 'up' of Stoker's own already"),
        ("[greet, App(name='engine')]", "there is a command 'engine' of Stoker's own already"),
    ],
)
def test_what_is_wrong_is_remarked_on_and_the_rest_works(shell: Shell, answer: str, says: str) -> None:
    shell.has(answer=answer)
    done = shell("--help")
    assert done.returncode == 0
    assert "the commands of plugin 'greeting' are left out" in done.stderr
    assert says in done.stderr
    assert "greet:" not in done.stdout
    assert shell("greet").returncode == 2


def test_help_is_given_though_a_place_for_plugins_is_gone(shell: Shell) -> None:
    """It failed, and with it everything that would have said what to do."""
    shell.has()
    gone = shell.folder / "gone"
    for arguments in ((), ("--help",), ("greet",)):
        done = shell(*arguments, STOKER_PLUGIN_PATH=f"{gone}:{shell.folder}")
        assert done.returncode == 0
        assert done.stderr == f"there is no {gone}; correct --plugin-path or STOKER_PLUGIN_PATH\n"
    assert "greet" in shell("--help", STOKER_PLUGIN_PATH=f"{gone}:{shell.folder}").stdout
    needed = shell("plugin", "list", STOKER_PLUGIN_PATH=str(gone))
    assert needed.returncode == 1
    assert f"there is no {gone}" in needed.stderr


@pytest.mark.parametrize(
    ("hook", "answer", "says"),
    [
        (
            "commands(cli)",
            "[App(name='up')]",
            "plugin 'greeting' are left out: there is a command 'up'",
        ),
        ("routes(app)", "[3]", "the routes of plugin 'greeting' are left out: 3 is no Blueprint of Quart"),
    ],
)
def test_the_listing_says_what_is_wrong_with_commands_and_routes_too(
    shell: Shell, hook: str, answer: str, says: str
) -> None:
    """Nobody asked for them: ``plugin list --strict`` had nothing against what ``up --strict`` refused."""
    shell.has(answer=answer)
    file = shell.folder / "greeting.py"
    file.write_text(file.read_text().replace("commands(cli)", hook))
    lax, strict = shell("plugin", "list"), shell("plugin", "list", "--strict")
    assert (lax.returncode, strict.returncode) == (0, 1)
    assert says in lax.stderr
    assert says in strict.stderr


def test_two_plugins_can_not_have_one_command(shell: Shell) -> None:
    shell.has(name="a_first")
    shell.has(name="b_second")
    done = shell("greet")
    assert done.returncode == 0
    assert "plugin 'b_second' are left out: there is a command 'greet' of plugin 'a_first' already" in done.stderr


def test_an_unknown_command_is_still_unknown(shell: Shell) -> None:
    done = shell("great")
    assert done.returncode == 2
    assert "great" in done.stderr
