"""Imports point one way. This reads those of every module and names each one that doesn't."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

GROUND = frozenset({"stoker", "errors", "model", "home", "settings", "suggesting", "reaching"})
INSIDE = GROUND | {"contracts", "core"}
PARTS = frozenset({"gpu", "store", "supervise", "gateway", "environments"})
BORDER = frozenset({"containing", "vetting"})
WIRED = (
    INSIDE
    | PARTS
    | BORDER
    | {"doors", "handing_over", "config", "observing", "operations", "web", "hookspecs", "plugins"}
    | {"announcing", "collecting", "ending", "listening", "recovering"}
)

# What each part of stoker may import, besides itself. "stoker" is the package's own __init__.
MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "stoker": frozenset({"client"}),  # when somebody asks for it
    "errors": frozenset(),
    "model": frozenset({"errors"}),
    "pinning": frozenset({"errors"}),
    "home": frozenset({"errors", "model"}),
    "reaching": frozenset({"home"}),
    "suggesting": frozenset(),
    "settings": frozenset({"errors", "model"}),
    "accelerators": frozenset({"errors", "model", "home"}),
    "containing": frozenset({"errors"}),
    "contracts": frozenset({"errors", "model"}),
    "vetting": frozenset({"errors", "model", "containing", "contracts"}),
    "hookspecs": frozenset({"model", "contracts"}),
    "testing": frozenset({"errors", "model", "contracts", "hookspecs"}),
    "builtin": frozenset({"errors", "model", "contracts", "hookspecs"}),
    "plugins": frozenset({"errors", "model", "suggesting", "contracts", "hookspecs", "builtin"}) | BORDER,
    "config": GROUND | BORDER | {"contracts"},
    "core": INSIDE,
    **dict.fromkeys(PARTS, INSIDE | BORDER),
    "observing": frozenset({"errors", "model"}),
    "handing_over": frozenset({"errors"}),
    "log_formats": frozenset(),
    "notifying": frozenset(),
    "access_log": frozenset({"errors", "model", "log_formats"}),
    "returning": INSIDE | PARTS,
    "operations": INSIDE | PARTS | {"config", "returning"},
    "web": INSIDE | PARTS | BORDER,
    "listening": frozenset({"errors", "config"}),
    "collecting": frozenset(),
    "announcing": GROUND | {"supervise"},
    "recovering": INSIDE | PARTS,
    "ending": INSIDE | PARTS | {"operations"},
    "doors": INSIDE | PARTS | {"config", "web"},
    "parts": WIRED | {"accelerators"},
    "app": WIRED | {"accelerators", "access_log", "notifying", "parts"},
    "cli": WIRED | {"app", "client", "accelerators", "log_formats", "pinning"},
    "client": frozenset({"errors", "model", "home", "pinning", "reaching", "suggesting"}),
    "__main__": frozenset({"stoker", "cli", "accelerators"}),
    # __main__: a plugin's commands may be Stoker's own by other names.
    "a plugin": frozenset({"errors", "model", "contracts", "hookspecs", "client", "stoker", "__main__"}),
}

# The core is a function of its arguments: whatever could read a clock, a file or a socket is not on this list.
PURE = frozenset(
    {"__future__", "attrs", "collections", "enum", "hashlib", "ipaddress", "itertools", "re", "types", "typing"}
)


def imported(source: str, package: str) -> Iterator[str]:
    """The dotted name of everything ``source`` imports, also inside functions and for typing only."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield from (f"{module}.{alias.name}" for alias in node.names)


def area_of(name: str, areas: frozenset[str]) -> str:
    """Which part of stoker ``stoker.gateway.routing.Table`` belongs to; names of ``stoker/__init__`` are "stoker"."""
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in areas else "stoker"


def complaints(area: str, module: str, source: str, areas: frozenset[str]) -> Iterator[str]:
    """What is wrong with the imports of one module of ``area``."""
    package = module.removesuffix(".__init__") if module.endswith(".__init__") else module.rpartition(".")[0]
    for name in imported(source, package):
        top = name.partition(".")[0]
        if top == "stoker":
            target = area_of(name, areas)
            if target != area and target not in MAY_IMPORT[area]:
                yield f"{module} ({area}) imports {name} ({target})"
        elif area == "core" and top not in PURE:
            yield f"{module} imports {name}, and the core is pure"


