"""Plugins are found where they are put; what is wrong with one is said in its name, and costs nobody else anything."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

import attrs
import pytest

from stoker.errors import NotFoundError, PluginError
from stoker.plugins import Registry, Source, beside, build_registry, builtin, installed, places

POLICY = """
from stoker.hookspecs import hookimpl

class First:
    name = "{name}"
    needs = frozenset()
    def choose(self, request, candidates, now):
        return candidates[0]
    def opened(self, request, candidate): pass
    def closed(self, request, candidate): pass

@hookimpl
def stoker_register_policies():
    return [First()]
"""

RUNTIME = """
from stoker.builtin.runtimes import Command
from stoker.hookspecs import hookimpl
from stoker.model import EnvironmentSpec

class Mine(Command):
    name = "mine"
    environment = {environment}

@hookimpl
def stoker_register_runtimes():
    return [Mine()]
"""


@pytest.fixture(autouse=True)
def imports() -> Iterator[None]:
    """Each test sees plugins for the first time, and leaves none of them behind."""
    paths, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = paths
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def load(*found: Path, strict: bool = False) -> Registry:
    return build_registry(chain(builtin(), *map(beside, found)), strict=strict)


def write(place: Path, source: str, module: str = "mine") -> Path:
    file = place / f"{module}.py"
    file.write_text(source)
    return file


def problem(place: Path, source: str, module: str = "mine") -> str:
    """What is said of a plugin with this source, which is the only thing wrong."""
    registry = load(write(place, source, module))
    assert list(registry.left_out) == [module]
    assert registry.policies.keys() == load().policies.keys(), "something of it remains"
    assert not registry.hooks
    return registry.left_out[module]


# Where plugins are


def test_stokers_own_come_through_the_same_hooks() -> None:
    registry = load()
    assert {record.origin for record in registry.records} == {"built-in"}
    assert registry.policy("least-load").name == "least-load"
    assert registry.owners["policy", "least-load"] == "builtin.policies"


def test_a_module_is_a_plugin(place: Path) -> None:
    file = write(place, POLICY.format(name="first"))
    registry = load(file)
    assert registry.policy("first").name == "first"
    assert registry.records[-1].origin == str(file)
    assert registry.records[-1].provides["policies"] == ("first",)


def test_a_folder_holds_modules_and_packages_of_which_only_those_with_hooks_are_imported(place: Path) -> None:
    write(place, POLICY.format(name="one"), "one")
    write(place, "raise SystemExit('this is no plugin')", "unrelated")
    write(place, POLICY.format(name="tested"), "test_one")
    (place / "package").mkdir()
    write(place / "package", POLICY.format(name="two"), "__init__")
    assert set(load(place).policies) - set(load().policies) == {"one", "two"}


def test_the_sources_of_a_distribution_name_their_plugin_themselves(place: Path) -> None:
    (place / "src").mkdir()
    write(place / "src", POLICY.format(name="first"), "some_module")
    project = '[project]\nname = "dist"\nversion = "3"\n[project.entry-points.stoker]\nmine = "some_module"\n'
    (place / "pyproject.toml").write_text(project)
    [record] = [record for record in load(place.parent).records if record.name == "mine"]
    assert record.origin == f"dist 3 in {place}"
    assert record.problem is None


def wheel(place: Path) -> Path:
    file = place / "dist-2.0-py3-none-any.whl"
    with ZipFile(file, "w") as archive:
        archive.writestr("packed_policy.py", POLICY.format(name="packed"))
        archive.writestr("dist-2.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: dist\nVersion: 2.0\n")
        archive.writestr("dist-2.0.dist-info/entry_points.txt", "[stoker]\npacked = packed_policy\n")
    return file


@pytest.mark.parametrize("in_a_folder", [True, False])
def test_a_wheel_needs_no_unpacking(place: Path, *, in_a_folder: bool) -> None:
    file = wheel(place)
    registry = load(place if in_a_folder else file)
    assert registry.policy("packed").name == "packed"
    assert registry.records[-1].origin == f"dist 2.0 in {file}"


def test_what_pip_leaves_in_a_target_folder_is_found_by_its_entry_points(place: Path) -> None:
    with ZipFile(wheel(place)) as archive:
        archive.extractall(place / "target")
    assert load(place / "target").records[-1].name == "packed"


def test_a_plugin_that_is_found_twice_counts_once(place: Path) -> None:
    file = write(place, POLICY.format(name="first"))
    assert [record.name for record in load(file, place, place).records].count("mine") == 1


@pytest.mark.parametrize(("name", "says"), [("nowhere", "there is no"), ("text.txt", "is no place for plugins")])
def test_a_place_that_is_none_is_an_error(place: Path, name: str, says: str) -> None:
    (place / "text.txt").touch()
    with pytest.raises(PluginError, match=says) as error:
        load(place / name)
    assert str(place / name) in str(error.value)


def broken_project(place: Path) -> str:
    (place / "a_project").mkdir()
    (place / "a_project" / "pyproject.toml").write_text("[project")
    return "a_project"


def project_with_a_target_that_is_none(place: Path) -> str:
    (place / "a_project").mkdir()
    (place / "a_project" / "pyproject.toml").write_text("[project.entry-points.stoker]\nmine = 3\n")
    return "mine"


def broken_wheel(place: Path) -> str:
    (place / "a_wheel.whl").write_text("this is no archive")
    return "a_wheel.whl"


def unreadable_module(place: Path) -> str:
    (place / "a_module.py").symlink_to("/proc/self/mem")  # which nobody can read from its beginning, root neither
    return "a_module"


def link_to_nothing(place: Path) -> str:
    (place / "a_module.py").symlink_to(place / "gone.py")
    return "a_module"


def links_in_a_circle(place: Path) -> str:
    (place / "a_package").symlink_to(place / "a_package")
    return "a_package"


def broken_distribution(place: Path) -> str:
    (place / "dist-1.dist-info").mkdir()
    (place / "dist-1.dist-info" / "entry_points.txt").write_bytes(b"[stoker]\n\xff = x\n")
    return "dist-1.dist-info"


BROKEN = [
    broken_project,
    project_with_a_target_that_is_none,
    broken_wheel,
    unreadable_module,
    link_to_nothing,
    links_in_a_circle,
    broken_distribution,
]


@pytest.mark.parametrize("breaking", BROKEN)
def test_what_can_not_be_looked_at_is_named_and_what_lies_beside_it_works(
    place: Path, breaking: Callable[[Path], str]
) -> None:
    """It refused the start: the search ended with it, and the plugins beside it were lost."""
    name = breaking(place)
    write(place, POLICY.format(name="right"), "right")
    registry = load(place)
    assert registry.policy("right").name == "right"
    assert list(registry.left_out) == [name]
    with pytest.raises(PluginError, match=re.escape(f"plugin {name!r} ({place}/")):
        load(place, strict=True)


def test_a_project_file_that_is_broken_is_named(place: Path) -> None:
    (place / "pyproject.toml").write_text("[project")
    assert f"{place / 'pyproject.toml'} can't be understood" in load(place).left_out["place"]


@pytest.mark.parametrize("target", ["", "sticky:", ":plugin", "sticky plugin", "../sticky"])
def test_an_entry_point_that_leads_nowhere_is_shown_and_costs_only_itself(place: Path, target: str) -> None:
    """It was an AttributeError of the library that reads entry points."""
    write(place, POLICY.format(name="first"), "right")
    (place / "pyproject.toml").write_text(f'[project.entry-points.stoker]\nmine = "{target}"\nright = "right"\n')
    registry = load(place)
    assert registry.left_out == {"mine": f"its entry point leads to {target!r}; it must be 'module' or 'module:object'"}
    assert registry.policy("first").name == "first"


@pytest.mark.parametrize("in_a_folder", [True, False])
def test_a_module_with_a_dot_in_its_name_is_told_to_be_renamed(place: Path, *, in_a_folder: bool) -> None:
    """There was said to be no module 'my'."""
    file = write(place, POLICY.format(name="first"), "my.plugin")
    said = load(place if in_a_folder else file).left_out
    assert said == {"my.plugin": "a module can't have a dot in its name: rename it, to 'my_plugin' say"}


def test_a_package_may_be_named_as_the_place_itself(place: Path) -> None:
    """There was said to be no plugin in it."""
    (place / "package").mkdir()
    file = write(place / "package", "from . import inside\n" + POLICY.format(name="first"), "__init__")
    write(place / "package", "", "inside")
    registry = load(file.parent, place)
    assert registry.policy("first").name == "first"
    assert [record.origin for record in registry.records if record.name == "package"] == [str(file.parent)]
    file.write_text("")
    write(file.parent, POLICY.format(name="second"), "second")
    assert "second" in load(file.parent).policies, "one without hooks is a folder as any other"


def test_a_plugin_may_be_a_link_to_where_it_is_worked_on(place: Path, tmp_path: Path) -> None:
    (place / "linked.py").symlink_to(write(tmp_path, POLICY.format(name="first")))
    assert load(place).policy("first").name == "first"


def test_what_is_hidden_is_no_plugin(place: Path) -> None:
    (place / ".#mine.py").symlink_to("somebody@somewhere.1234")
    assert load(place).records == load().records


def test_places_come_from_the_flag_and_then_from_the_environment() -> None:
    assert places("/b:/a:", [Path("/a"), Path("/c")]) == (Path("/a"), Path("/c"), Path("/b"))


def test_a_plugin_can_not_hide_a_module_of_pythons(place: Path) -> None:
    assert "has the name of another one" in problem(place, POLICY.format(name="first"), "colorsys")


# What is wrong with them


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("hookimpl = 1\nraise OSError('no such luck')", "OSError: no such luck"),
        ("hookimpl = 1\nraise SystemExit(3)", "SystemExit: 3"),
        ("hookimpl = 1\nthis is no Python", "SyntaxError"),
        ("from stoker.hookspecs import hookimpl", "it has no hooks"),
        (POLICY.replace("_policies", "_polices"), "did you mean stoker_register_policies?"),
        (POLICY.replace("@hookimpl", ""), "put @hookimpl"),
        (POLICY.replace("register_policies()", "register_policies(manager)"), "manager"),
        (POLICY.replace("[First()]", "3"), "returned a int"),
        (POLICY.replace("[First()]", "1 / 0"), "ZeroDivisionError"),
        (POLICY.replace("    def opened(self, request, candidate): pass\n", ""), "it has no 'opened'"),
        (POLICY.replace("candidates, now)", "candidates)"), r"'choose' must take (request, candidates, now)"),
        (POLICY.replace("def choose", "async def choose"), "'choose' is async"),
        (POLICY.replace("{name}", "Not A Name"), "lower case"),
        (
            POLICY.replace("frozenset()", "frozenset({{'soul'}})"),
            "'soul'; there is only: body, headers, prompt, session",
        ),
        (POLICY.replace("frozenset()", "3"), "needs are 3"),
        (POLICY.replace("[First()]", "[First]"), "First is a class; give an instance of it: First()"),
        (POLICY + "First.explain = 3", "'explain' can't be called"),
        (POLICY + "async def f(self, options): pass\nFirst.configured = f", "'configured' is async"),
        (POLICY.replace("{name}", "least-load"), "of plugin 'builtin.policies'"),
        (POLICY.replace("[First()]", "[First(), First()]"), "of plugin 'mine'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_of_the_plugin_remains(place: Path, source: str, says: str) -> None:
    assert says in problem(place, source.replace("{name}", "first").replace("{{", "{").replace("}}", "}"))


HOOK = """
from stoker.hookspecs import hookimpl

