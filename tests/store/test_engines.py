"""The list of engines comes back as it was."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from stoker.model import AdapterPaths, EngineRun, EngineSpec, KeptEngine, LaunchPlan, Origin, SleepPaths, TokenProbe
from stoker.store.database import Database, open_database
from stoker.store.engines import EngineStore
from stoker.store.schema import MIGRATIONS

SPEC = EngineSpec(
    model="Qwen/Qwen2.5-0.5B-Instruct",
    names=("qwen",),
    gpus=2,
    args=("--max-model-len", "8192"),
    env={"HF_HOME": "/models"},
    max_concurrency=4,
    metadata={"team": ["a", 1, None]},
    stall_seconds=7.5,
)
RUN = EngineRun(
    engine_id="qwen",
    incarnation=7,
    mark="home:run:qwen:7",
    boot_id="boot",
    pid=4711,
    started=99,
    host="127.0.0.1",
    port=8001,
    plan=LaunchPlan(
        base_url="http://127.0.0.1:8001",
        metrics_path="/metrics",
        token_probe=TokenProbe(path="/v1/completions", body={"prompt": "1", "max_tokens": 1}),
        names=("qwen",),
        sleeping=SleepPaths(sleep="/sleep", wake="/wake", asleep="/asleep"),
        adapters=AdapterPaths(load="/load", unload="/unload"),
    ),
    gpus=("GPU-0", "GPU-1"),
    promised={"GPU-0": 2**33, "GPU-1": None},
    adapters=("sql",),
    ready=True,
)
ONE = KeptEngine(engine_id="qwen", spec=SPEC, origin=Origin.MANAGED, configured=True, wanted=True, run=RUN)
TWO = KeptEngine(
    engine_id="elsewhere",
    spec=EngineSpec(model="m", runtime="remote", url="http://127.0.0.1:9"),
    origin=Origin.REGISTERED,
    configured=False,
    wanted=False,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(tmp_path / "state.sqlite3", MIGRATIONS)
    yield opened
    opened.close()


async def test_engines_come_back_as_they_were_and_in_their_order(database: Database) -> None:
    store = EngineStore(database)
    assert await store.load() == ()
    assert await store.save([TWO, ONE])
    assert await store.load() == (TWO, ONE)
    starting = attrs.evolve(ONE, run=attrs.evolve(RUN, pid=None, started=None))
    assert await store.save([starting])
    assert await store.load() == (starting,)


async def test_a_row_that_can_not_be_understood_costs_that_engine_alone(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    store = EngineStore(database)
    await store.save([ONE, TWO])

    def spoil(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE engines SET spec = '[1' WHERE engine_id = 'qwen'")

    database.do(spoil)
    assert await store.load() == (TWO,)
    assert "what was kept of engine 'qwen' can't be understood" in caplog.text


async def test_a_full_disk_costs_the_list_and_nothing_else(database: Database) -> None:
    store = EngineStore(database)
    await store.save([TWO])
    database._connection.execute("PRAGMA max_page_count = 1")
    many = [attrs.evolve(TWO, engine_id=f"e{number}") for number in range(500)]
    assert not await store.save(many)
    assert await store.load() == (TWO,)