def modules_below(source: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(source.rglob("*.py")):
        yield ".".join(path.relative_to(source).with_suffix("").parts), path


def areas_there_are() -> frozenset[str]:
    folder = ROOT / "src" / "stoker"
    packages = {path.name for path in folder.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    return frozenset(packages | {path.stem for path in folder.glob("*.py")} - {"__init__"})


def area_of_module(module: str) -> str:
    parts = module.split(".")
    if parts[0] != "stoker":
        return "a plugin"
    return "stoker" if parts[1] == "__init__" else parts[1]


def test_every_part_of_the_house_has_its_place_in_the_order() -> None:
    assert areas_there_are() <= MAY_IMPORT.keys(), "say in MAY_IMPORT what the new part may import"


def test_imports_point_one_way() -> None:
    areas = areas_there_are()
    sources = [ROOT / "src", *sorted(ROOT.glob("plugins/*/src"))]
    wrong = [
        complaint
        for source in sources
        for module, path in modules_below(source)
        for complaint in complaints(area_of_module(module), module, path.read_text(), areas)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_order_has_no_circle() -> None:
    """Taking away, again and again, what depends on nothing left must take away everything."""
    left = dict(MAY_IMPORT)
    while left:
        free = {area for area, needs in left.items() if not (needs - {area}) & left.keys()}
        assert free, f"these may import each other: {sorted(left)}"
        left = {area: needs for area, needs in left.items() if area not in free}


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("stoker.model", "from stoker.core import states"),
        ("stoker.contracts", "import stoker.hookspecs"),
        ("stoker.core.fleet", "from stoker.supervise.process import Process"),
        ("stoker.core.fleet", "from stoker import app"),
        ("stoker.core.fleet", "from ..gateway import routing"),
        ("stoker.core.fleet", "def f():\n    import time"),
        ("stoker.core.fleet", "import trio.lowlevel"),
        ("stoker.core.fleet", "from logging import getLogger"),
        ("stoker.core.fleet", "import os"),
        ("stoker.core.fleet", "import socket"),
        ("stoker.gateway.routing", "from stoker.supervise.supervisor import Supervisor"),
        ("stoker.gateway.__init__", "from ..web import app"),
        ("stoker.gateway.upstream", "from stoker import accelerators"),
        ("stoker.supervise.process", "from stoker.builtin import runtimes"),
        ("stoker.web.app", "from stoker.app import run"),
        ("stoker.builtin.policies", "from stoker.settings import Settings"),
        ("stoker.cli.up", "from stoker.builtin import policies"),
        ("stoker.testing.fake_engine", "if TYPE_CHECKING:\n    from stoker.gateway import routing"),
        ("stoker_embedded.runtime", "from stoker.testing import fake_engine"),
        ("stoker_embedded.runtime", "from stoker.home import Home"),
        ("stoker_sage.script", "from stoker.cli.run import run"),
        ("stoker.client.finding", "from stoker.cli import finding"),
        ("stoker.client.wire", "from stoker import __version__"),
    ],
)
def test_a_wrong_import_is_found(module: str, line: str) -> None:
    areas = frozenset(MAY_IMPORT)
    assert list(complaints(area_of_module(module), module, line, areas))


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("stoker.core.fleet", "from stoker.core import events as e"),
        ("stoker.core.fleet", "from collections.abc import Mapping"),
        ("stoker.gateway.routing", "from . import leases"),
        ("stoker.gateway.routing", "import trio"),
        ("stoker.app", "from stoker import __version__, plugins"),
        ("stoker_embedded.runtime", "from stoker.hookspecs import hookimpl"),
        ("stoker_sage.script", "from stoker.__main__ import main"),
    ],
)
def test_a_right_import_is_not(module: str, line: str) -> None:
    areas = frozenset(MAY_IMPORT)
    assert not list(complaints(area_of_module(module), module, line, areas))
