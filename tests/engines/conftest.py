"""Every engine family that is installed here, behind a gateway of its own. Those that are not are skipped by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.home import Home
from tests.e2e.conftest import embedded_home, pyz
from tests.e2e.running import running

from . import families
from .families import Family, NotHereError
from .serving import Served

__all__ = ["embedded_home", "pyz"]  # fixtures of the other end-to-end tests


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of these run the built file."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="module", params=["embedded", "llama-cpp", "vllm"])
def family(request: pytest.FixtureRequest, embedded_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Family:
    """Each family in its turn."""
    folder = tmp_path_factory.mktemp(request.param)
    try:
        if request.param == "vllm":
            return families.vllm(embedded_home, folder)
        if request.param == "llama-cpp":
            return families.llama_cpp(embedded_home, folder)
        return families.embedded(embedded_home)
    except NotHereError as reason:
        pytest.skip(f"{request.param} is not tested: {reason}")


@pytest.fixture(scope="module")
def served(family: Family, pyz: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A gateway with the engines of one family, both READY."""
    config = tmp_path_factory.mktemp("config") / "stoker.toml"
    config.write_text(f'[gateway]\nlisten = "127.0.0.1:0"\nqueue_seconds = 2\n{family.config}')
    with running(pyz, family.home, "up", "-c", str(config), **family.env) as program:
        program.wait_until_ready(2, seconds=family.start_seconds)
        yield Served(program, family)


@pytest.fixture(scope="module")
def python() -> str:
    """The interpreter of an environment that has vLLM."""
    try:
        return families.vllm_python()
    except NotHereError as reason:
        pytest.skip(f"vllm is not tested: {reason}")
