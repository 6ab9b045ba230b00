"""Where plugins are: among the built-ins, in the running interpreter, and in the places that somebody names.

Nothing is imported here but by :meth:`Source.load`.
"""

from __future__ import annotations

import importlib
import re
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import Distribution, EntryPoint, distributions, entry_points
from pathlib import Path
from types import ModuleType

import attrs

from stoker.errors import PluginError
from stoker.hookspecs import PROJECT

_MARK = re.compile(rb"\bhookimpl\b")


@attrs.frozen
class Source:
    """A plugin that was found. ``origin`` tells people where; ``target`` is what of it is loaded, ``module:attribute``.

    ``load`` imports it, and raises whatever a stranger's import may raise.
    """

    name: str
    origin: str
    target: str
    load: Callable[[], object]
    builtin: bool = False


def installed() -> Iterator[Source]:
    """What the entry-point group ``stoker`` names in the running interpreter; in the one file, also what is in that."""
    for entry in entry_points(group=PROJECT):
        yield Source(entry.name, _of_distribution(entry.dist), entry.value, entry.load)


def beside(place: Path) -> Iterator[Source]:
    """What is in ``place``, which somebody named as a place for plugins. It may be

    - a module (``mine.py``) that has hooks;
    - a wheel;
    - a distribution's sources: a folder with a ``pyproject.toml`` whose entry points name the plugin;
    - a folder of any of these, of packages that have hooks, and of what ``pip install --target`` leaves.

    Raises :class:`PluginError` for a place that is not there, or can't be read.
    """
    place = place.absolute()
    try:
        if place.is_dir():
            yield from _in_folder(place)
        elif place.suffix == ".whl":
            yield from _in_distributions(place)
        elif place.suffix == ".py":
            yield _module(place)
        elif place.exists():
            raise PluginError(f"{place} is no place for plugins: name a folder, a module (.py) or a wheel (.whl)")
        else:
            raise PluginError(f"there is no {place}; correct --plugin-path or STOKER_PLUGIN_PATH")
    except OSError as error:
        raise PluginError(f"the place for plugins {place} can't be read: {error}") from error


def _in_folder(folder: Path) -> Iterator[Source]:
    if (folder / "pyproject.toml").is_file():
        yield from _in_project(folder)
        return
    packed = list(_in_distributions(folder))
    yield from packed
    packed_modules = {source.target.partition(":")[0].partition(".")[0] for source in packed}
    for each in sorted(folder.iterdir()):
        if each.name.startswith((".", "_", "test_")) or each.name == "conftest.py" or each.stem in packed_modules:
            continue
        if each.suffix == ".whl":
            yield from _in_distributions(each)
        elif (each / "pyproject.toml").is_file():
            yield from _in_project(each)
        elif _has_hooks(each if each.suffix == ".py" else each / "__init__.py"):
            yield _module(each)


def _has_hooks(file: Path) -> bool:
    return file.is_file() and _MARK.search(file.read_bytes()) is not None


def _module(file: Path) -> Source:
    return Source(file.stem, str(file), file.stem, partial(_import_from, file.parent, file.stem))


def _in_distributions(place: Path) -> Iterator[Source]:
    """Of installed distributions in a folder, or of a wheel."""
    for found in distributions(path=[str(place)]):
        for entry in found.entry_points.select(group=PROJECT):
            origin = f"{_of_distribution(found)} in {place}"
            yield Source(entry.name, origin, entry.value, partial(_load_entry, place, entry))


def _in_project(folder: Path) -> Iterator[Source]:
    """Of the sources of a distribution, as its author has them."""
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text()).get("project", {})
        targets = dict(project.get("entry-points", {}).get(PROJECT, {}))
        about = f"{project.get('name', folder.name)} {project.get('version', '')}".strip()
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, AttributeError, TypeError, ValueError) as error:
        raise PluginError(f"{folder / 'pyproject.toml'} can't be understood: {error}") from error
    sources = folder / "src" if (folder / "src").is_dir() else folder
    for name, target in targets.items():
        entry = EntryPoint(name, target, PROJECT)
        yield Source(name, f"{about} in {folder}", target, partial(_load_entry, sources, entry))


def _of_distribution(distribution: Distribution | None) -> str:
    return "" if distribution is None else f"{distribution.metadata['Name']} {distribution.version}"


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
    if place.resolve() not in file.resolve().parents:
        raise PluginError(f"its module {name!r} has the name of another one, {file}; give it another name")
    return module


def places(variable: str | None, named: Sequence[Path]) -> Sequence[Path]:
    """The places that ``--plugin-path`` names, then those in ``STOKER_PLUGIN_PATH``, each once."""
    found = [*named, *(Path(each) for each in (variable or "").split(":") if each)]
    return tuple(dict.fromkeys(each.absolute() for each in found))
