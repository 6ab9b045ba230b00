from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from stoker.contracts import EngineRuntime
from stoker.errors import PermanentLaunchError
from stoker.model import EngineSpec, Placement
from stoker.testing.runtimes import RuntimeConformance
from stoker_tei import SERVER, TextEmbeddingsInference

GOOD = EngineSpec(model="BAAI/bge-small-en-v1.5", names=("bge",), runtime="tei", kind="embedding")


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is found as the server: plans name it, and nothing of it is run."""
    server = tmp_path / SERVER
    server.touch(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    return server


class TestTextEmbeddingsInference(RuntimeConformance):
    def make_runtime(self) -> EngineRuntime:
        return TextEmbeddingsInference()

    def good_specs(self) -> Sequence[EngineSpec]:
        return [GOOD]


def test_a_server_that_is_not_installed_is_named(server: Path) -> None:
    server.unlink()
    with pytest.raises(PermanentLaunchError, match=f"no {SERVER} on PATH"):
        TextEmbeddingsInference().plan(GOOD, Placement(), 9000)


def test_its_queue_is_read() -> None:
    lines = ["te_queue_size 3", 'te_request_success{method="batch"} 5', 'te_request_success{method="single"} 7']
    load = TextEmbeddingsInference().scrape("\n".join(lines))
    assert (load.waiting, load.progress) == (3.0, 12.0)


def test_other_kinds_are_refused() -> None:
    complaints = TextEmbeddingsInference().check(EngineSpec(model="m", runtime="tei"))
    assert complaints == ['runtime "tei" serves kind = "embedding", not \'llm\'']
