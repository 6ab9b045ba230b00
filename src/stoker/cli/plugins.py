"""Loads the plugins that commands need: Stoker's own, those that somebody put beside the file, and installed ones."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

from stoker.cli.activity import warn
from stoker.cli.invocation import archive
from stoker.errors import PluginError
from stoker.plugins import Registry, Source, beside, build_registry, builtin, installed, places, untrusted

VARIABLE = "STOKER_PLUGIN_PATH"
FOLDER = "stoker-plugins"


def load_plugins(named: Sequence[Path] = (), *, strict: bool = False, needed: bool = True) -> Registry:
    """Everything the plugins provide. What is broken is left out, and said on standard error.

    ``named`` are the places of ``--plugin-path``; ``STOKER_PLUGIN_PATH`` and the folder ``stoker-plugins`` beside the
    one file come after them. Raises PluginError for a place that is not there, and with ``strict`` for a broken plugin.
    Where plugins are not ``needed`` to go on, a place that is not there is only said too.
    """
    elsewhere = chain.from_iterable(_at(place, needed=needed) for place in places(os.environ.get(VARIABLE), named))
    sources = chain(builtin(), elsewhere, _beside_the_file(strict=strict), installed())
    registry = build_registry(sources, strict=strict)
    for record in registry.records:
        if record.problem is not None:
            warn(f"plugin {record.name!r} ({record.origin}) is left out: {record.problem}")
    return registry


def _at(place: Path, *, needed: bool) -> Sequence[Source]:
    try:
        found = list(beside(place))
    except PluginError as error:
        if needed:
            raise
        warn(str(error))
        return ()
    if not found:
        warn(f"there is no plugin in {place}")
    return found


def _beside_the_file(*, strict: bool) -> Iterator[Source]:
    file = archive()
    folder = None if file is None else file.parent / FOLDER
    if folder is None or not folder.is_dir():
        return
    if doubt := untrusted(folder, os.getuid()):
        message = f"the plugins in {folder} are left out: {doubt}; if that is right, name the folder with --plugin-path"
        if strict:
            raise PluginError(message)
        warn(message)
        return
    yield from beside(folder)
