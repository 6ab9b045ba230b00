"""Where plugins are: among the built-ins, in the running interpreter, and in the places that somebody names.

Nothing is imported here but by :meth:`Source.load`.
"""

from __future__ import annotations

import importlib
import os
import re
import stat
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import attrs

from stoker.containing import contained
from stoker.errors import PluginError
from stoker.hookspecs import PROJECT

_TARGET = re.compile(r"\w+(\.\w+)*\s*(:\s*\w+(\.\w+)*)?\s*(\[.*\]\s*)?")
_MARK = re.compile(rb"\bhookimpl\b")


@attrs.frozen
class Source:
    """A plugin that was found. ``origin`` tells people where; ``target`` is what of it is loaded, ``module:attribute``.

    ``load`` imports it, and raises whatever a stranger's import may raise. ``file`` is what it would import, as far as
    that can be told without doing so: two of one name and target are the same plugin if they have that in common too.
    """

    name: str
    origin: str
    target: str
    load: Callable[[], object]
    builtin: bool = False
    file: Path | None = None


def installed() -> Iterator[Source]:
    """What the entry-point group ``stoker`` names in the running interpreter; in the one file, also what is in that."""
    yield from _looked_at("installed", Path(sys.prefix), _in_this_python)


def beside(place: Path) -> Iterator[Source]:
    """What is in ``place``, which somebody named as a place for plugins. It may be

    - a module (``mine.py``) or a package (a folder with an ``__init__.py``) that has hooks;
    - a wheel;
    - a distribution's sources: a folder with a ``pyproject.toml`` whose entry points name the plugin;
    - a folder of any of these, of packages that have hooks, and of what ``pip install --target`` leaves.

    What can't be looked at is found too, as a plugin that can't be loaded. Raises :class:`PluginError` for a place that
    is not there, or is none of these.
    """
    place = place.absolute()
    if not os.path.exists(place):  # noqa: PTH110 - Path.exists raises for what it may not look at
        raise PluginError(f"there is no {place}; correct --plugin-path or STOKER_PLUGIN_PATH")
    if place.suffix not in (".whl", ".py") and not place.is_dir():
        raise PluginError(f"{place} is no place for plugins: name a folder, a module (.py) or a wheel (.whl)")
    yield from _looked_at(_called(place), place, partial(_in_place, place))


def _called(place: Path) -> str:
    return place.stem if place.suffix == ".py" else place.name


def _looked_at(name: str, place: Path, find: Callable[[], Iterable[Source]]) -> Sequence[Source]:
    """What ``find`` finds in ``place``; if it fails, one plugin of that ``name``, which tells why when it is loaded."""
    try:
        with contained("it can't be looked at"):
            return tuple(find())
    except PluginError as problem:
        return (Source(name, str(place), str(place), partial(_raise, problem), file=place),)


def _raise(problem: PluginError) -> object:
    raise problem


def _in_this_python() -> Iterator[Source]:
    for entry in entry_points(group=PROJECT):
        yield from _looked_at(entry.name, Path(sys.prefix), partial(_installed, entry))


def _installed(entry: EntryPoint) -> Iterator[Source]:
    """One that is installed. Its package is found without importing it, and what is in that lies where it does."""
    spec = find_spec(_module_of(entry).partition(".")[0])
    file = None
    if spec is not None and spec.origin is not None:
        package = Path(spec.origin)
        file = _file_in(package.parents[1] if spec.submodule_search_locations else package.parent, entry.module)
    yield Source(entry.name, _of_distribution(entry.dist), entry.value, entry.load, file=file)


def _in_place(place: Path) -> Iterable[Source]:
    if place.is_dir():
        return _in_folder(place)
    return _in_wheel(place) if place.suffix == ".whl" else [_module(place)]


def _in_folder(folder: Path) -> Iterator[Source]:
    if (folder / "pyproject.toml").is_file():
        yield from _in_project(folder)
        return
    if _has_hooks(folder / "__init__.py"):
        yield _module(folder)
        return
    packed = list(_in_distributions(folder))
    yield from packed
    packed_modules = {source.target.partition(":")[0].partition(".")[0] for source in packed}
    for each in sorted(folder.iterdir()):
        hidden = each.name.startswith((".", "_", "test_")) or each.name == "conftest.py"
        if not hidden and each.stem not in packed_modules:
            yield from _looked_at(_called(each), each, partial(_in_one_of_many, each))


