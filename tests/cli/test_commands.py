"""Commands that need no gateway: help, versions, mistakes, the configuration, plugins and runtimes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stoker import __version__
from stoker.cli.invocation import as_typed
from stoker.cli.outside import VARIABLES
from stoker.cli.run import run
from stoker.cli.tree import COMMANDS, GROUPS, make_app, paths, whole

from .conftest import NOBODY, Call, Shell, fake_engine_toml

ROOT = Path(__file__).resolve().parents[2]
MANUAL = ROOT / "docs" / "reference" / "cli.md"
AMONG_OURSELVES = frozenset(
    {"STOKER_HANDED_OVER", "STOKER_INVOKED_AS", "STOKER_MARK"}
)  # said by us to our own processes


def test_the_version_is_there_without_importing_the_rest(shell: Shell) -> None:
    heavy = ("cyclopts", "attrs", "rich", "trio", "httpx2")
    code = f"""
import sys
from stoker.__main__ import main
sys.argv = ["stoker", "--version"]
try:
    main()
finally:
    print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=shell.environ(), cwd=shell.folder, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"stoker {__version__}\n[]\n"
    assert shell.run("-V").out == f"stoker {__version__}\n"


def test_help_of_the_whole_imports_no_command(shell: Shell) -> None:
    code = "import sys; from stoker.cli.run import run; run(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=shell.environ(), cwd=shell.folder, capture_output=True, text=True, check=True
    )
    assert "Exit codes: 0 done" in done.stdout
    for name in (*COMMANDS, *GROUPS):
        assert f"  {name}: " in done.stdout
    assert "stoker.cli.engine" not in done.stderr
    assert "httpx2" not in done.stderr
    assert "trio" not in done.stderr


@pytest.mark.parametrize("path", list(paths()))
def test_every_command_explains_itself_in_the_words_of_the_manual(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path.split(), "--help"]) == 0
    page = capsys.readouterr().out
    assert f"Usage: stoker {path}" in page
    command = make_app()
    for word in path.split():
        command = command[word]
    in_lists = command.help
    assert whole(command).split("\n\n")[0] == in_lists, "the first line of its docstring is another"
    assert "".join(whole(command).split()) in "".join(page.split())
    manual = MANUAL.read_text()
    assert manual.count(f"\n### stoker {path}\n") == 1
    assert f"](#stoker-{path.replace(' ', '-')})" in manual


def test_every_variable_that_counts_is_told_of() -> None:
    read = re.compile(r"""(?:environ\.get\(|environ\[|= )"(STOKER_[A-Z_]+)\"""")
    sources = (file.read_text() for file in (ROOT / "src" / "stoker").rglob("*.py"))
    names = {name for source in sources for name in read.findall(source)}
    assert names >= {"STOKER_HOME", "STOKER_TRACEBACK"}
    assert names - VARIABLES.keys() == AMONG_OURSELVES


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nosuch"], "nosuch"),
        (["engine", "nosuch"], "nosuch"),
        (["engine", "list", "--jso"], "--json"),
        (["engine", "start"], "MODEL is missing"),
        (["engine", "register", "http://127.0.0.1:1"], "--model is missing"),
        (["engine", "start", "m", "--gpus", "x"], "--gpus"),
        (["engine", "list", "stray", "and more"], "unexpected on the command line: stray 'and more'"),
        (["--nosuch"], "--nosuch"),
    ],
)
def test_a_wrong_command_line_is_refused_with_2(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("stoker: ")
    assert says in printed.err
    assert "--help" in printed.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["up", "--listen", "8000"], "--listen: must be"),
        (["engine", "start", "m", "--env", "A"], "--env: must be KEY=VALUE, not 'A'"),
    ],
)
def test_a_wrong_value_of_an_option_is_refused_with_2(arguments: list[str], says: str, here: Call) -> None:
    done = here(*arguments)
    assert done.code == 2
    assert says in done.err


