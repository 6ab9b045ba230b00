"""The metrics there are, are those that are declared, and the page about them says nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from prometheus_client import Metric

from stoker.gateway.counters import Counters
from stoker.gateway.measures import MOST_LABEL_SETS, MOST_REQUEST_SETS, Measures
from stoker.gateway.usage import Usage
from stoker.model import EngineLoad
from stoker.testing.records import engine_info
from stoker.web.declared import OF_ENGINES, OF_REQUESTS, OF_THE_GATEWAY
from stoker.web.measurements import ObserverState, Page, PolicyState

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "reference" / "metrics.md").read_text()
DECLARED = (*OF_REQUESTS, *OF_ENGINES, *OF_THE_GATEWAY)
OF_THE_PROCESS = set(re.findall(r"`(process_\w+)`", PAGE))

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
    suffix = {"counter": "_total", "info": "_info"}.get(metric.type, "")
    return metric.name + suffix, metric.type, labels


def test_every_metric_is_declared_and_there_is_no_other() -> None:
    there_are = {described(metric) for metric in one_of_everything().collect()}
    own = {each for each in there_are if each[0].startswith("stoker_")}
    assert own == {(family.name, family.kind, frozenset(family.labels)) for family in DECLARED}
    if Path("/proc/self/stat").exists():
        assert {name for name, _, _ in there_are - own} == OF_THE_PROCESS


def test_the_bounds_of_what_strangers_can_do_are_there() -> None:
    assert f"{MOST_LABEL_SETS} of `model`, `engine` and `path` together, and {MOST_REQUEST_SETS} with `status`" in PAGE


def test_every_name_in_a_query_is_that_of_a_metric() -> None:
    names = {family.name for family in DECLARED}
    names |= {f"{family.name}_bucket" for family in DECLARED if family.kind == "histogram"}
    queries = PAGE.partition("## Queries")[2]
    asked = set(re.findall(r"stoker_\w+", queries))
    assert asked
    assert asked <= names
