"""What engines were measured to use is remembered, within bounds, and the file is worth no trouble."""

from __future__ import annotations

import json
import logging
import stat
from pathlib import Path
from typing import Any

import attrs
import pytest

from stoker.errors import StokerError
from stoker.gpu import ledger as ledgers
from stoker.gpu.ledger import MIB, Ledger, read_ledger
from stoker.model import EngineSpec, Gpu

GIB = 1024 * MIB
SPEC = EngineSpec(model="qwen", gpus=1, args=("--max-model-len", "8192"))
GPU = Gpu(index=0, uuid="GPU-0", name="H100", memory_total=80 * GIB, memory_used=0)


def noting(path: Path | None = None) -> Ledger:
    return Ledger(path, clock=lambda: 1700000000.0)


def test_nothing_is_known_of_an_engine_that_never_ran() -> None:
    assert noting().needed(SPEC, GPU) is None


def test_the_most_that_a_run_used_is_remembered() -> None:
    ledger = noting()
    ledger.measured(SPEC, GPU, 20 * GIB, anew=True)
    ledger.measured(SPEC, GPU, 30 * GIB, anew=False)
    ledger.measured(SPEC, GPU, 10 * GIB, anew=False)
    assert ledger.needed(SPEC, GPU) == 30 * GIB


def test_two_runs_are_remembered_so_that_a_mistaken_measurement_is_forgotten() -> None:
    ledger = noting()
    for used in (70, 20, 30):
        ledger.measured(SPEC, GPU, used * GIB, anew=True)
    assert ledger.needed(SPEC, GPU) == 30 * GIB


def test_a_measurement_is_rounded_up_to_whole_mebibytes() -> None:
    ledger = noting()
    ledger.measured(SPEC, GPU, 5 * MIB + 1, anew=True)
    assert ledger.needed(SPEC, GPU) == 6 * MIB


def test_a_measurement_of_nothing_is_none() -> None:
    ledger = noting()
    ledger.measured(SPEC, GPU, 0, anew=True)
    assert ledger.entries == ()


@pytest.mark.parametrize(
    "change",
    [
        {"model": "llama"},
        {"runtime": "sglang"},
        {"kind": "embedding"},
        {"args": ("--max-model-len", "4096")},
        {"command": ("vllm",)},
        {"gpus": 2},
        {"tensor_parallel_size": 2},
        {"pipeline_parallel_size": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_engine_is_another_entry(change: dict[str, Any]) -> None:
    ledger = noting()
    ledger.measured(SPEC, GPU, GIB, anew=True)
    assert ledger.needed(attrs.evolve(SPEC, **change), GPU) is None


@pytest.mark.parametrize("change", [{"names": ("q",)}, {"label": "a"}, {"replicas": 3}, {"max_concurrency": 4}])
def test_what_the_engine_is_not_told_makes_no_difference(change: dict[str, Any]) -> None:
    ledger = noting()
    ledger.measured(SPEC, GPU, GIB, anew=True)
    assert ledger.needed(attrs.evolve(SPEC, **change), GPU) == GIB


def test_gpus_of_one_kind_share_what_is_known() -> None:
    ledger = noting()
    ledger.measured(SPEC, GPU, GIB, anew=True)
    assert ledger.needed(SPEC, attrs.evolve(GPU, index=1, uuid="GPU-1", memory_used=7)) == GIB
    assert ledger.needed(SPEC, attrs.evolve(GPU, name="A100")) is None
    assert ledger.needed(SPEC, attrs.evolve(GPU, memory_total=40 * GIB)) is None


def test_the_oldest_entries_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MOST_ENTRIES", 2)
    ledger = noting()
    for model in ("a", "b", "a", "c"):
        ledger.measured(attrs.evolve(SPEC, model=model), GPU, GIB, anew=True)
    assert [entry.model for entry in ledger.entries] == ["a", "c"]


async def test_it_is_kept_in_a_file_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = noting(path)
    ledger.measured(SPEC, GPU, GIB, anew=True)
    await ledger.save()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = noting(path)
    again.load()
    assert again.entries == ledger.entries
    assert again.needed(SPEC, GPU) == GIB


async def test_the_file_is_written_only_when_something_changed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    ledger = noting(path)
    await ledger.save()
    assert not path.exists()
    ledger.measured(SPEC, GPU, GIB, anew=True)
    await ledger.save()
    path.unlink()
    ledger.measured(SPEC, GPU, GIB // 2, anew=False)
    await ledger.save()
    assert not path.exists()


def test_without_a_file_it_begins_empty(tmp_path: Path) -> None:
    ledger = noting(tmp_path / "none.json")
    ledger.load()
    assert ledger.entries == ()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"entries": 1}', '{"entries": [{"model": 1}]}', "\udcff", 10_000 * "["], ids=repr
)
def test_a_file_that_can_not_be_understood_is_set_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    path = tmp_path / "ledger.json"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(StokerError, match="can't be understood"):
        read_ledger(path)
    ledger = noting(path)
    ledger.load()
    assert ledger.entries == ()
    assert not path.exists()
    assert (tmp_path / "ledger.broken").read_text(errors="surrogateescape") == text
    assert "set aside as ledger.broken" in caplog.text


async def test_a_disk_that_takes_nothing_costs_the_measurements_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "not a folder" / "ledger.json"
    path.parent.write_text("")
    ledger = noting(path)
    ledger.load()
    for used in (1, 2):
        ledger.measured(SPEC, GPU, used * GIB, anew=True)
        await ledger.save()
    assert ledger.needed(SPEC, GPU) == 2 * GIB
    complaints = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert ["can't be read" in complaints[0].message, "can't be kept" in complaints[1].message] == [True, True]
    assert len(complaints) == 2
    path.parent.unlink()
    path.parent.mkdir()
    await ledger.save()
    assert json.loads(path.read_text())["entries"][0]["used"] == 2 * GIB, "it is kept as soon as it can be"
