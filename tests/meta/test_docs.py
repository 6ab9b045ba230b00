"""The documents say what is true, as far as a test can tell."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import attrs
import pytest

from drawing.marks import redrawn
from stoker.core.codes import Code
from stoker.model import EngineInfo
from tests.pages import FENCE, PAGES, ROOT

TEST_COMMAND = "python3 -m pip install -e '.[test]' && python3 -m pytest"
MARK = "<!-- drawn by docs/generate.py: {} -->\n"
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Pages drawn from the code


def generate() -> ModuleType:
    return load(ROOT / "docs" / "generate.py")


def test_drawn_pages_are_up_to_date() -> None:
    for path, text in generate().pages().items():
        assert path.read_text() == text, f"{path.name} is out of date; run: python3 docs/generate.py"


def test_every_page_with_marks_is_drawn() -> None:
    marked = {page for page in PAGES if re.search("^<!-- drawn", page.read_text(), re.MULTILINE)}
    assert marked == set(generate().pages())


@pytest.mark.parametrize(
    "page",
    [
        "no mark at all",
        MARK.format("one"),
        MARK.format("one") + "<!-- end -->\n",
        MARK.format("one") + MARK.format("two") + "<!-- end -->\n",
        (MARK.format("one") + "<!-- end -->\n") * 2 + MARK.format("two") + "<!-- end -->\n",
        "".join(MARK.format(name) + "<!-- end -->\n" for name in ("one", "two", "three")),
    ],
)
def test_a_page_with_other_marks_than_it_should_have_is_not_drawn(page: str) -> None:
    with pytest.raises(ValueError, match="marks"):
        redrawn(page, {"one": str, "two": str})


def test_only_what_is_between_the_marks_is_drawn_anew() -> None:
    page = f"before\n\n{MARK.format('one')}\nold\n\n<!-- end -->\n\nafter\n"
    assert redrawn(page, {"one": lambda: "new"}) == page.replace("old", "new")


def test_every_code_of_an_error_is_answered_with_somewhere() -> None:
    sources = "".join(file.read_text() for file in (ROOT / "src").rglob("*.py"))
    assert [code for code in Code if not re.search(rf"Code\.{code.name}\b", sources)] == []


# Pages written by hand


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = [target.partition("#")[0] for target in LINK.findall(page.read_text()) if "://" not in target]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert not missing


def heading_ids(page: Path) -> set[str]:
    """What can stand behind the ``#`` of a link to a page, as those who show Markdown make it of headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_a_part_of_a_page_lead_there(page: Path) -> None:
    parts = [target.split("#") for target in LINK.findall(page.read_text()) if "#" in target and "://" not in target]
    missing = [
        f"{target}#{part}"
        for target, part in parts
        if part not in heading_ids((page.parent / target).resolve() if target else page)
    ]
    assert not missing


def test_the_index_leads_to_every_page() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / target).resolve() for target in LINK.findall(index.read_text())}
    pages = {*ROOT.glob("docs/**/*.md"), *ROOT.glob("plugins/*/README.md"), *ROOT.glob("examples/**/README.md")}
    assert pages - {index} <= linked


# The README's commands


def test_the_readme_says_how_to_run_and_how_to_test() -> None:
    commands = [line for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    assert "python3 zipapp.py --run demo" in commands
    assert TEST_COMMAND in commands


def test_ci_runs_the_test_command_of_the_readme() -> None:
    """It takes the command from the README; this runs the line that does."""
    script = (ROOT / ".ci" / "run").read_text()
    [taking] = re.findall(r"^test_command=\$\((.*)\)", script, re.MULTILINE)
    taken = subprocess.run(["bash", "-c", taking], cwd=ROOT, capture_output=True, text=True, check=True)
    assert taken.stdout == TEST_COMMAND + "\n"
    assert 'bash -c "$test_command"' in script


def test_every_field_of_an_engine_is_on_the_http_page() -> None:
    page = (ROOT / "docs" / "reference" / "http.md").read_text()
    assert [field.name for field in attrs.fields(EngineInfo) if f"`{field.name}`" not in page] == []