def _in_one_of_many(each: Path) -> Iterable[Source]:
    """Of what lies in a folder of plugins, where other things may lie too."""
    is_folder = stat.S_ISDIR(each.stat().st_mode)
    if is_folder and (each / "pyproject.toml").is_file():
        return _in_project(each)
    if each.suffix == ".whl":
        return _in_wheel(each)
    if is_folder or each.suffix == ".py":
        return [_module(each)] if _has_hooks(each / "__init__.py" if is_folder else each) else []
    return []


def _has_hooks(file: Path) -> bool:
    return file.is_file() and _MARK.search(file.read_bytes()) is not None


def _module(file: Path) -> Source:
    name = _called(file)
    if "." in name:
        problem = PluginError(f"a module can't have a dot in its name: rename it, to {name.replace('.', '_')!r} say")
        return Source(name, str(file), name, partial(_raise, problem), file=file)
    return Source(name, str(file), name, partial(_import_from, file.parent, name), file=_file_in(file.parent, name))


def _in_wheel(wheel: Path) -> Iterator[Source]:
    ZipFile(wheel).close()  # importlib.metadata finds nothing in one that is broken, and says nothing
    return _in_distributions(wheel)


def _in_distributions(place: Path) -> Iterator[Source]:
    """Of installed distributions in a folder, or of a wheel."""
    for found in distributions(path=[str(place)]):
        info = Path(str(getattr(found, "_path", place)))  # of which only this tells where it is
        yield from _looked_at(info.name, info, partial(_in_distribution, place, found))


def _in_distribution(place: Path, found: Distribution) -> Iterator[Source]:
    for entry in found.entry_points.select(group=PROJECT):
        yield from _looked_at(entry.name, place, partial(_entry, place, entry, f"{_of_distribution(found)} in {place}"))


def _in_project(folder: Path) -> Iterator[Source]:
    """Of the sources of a distribution, as its author has them."""
    file = folder / "pyproject.toml"
    with contained(f"{file} can't be understood"):
        project = tomllib.loads(file.read_bytes().decode()).get("project", {})
        targets = dict(project.get("entry-points", {}).get(PROJECT, {}))
        about = f"{project.get('name', folder.name)} {project.get('version', '')}".strip()
    sources = folder / "src" if (folder / "src").is_dir() else folder
    for name, target in targets.items():
        entry = EntryPoint(name, target, PROJECT)
        yield from _looked_at(name, file, partial(_entry, sources, entry, f"{about} in {folder}"))


def _entry(place: Path, entry: EntryPoint, origin: str) -> Iterable[Source]:
    file = _file_in(place, _module_of(entry))
    return [Source(entry.name, origin, entry.value, partial(_load_entry, place, entry), file=file)]


def _of_distribution(distribution: Distribution | None) -> str:
    return "" if distribution is None else f"{distribution.metadata['Name']} {distribution.version}"


def _module_of(entry: EntryPoint) -> str:
    if not _TARGET.fullmatch(str(entry.value)):
        raise PluginError(f"its entry point leads to {entry.value!r}; it must be 'module' or 'module:object'")
    return entry.module


def _file_in(place: Path, module: str) -> Path:
    """The file of a module of ``place``, wherever a link leads. In a wheel it is one that only has a name."""
    path = place.joinpath(*module.split("."))
    package = path / "__init__.py"
    return (package if package.is_file() else path.with_name(f"{path.name}.py")).resolve()


def _load_entry(place: Path, entry: EntryPoint) -> object:
    loaded: object = _import_from(place, entry.module)
    for attribute in filter(None, (entry.attr or "").split(".")):
        loaded = getattr(loaded, attribute)
    return loaded


def _import_from(place: Path, name: str) -> ModuleType:
    """Import a module of ``place``, which comes last among the paths: so it hides nothing of Stoker's or Python's."""
    if str(place) not in sys.path:
        sys.path.append(str(place))
    importlib.invalidate_caches()
    module = importlib.import_module(name)
    file = Path(getattr(module, "__file__", None) or "")
    if place not in file.parents and place.resolve() not in file.resolve().parents:
        raise PluginError(
            f"its module {name!r} has the name of another one, {file}, which is used; give it another name"
        )
    return module


def places(variable: str | None, named: Sequence[Path]) -> Sequence[Path]:
    """The places that ``--plugin-path`` names, then those in ``STOKER_PLUGIN_PATH``, each once."""
    found = [*named, *(Path(each) for each in (variable or "").split(":") if each)]
    return tuple(dict.fromkeys(each.absolute() for each in found))