@hookimpl{marked}
{define} stoker_{hook}({takes}):
    {body}
"""


def hook(hook: str, takes: str = "", *, define: str = "def", marked: str = "", body: str = "pass") -> str:
    return HOOK.format(hook=hook, takes=takes, define=define, marked=marked, body=body)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (hook("request_finished", "record", define="async def"), "stoker_request_finished is async"),
        (
            hook("register_policies", define="async def"),
            "stoker_register_policies is async; it must be a plain function",
        ),
        (
            hook("engine_changed", "after", marked="(wrapper=True)", body="yield"),
            "stoker_engine_changed is marked as a",
        ),
        (hook("engine_changed", "after", marked="(hookwrapper=True)", body="yield"), "is marked as a wrapper"),
        (
            hook("engine_changed", "after", body="yield"),
            "stoker_engine_changed has a 'yield' in it, so that calling it",
        ),
        (
            hook("engine_changed", "engine"),
            "asks for 'engine', which it is not given; it may take, by name: before, af",
        ),
        (hook("request_finished", "record, /"), "asks for 'record', which it is not given; it may take, by name: rec"),
        (hook("request_finished", "record, *, more"), "asks for 'more', which it is not given"),
        (hook("register_policies", "manager"), "asks for 'manager', which it is not given; it takes no arguments"),
        (
            "async def policies(): return []" + hook("register_policies", body="return policies()"),
            "stoker_register_policies returned a coroutine; it must return a list",
        ),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_hook_that_could_not_be_called_or_would_never_run_is_refused(place: Path, source: str, says: str) -> None:
    """Observers that are async, or have a ``yield``, were called for ever, and did nothing."""
    said = problem(place, source)
    assert says in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("takes", "given"),
    [
        ("after", [2]),
        ("before, *, after", [1, 2]),
        ("before=0, after=0", [1, 2]),
        ("before, **rest", [1, {"after": 2}]),
    ],
)
def test_a_hook_is_given_what_it_takes_however_it_says_so(place: Path, takes: str, given: object) -> None:
    """One whose arguments had defaults was given none of them."""
    source = hook("engine_changed", takes, body="return list(locals().values())")
    [implementation] = load(write(place, source)).implementations("stoker_engine_changed")
    assert implementation(before=1, after=2) == given


def test_a_class_where_its_instance_is_meant_is_told_so(place: Path) -> None:
    source = OBJECT.replace("plugin = Plugin()", "plugin = Plugin")
    registry = of_an_object(place, source.format(name="state", error="RuntimeError"))
    assert registry.left_out["mine"] == "Plugin is a class; let the plugin be an instance of it: Plugin()"


def test_whatever_it_says_is_told_in_one_line(place: Path) -> None:
    assert problem(place, "hookimpl = 1\nraise OSError('no\\nsuch\\n  luck')").endswith("OSError: no such luck")


@pytest.mark.parametrize(("named", "first"), [("another", True), ("another", False), ("mine", False)])
def test_a_module_that_is_installed_as_well_is_told_in_a_line_with_the_one_that_is_used(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, *, first: bool
) -> None:
    """Of the one that Python finds ``first``, both times."""
    info = tmp_path / "site" / "dist-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dist\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text(f"[stoker]\n{named} = mine\n")
    theirs, mine = (write(folder, POLICY.format(name="first")) for folder in (info.parent, place))
    monkeypatch.syspath_prepend(info.parent)
    if first:
        monkeypatch.syspath_prepend(place)
    records = build_registry(chain(beside(mine), installed())).records
    [said] = [record.problem for record in records if record.problem and record.name in ("mine", named)]
    assert said in (
        f"it is the plugin 'mine' ({mine}) under another name; that one is used",
        f"its module 'mine' has the name of another one, {theirs}, which is used; give it another name",
    )


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ("'vllm'", "its environment is 'vllm', and must be an EnvironmentSpec or None"),
        (
            "EnvironmentSpec(requirements='vllm')",
            "its environment.requirements is 'vllm', and must be a tuple",
        ),
        ("EnvironmentSpec(requirements=(), files={'a': b'c'})", "its environment.files is {'a': b'c'}"),
        ("EnvironmentSpec(requirements=(), summary=None)", "its environment.summary is None, and must be a text"),
    ],
)
def test_what_a_runtime_is_besides_its_methods_is_held_against_the_contract_too(
    place: Path, environment: str, says: str
) -> None:
    """It was taken as it was, and ``stoker runtime list`` was a traceback."""
    assert f"Mine is no EngineRuntime: {says}" in problem(place, RUNTIME.format(environment=environment))


def test_a_runtime_with_an_environment_is_right(place: Path) -> None:
    environment = "EnvironmentSpec(requirements=['vllm'], files={'a': 'b'}, prepare=('{python}',))"
    assert load(write(place, RUNTIME.replace("{environment}", environment))).runtime("mine").environment


def test_a_plugin_that_breaks_only_when_it_is_looked_at_is_left_out_too(place: Path) -> None:
    source = POLICY.format(name="first").replace('name = "first"', "name = property(lambda self: 1 / 0)")
    assert "ZeroDivisionError" in problem(place, source)


def test_a_broken_one_costs_no_other_plugin_anything(place: Path) -> None:
    write(place, "hookimpl = 1\nraise OSError", "a_broken_one")
    write(place, POLICY.format(name="right"), "right")
    registry = load(place)
    assert registry.policy("right").name == "right"
    assert list(registry.left_out) == ["a_broken_one"]
    assert "a_broken_one" not in registry.plugins


def test_the_same_name_twice_names_both(place: Path) -> None:
    write(place, POLICY.format(name="first"), "one")
    write(place, POLICY.format(name="first"), "two")
    registry = load(place)
    assert registry.owners["policy", "first"] == "one"
    assert "of plugin 'one'" in registry.left_out["two"]


def test_two_plugins_of_one_name_are_told_apart(place: Path) -> None:
    (place / "elsewhere").mkdir()
    mine = write(place, POLICY.format(name="first"))
    named = Source("mine", "somewhere else", "another_module", lambda: None)
    registry = build_registry([*builtin(), *beside(mine), named])
    assert [record.problem is None for record in registry.records if record.name == "mine"] == [True, False]


@pytest.mark.parametrize("policy", ["first", "second"])
def test_two_files_of_one_name_are_two_plugins_and_both_are_named(place: Path, policy: str) -> None:
    """The second was silently taken for the first, because its module has the same name."""
    first, second = place / "a", place / "b"
    first.mkdir()
    second.mkdir()
    write(first, POLICY.format(name="first"), "pol")
    write(second, POLICY.format(name=policy), "pol")
    registry = load(first, second)
    assert registry.records[-1].origin == str(second / "pol.py")
    assert f"there is another plugin of that name, {first / 'pol.py'}" in registry.left_out["pol"]
    assert registry.policy("first").name == "first"


def test_a_plugin_that_is_found_through_a_link_as_well_counts_once(place: Path, tmp_path: Path) -> None:
    (place / "mine.py").symlink_to(write(tmp_path, POLICY.format(name="first")))
    assert [record.problem for record in load(tmp_path / "mine.py", place).records if record.name == "mine"] == [None]


@pytest.mark.parametrize("module", ["packed_policy.py", "packed_policy/__init__.py"])
def test_the_sources_of_what_is_installed_are_the_same_plugin(
    place: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    """As with ``pip install -e``: an entry point of this Python leads to the folder that somebody named, too."""
    info = place / "site" / "dist-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: dist\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[stoker]\npacked = packed_policy\n")
    (place / "pyproject.toml").write_text('[project.entry-points.stoker]\npacked = "packed_policy"\n')
    (place / "src" / module).parent.mkdir(parents=True)
    (place / "src" / module).write_text(POLICY.format(name="packed"))
    monkeypatch.syspath_prepend(place / "site")
    monkeypatch.syspath_prepend(place / "src")
    records = build_registry(chain(beside(place), installed())).records
    assert [record.problem for record in records if record.name == "packed"] == [None]


def test_a_broken_plugin_that_is_found_twice_is_told_once(place: Path) -> None:
    file = write(place, "hookimpl = 1\nraise OSError")
    assert [record.name for record in load(file, place).records].count("mine") == 1


def test_one_object_is_not_two_plugins(place: Path) -> None:
    [source] = beside(write(place, POLICY.format(name="first")))
    again = attrs.evolve(source, name="another")
    assert build_registry([source, again]).left_out == {
        "another": f"it is the plugin 'mine' ({source.origin}) under another name; that one is used"
    }


OBJECT = """
from stoker.hookspecs import hookimpl

