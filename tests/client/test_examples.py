"""The examples in the docstrings, and those in the guide, against a running gateway."""

from __future__ import annotations

import doctest
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from stoker import AsyncUnifiedInferenceClient, UnifiedInferenceClient
from stoker.client import asynchronous, sync, sync_managing
from stoker.testing.engines import COMMAND
from tests.e2e.running import Program

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "use-the-python-client.md"


@pytest.fixture
def words(here: Program) -> dict[str, Any]:
    """What the examples take for granted, besides a client."""
    [fake, _] = here.engines()
    return {"command": [*COMMAND, "--port", "{port}", "--model", "{model}"], "fake_url": fake["base_url"]}


@pytest.mark.parametrize("module", [sync, sync_managing], ids=lambda module: str(module.__name__))
def test_the_examples_in_the_docstrings_are_true(module: ModuleType, words: dict[str, Any], client: Any) -> None:
    """For a client that awaits too: its methods are documented by those of the one that blocks."""
    for test in examples_in(module, {**words, "client": client}):
        run(test)


def test_those_of_the_client_that_awaits_are_true(here: Program) -> None:
    for test in examples_in(asynchronous, {}):
        run(test)


def test_every_method_has_an_example_or_says_which_method_it_is_like() -> None:
    for name, method in inspect.getmembers(UnifiedInferenceClient, inspect.isroutine):
        assert name.startswith("_") or ">>> " in (method.__doc__ or ""), name
    for name, method in inspect.getmembers(AsyncUnifiedInferenceClient, inspect.isroutine):
        if not name.startswith("_") and ">>> " not in (method.__doc__ or ""):
            assert method.__doc__ == f"As ``UnifiedInferenceClient.{name}``."
            assert hasattr(UnifiedInferenceClient, name)


def examples_in(module: ModuleType, words: dict[str, Any]) -> list[doctest.DocTest]:
    """The examples in a module, each of which knows ``words``."""
    found = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs=words)
    examples = [test for test in found if test.examples]
    assert examples
    return examples


def test_the_guide_is_true(words: dict[str, Any]) -> None:
    text = GUIDE.read_text()
    parser = doctest.DocTestParser()
    code = "\n".join(re.findall(r"^```pycon\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    test = parser.get_doctest(code, dict(words), "the guide", str(GUIDE), 0)
    assert test.examples
    run(test)


def run(test: doctest.DocTest) -> None:
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL, verbose=False)
    runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)