def test_commands_in_errors_are_named_as_they_are_typed(here: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_INVOKED_AS", "python3 zipapp.py --run")
    assert "; see: python3 zipapp.py --run runtime list\n" in here("runtime", "remove", "vllm").err
    assert as_typed("the stoker gateway, /bin/stoker gateway x") == "the stoker gateway, /bin/stoker gateway x"


def test_hints_say_what_was_typed(shell: Shell) -> None:
    assert "python3 -m stoker gateway start" in shell.run("engine", "list", STOKER_URL=NOBODY).err
    typed = "python3 zipapp.py --run"
    assert f"{typed} gateway start" in shell.run("engine", "list", STOKER_URL=NOBODY, STOKER_INVOKED_AS=typed).err


def test_check_names_every_mistake_also_those_that_only_plugins_know(shell: Shell, here: Call) -> None:
    shell.write('[[engine]]\nmodel = "m"\nruntime = "vlm"\ngpu = 1\n')
    wrong = here("config", "check")
    assert wrong.code == 1
    assert "engine[0].gpu: is not a setting; did you mean gpus?" in wrong.err
    shell.write(
        'scheduler = "none?"\n[gateway]\npolicy = "least"\n[runtime.vlm]\npython = "p"\n'
        '[[engine]]\nmodel = "m"\nruntime = "vlm"\n[[engine]]\nmodel = "n"\nruntime = "command"\n'
    )
    wrong = here("config", "check")
    assert wrong.code == 1
    for path in ("scheduler:", "gateway.policy:", "runtime.vlm:", "engine[0].runtime:", "engine[1]:"):
        assert f"\n  {path} " in wrong.err
    assert "did you mean vllm?" in wrong.err


def test_check_is_content_with_a_good_file(shell: Shell, here: Call) -> None:
    path = shell.write(fake_engine_toml("m", replicas=3), "other.toml")
    done = here("config", "check", "-c", "other.toml")
    assert (done.code, done.out, done.err) == (0, f"{path}: OK, 3 engines\n", "")


def test_check_without_a_file_says_so(here: Call) -> None:
    assert "there is no stoker.toml" in here("config", "check").err
    missing = here("config", "check", "-c", "nosuch.toml")
    assert missing.code == 1
    assert "nosuch.toml: there is no such file" in missing.err


def test_show_prints_what_can_be_read_again(shell: Shell, here: Call) -> None:
    shell.write(fake_engine_toml("m", env={"A": "b c"}))
    shown = here("config", "show")
    shell.write(shown.out, "copy.toml")
    assert here("config", "show", "-c", "copy.toml").out == shown.out
    as_json = here("config", "show", "--json").json
    assert as_json["engine"][0]["env"] == {"A": "b c"}
    assert as_json["gateway"]["listen"] == "127.0.0.1:8000"


def test_the_schema_is_json(here: Call) -> None:
    assert here("config", "schema").json["title"] == "stoker.toml"


def test_plugins_and_runtimes_are_listed(here: Call) -> None:
    plugins = {plugin["name"]: plugin for plugin in here("plugin", "list", "--json").json}
    assert "command" in plugins["builtin.runtimes"]["provides"]["runtimes"]
    assert re.search(r"^PLUGIN +FROM +PROVIDES", here("plugin", "list").out)
    runtimes = {runtime["name"]: runtime for runtime in here("runtime", "list", "--json").json}
    assert runtimes["command"]["environment"] == "not needed"
    assert runtimes["vllm"]["environment"] == "missing"


def test_installing_what_does_not_exist_lists_what_does(here: Call) -> None:
    unknown = here("runtime", "install", "vlm")
    assert unknown.code == 1
    assert "'vlm'" in unknown.err
    assert "vllm" in unknown.err
    assert "needs no environment" in here("runtime", "install", "command").err


def test_gpus_are_shown_without_a_gateway(here: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    report = here("gpu", "--json")
    assert report.code == 0
    assert set(report.json) == {"gpus", "reason", "incomplete"}
    assert here("gpu").code == 0
    monkeypatch.setenv("STOKER_URL", NOBODY)
    for elsewhere in (here("gpu"), here("gpu", "--ledger")):
        assert (elsewhere.code, elsewhere.out) == (3, ""), "those of this machine are no answer for another one"


@pytest.mark.parametrize(
    "arguments",
    [
        ["engine", "list"],
        ["engine", "show", "x"],
        ["status"],
        ["engine", "logs", "x"],
        ["engine", "start", "m"],
        ["chat", "m", "-m", "x"],
    ],
    ids=" ".join,
)
def test_without_a_gateway_commands_end_with_3_and_say_how_to_start_one(
    arguments: list[str], here: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOKER_URL", NOBODY)
    done = here(*arguments)
    assert (done.code, done.out) == (3, "")
    assert f"no gateway answers at {NOBODY}" in done.err
    assert "correct STOKER_URL" in done.err
    assert "gateway start" in done.err
    assert "control_plane_url" not in done.err, "that is a word for programs"


def test_a_wrong_stoker_url_is_named(here: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOKER_URL", "localhost:8000")
    done = here("status")
    assert done.code == 1
    assert "STOKER_URL is 'localhost:8000'" in done.err


def test_a_home_that_can_not_be_made_is_an_error_and_no_traceback(shell: Shell) -> None:
    (shell.folder / "file").touch()
    done = shell.run("up", "--listen", "127.0.0.1:0", STOKER_HOME=str(shell.folder / "file" / "home"))
    assert done.code == 1
    assert done.err.startswith("stoker: the system refuses: ")
    assert "set STOKER_HOME" in done.err


def test_a_full_disk_is_told_with_what_to_do(shell: Shell) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no disk that is always full")
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "stoker", "config", "schema"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, env=shell.environ(), text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device; make room" in done.stderr


def test_a_home_that_is_no_folder_is_told_with_what_to_do(shell: Shell) -> None:
    done = shell.run("key", "create", "--name", "x", STOKER_HOME="/dev/null")
    assert done.code == 1
    assert "/dev/null/state.sqlite3 can't be used: File exists; see that" in done.err
    assert "set STOKER_HOME" in done.err


def test_a_reader_that_leaves_is_no_error_worth_a_word(shell: Shell) -> None:
    process = shell.start("config", "schema")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process:
        assert process.wait(60) == 141
        assert process.stderr.read() == ""