class Plugin:
    @property
    def {name}(self):
        raise {error}

    @hookimpl
    def stoker_engine_changed(self):
        pass

plugin = Plugin()
"""


def of_an_object(place: Path, source: str) -> Registry:
    write(place, source)
    (place / "pyproject.toml").write_text('[project.entry-points.stoker]\nmine = "mine:plugin"\n')
    return load(place)


@pytest.mark.parametrize(
    ("error", "says"),
    [("RuntimeError('not yet')", "RuntimeError: not yet"), ("SystemExit(3)", "SystemExit: 3")],
)
def test_an_object_that_breaks_when_it_is_looked_at_is_left_out(place: Path, error: str, says: str) -> None:
    """What a property of the plugin itself raised ended the start."""
    registry = of_an_object(place, OBJECT.format(name="stoker_engine_started", error=error))
    assert says in registry.left_out["mine"]
    assert not registry.hooks


def test_properties_that_have_nothing_to_do_with_hooks_are_not_looked_at(place: Path) -> None:
    registry = of_an_object(place, OBJECT.format(name="connection", error="RuntimeError('not yet')"))
    assert registry.hooks.keys() == {"stoker_engine_changed"}


def test_a_plugin_that_can_not_even_say_what_is_wrong_is_left_out(place: Path) -> None:
    source = "hookimpl = 1\nclass Silent(Exception):\n    def __str__(self): raise self\nraise Silent"
    assert problem(place, source) == "it can't be loaded: Silent"


def test_strict_names_plugin_and_place_instead(place: Path) -> None:
    file = write(place, "hookimpl = 1\nraise OSError('no such luck')")
    with pytest.raises(PluginError) as error:
        load(file, strict=True)
    assert str(error.value) == f"plugin 'mine' ({file}): it can't be loaded: OSError: no such luck"


def test_one_of_stokers_own_that_is_broken_is_never_left_out() -> None:
    def broken() -> object:
        raise OSError

    with pytest.raises(PluginError, match="'builtin'"):
        build_registry([Source("builtin", "built-in", "x", broken, builtin=True)])


def test_what_nobody_provides_is_answered_with_what_there_is() -> None:
    with pytest.raises(NotFoundError, match="there is no scheduler 'x'; there are: none, pack, spread"):
        load().scheduler("x")


def test_other_hooks_are_kept_with_what_they_take(place: Path) -> None:
    source = "from stoker.hookspecs import hookimpl\n@hookimpl\ndef stoker_engine_changed(after):\n    return after\n"
    [implementation] = load(write(place, source)).implementations("stoker_engine_changed")
    assert implementation.plugin == "mine"
    assert implementation(before=1, after=2) == 2


# The command line


def stoker(*arguments: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    environ = {"STOKER_HOME": str(cwd / "home"), "PYTHONPATH": ":".join(path for path in sys.path if path), **env}
    command: Sequence[str | Path] = [sys.executable, "-m", "stoker", *arguments]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False)


def test_the_listing_tells_what_is_left_out_and_fails_only_if_told_to_be_strict(place: Path) -> None:
    write(place, "hookimpl = 1\nraise OSError('no such luck')")
    lax, strict = (
        stoker("plugin", "list", *more, cwd=place, STOKER_PLUGIN_PATH=str(place)) for more in ([], ["--strict"])
    )
    assert (lax.returncode, strict.returncode) == (0, 1)
    assert "left out: it can't be loaded: OSError: no such luck" in lax.stdout
    assert "no such luck" in strict.stderr


def test_what_a_plugin_prints_is_no_part_of_the_listing(place: Path) -> None:
    """It was: ``plugin list --json`` was no JSON any more."""
    write(place, "print('imported')\n" + POLICY.format(name="first").replace("return [", "print('asked'); return ["))
    done = stoker("plugin", "list", "--json", "--plugin-path", place, cwd=place)
    assert "first" in json.dumps(json.loads(done.stdout))
    assert done.stderr == "imported\nasked\n"


def test_a_place_without_any_plugin_is_remarked_on(place: Path) -> None:
    done = stoker("plugin", "list", "--plugin-path", place, cwd=place)
    assert (done.returncode, done.stderr) == (0, f"there is no plugin in {place}\n")
