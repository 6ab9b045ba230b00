"""The examples in the docstrings, and those in the guide, against a running gateway."""

from __future__ import annotations

import doctest
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stoker import UnifiedInferenceClient
from stoker.client import asynchronous, sync, sync_managing
from stoker.testing.engines import COMMAND
from tests.e2e.running import Program

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "use-the-python-client.md"


@pytest.fixture
def words(here: Program) -> dict[str, Any]:
    """What the examples take for granted."""
    with UnifiedInferenceClient.create() as client:
        engines = client.engines()
        return {
            "client": UnifiedInferenceClient.create(),
            "command": [*COMMAND, "--port", "{port}", "--model", "{model}"],
            "fake_url": engines[0].base_url,
        }


@pytest.mark.parametrize("module", [sync, sync_managing, asynchronous], ids=lambda module: str(module.__name__))
def test_the_examples_in_the_docstrings_are_true(module: ModuleType, words: dict[str, Any]) -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    examples = [test for test in finder.find(module, extraglobs=words) if test.examples]
    assert examples
    with words["client"]:
        for test in examples:
            run(test)


def test_the_guide_is_true(words: dict[str, Any]) -> None:
    text = GUIDE.read_text()
    parser = doctest.DocTestParser()
    code = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    test = parser.get_doctest(code, dict(words), "the guide", str(GUIDE), 0)
    assert test.examples
    with words["client"]:
        run(test)


def run(test: doctest.DocTest) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL, verbose=False)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
