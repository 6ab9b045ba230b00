"""The page about the metrics lists those there are, with their types, labels and buckets, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import Metric

from stoker.gateway.counters import Counters
from stoker.gateway.measures import (
    DURATION_BOUNDS,
    FIRST_BYTE_BOUNDS,
    GAP_BOUNDS,
    MOST_LABEL_SETS,
    MOST_REQUEST_SETS,
    Measures,
)
from stoker.gateway.usage import Usage
from stoker.model import EngineLoad
from stoker.testing.records import engine_info
from stoker.web.families import ObserverState, Page, PolicyState

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md").read_text()
ROW = re.compile(r"^\| `(\w+)` \| (counter|gauge|histogram) \| ([^|]*)\| \S.*\|$", re.MULTILINE)

ENGINE = engine_info(engine_id="m-1", model="m", max_concurrency=8, load=EngineLoad(kv_cache_used=0.5))


def one_of_everything() -> Page:
    measures = Measures()
    measures.finished("m", "m-1", "/v1/chat/completions", 200, 1.0, 0.5)
    measures.relayed("m", "m-1", 1, 2)
    measures.tokens("m", "m-1", Usage(1, 2))
    policies = (PolicyState("least-load", {"raised": 0}, in_service=True),)
    observers = (ObserverState("usage", dropped=0, failures=0),)
    return Page(
        measures.snapshot(),
        Counters(),
        (ENGINE,),
        policies,
        observers,
        {"invalid_api_key": 1},
        waiting=0,
        waiting_limit=1,
    )


def described(metric: Metric) -> tuple[str, str, frozenset[str]]:
    """Its name as it stands in the text format and in queries, its type and its labels."""
    labels = frozenset(label for sample in metric.samples for label in sample.labels) - {"le"}
    suffix, kind = {"counter": ("_total", "counter"), "info": ("_info", "gauge")}.get(metric.type, ("", metric.type))
    return metric.name + suffix, kind, labels


def test_every_metric_is_there_with_its_type_and_labels_and_no_other() -> None:
    rows = {(name, kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in ROW.findall(PAGE)}
    there_are = {described(metric) for metric in one_of_everything().collect()}
    assert {row for row in rows if row[0].startswith("stoker_")} == {
        row for row in there_are if row[0].startswith("stoker_")
    }
    if Path("/proc/self/stat").exists():
        assert rows == there_are


@pytest.mark.parametrize(
    ("name", "bounds"),
    [
        ("stoker_request_duration_seconds", DURATION_BOUNDS),
        ("stoker_time_to_first_byte_seconds", FIRST_BYTE_BOUNDS),
        ("stoker_inter_chunk_seconds", GAP_BOUNDS),
    ],
)
def test_the_buckets_are_there(name: str, bounds: tuple[float, ...]) -> None:
    assert f"| `{name}` | {', '.join(f'{bound:g}' for bound in bounds)} |" in PAGE


def test_the_bounds_of_what_strangers_can_do_are_there() -> None:
    assert f"{MOST_LABEL_SETS} of `model`, `engine` and `path` together, and {MOST_REQUEST_SETS} with `status`" in PAGE


def test_every_name_in_a_query_is_that_of_a_metric() -> None:
    names = {name for name, _, _ in ROW.findall(PAGE)}
    names |= {f"{name}_bucket" for name, kind, _ in ROW.findall(PAGE) if kind == "histogram"}
    queries = PAGE.partition("## Queries")[2]
    asked = set(re.findall(r"stoker_\w+", queries))
    assert asked
    assert asked <= names
