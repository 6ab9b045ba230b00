"""Plugins are found where they are put; what is wrong with one is said in its name, and costs nobody else anything."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from zipfile import ZipFile

import pytest

from stoker.errors import NotFoundError, PluginError
from stoker.plugins import Registry, Source, beside, build_registry, builtin, places

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


def test_a_project_file_that_is_broken_is_named(place: Path) -> None:
    (place / "pyproject.toml").write_text("[project")
    with pytest.raises(PluginError, match=r"pyproject\.toml can't be understood"):
        load(place)


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
        (POLICY.replace("_policies", "_polices"), "did you mean 'stoker_register_policies'?"),
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
        (POLICY.replace("{name}", "least-load"), "of plugin 'builtin.policies'"),
        (POLICY.replace("[First()]", "[First(), First()]"), "of plugin 'mine'"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_of_the_plugin_remains(place: Path, source: str, says: str) -> None:
    assert says in problem(place, source.replace("{name}", "first").replace("{{", "{").replace("}}", "}"))


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


def test_a_place_without_any_plugin_is_remarked_on(place: Path) -> None:
    done = stoker("plugin", "list", "--plugin-path", place, cwd=place)
    assert (done.returncode, done.stderr) == (0, f"there is no plugin in {place}\n")
