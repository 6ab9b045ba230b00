"""The page for Prometheus: well formed in both formats, whatever names things have, and true."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx2
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from tests.web.conftest import World

from stoker.gateway.counters import Counters
from stoker.gateway.measures import DURATION_BOUNDS, Measures
from stoker.gateway.routing import Lease, Ticket
from stoker.gateway.usage import Usage
from stoker.model import EngineLoad, RouteRequest
from stoker.settings import GatewaySettings
from stoker.web.families import SAMPLES_AT_ONCE
from stoker.web.measurements import Page
from stoker.web.metrics import choose_format

HAS_PROC = Path("/proc/self/stat").exists()
CHAT = "/v1/chat/completions"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(metrics: list[Metric]) -> Samples:
    """Every sample by its name and labels; no two may have the same."""
    samples: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for metric in metrics:
        for sample in metric.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples


def strictly(text: str) -> list[Metric]:
    """OpenMetrics, whose parser takes nothing that its specification does not have."""
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def leniently(text: str) -> list[Metric]:
    """Prometheus' own format."""
    return list(text_string_to_metric_families(text))


def value(samples: Samples, name: str, /, **labels: str) -> float | None:
    return samples.get((name, frozenset(labels.items())))


async def scrape(world: World) -> Samples:
    answer = await world.anyone.get("/metrics")
    assert answer.status_code == 200
    return samples_of(leniently(answer.text))


def lease(world: World, model: str) -> Lease | None:
    request = RouteRequest(request_id="r", model=model, path=CHAT)
    ticket = Ticket(request, patience_seconds=1.0)
    opened = world.table.open(ticket)
    if opened is None:
        world.table.enqueue(ticket)
    return opened


# The formats


async def test_anyone_may_read_it_and_gets_text(world: World) -> None:
    answer = await world.anyone.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == TEXT
    assert answer.headers["cache-control"] == "no-store"
    assert leniently(answer.text)


@pytest.mark.parametrize("accept", [PROMETHEUS_2, PROMETHEUS_3, "application/openmetrics-text"])
async def test_who_accepts_openmetrics_gets_it(world: World, accept: str) -> None:
    await world.start("m")
    world.measures.finished("m", "m", CHAT, 200, 1.0, 0.5)
    answer = await world.anyone.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.text.endswith("# EOF\n")
    strict = samples_of(strictly(answer.text))
    text = await scrape(world)
    assert strict.keys() == text.keys()
    ours = [key for key in strict if key[0].startswith("stoker_")]
    own = [key for key in ours if not key[0].startswith("stoker_connections")]  # each request was one more
    assert {key: strict[key] for key in own} == {key: text[key] for key in own}


@pytest.mark.parametrize("accept", ["", "*/*", "text/html", ";=,;", "\xff"])
async def test_who_asks_for_anything_else_gets_text(world: World, accept: str) -> None:
    answer = await world.anyone.get("/metrics", headers={b"accept": accept.encode("latin-1")})
    assert (answer.status_code, answer.headers["content-type"]) == (200, TEXT)


async def test_a_version_that_is_none_does_no_harm(world: World) -> None:
    answer = await world.anyone.get("/metrics", headers={"Accept": "application/openmetrics-text;version=x"})
    assert answer.status_code == 200


async def test_units_and_types_are_told(world: World) -> None:
    answer = await world.anyone.get("/metrics", headers={"Accept": PROMETHEUS_2})
    metrics = {metric.name: metric for metric in strictly(answer.text)}
    for name, metric in metrics.items():
        if name.startswith("stoker_"):
            assert metric.documentation.endswith(".")
            units = ("seconds", "bytes", "ratio")
            assert metric.unit == next((unit for unit in units if name.endswith(f"_{unit}")), "")
    assert metrics["stoker_requests"].type == "counter"
    assert metrics["stoker_request_duration_seconds"].type == "histogram"
    assert metrics["stoker_build"].type == "info"


async def test_head_and_other_methods(world: World) -> None:
    head = await world.anyone.head("/metrics")
    assert (head.status_code, head.headers["content-type"], head.content) == (200, TEXT, b"")
    assert (await world.anyone.post("/metrics")).status_code == 405


async def test_a_web_page_elsewhere_may_not_read_it(world: World) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert (await world.anyone.get("/metrics", headers=headers)).status_code == 403


async def test_many_may_read_it_at_once(world: World) -> None:
    answers: list[httpx2.Response] = []

    async def read() -> None:
        answers.append(await world.anyone.get("/metrics"))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(read)
    assert [answer.status_code for answer in answers] == [200] * 5


# What it says


async def test_requests_and_their_times(world: World) -> None:
    world.measures.finished("m", "m-1", CHAT, 200, 1.0, 0.25)
    world.measures.finished("m", "m-1", CHAT, 499, 700.0, None)
    world.measures.finished("", "", CHAT, 404, 0.001, 0.001)
    samples = await scrape(world)
    where = {"model": "m", "engine": "m-1", "path": CHAT}
    assert value(samples, "stoker_requests_total", **where, status="200") == 1
    assert value(samples, "stoker_requests_total", **where, status="499") == 1
    assert value(samples, "stoker_requests_total", model="", engine="", path=CHAT, status="404") == 1
    duration, first_byte = "stoker_request_duration_seconds", "stoker_time_to_first_byte_seconds"
    buckets = [value(samples, f"{duration}_bucket", **where, le=str(bound)) for bound in DURATION_BOUNDS]
    assert buckets == [0] * DURATION_BOUNDS.index(1.0) + [1] * (len(DURATION_BOUNDS) - DURATION_BOUNDS.index(1.0))
    assert value(samples, f"{duration}_bucket", **where, le="+Inf") == 2
    assert value(samples, f"{duration}_count", **where) == 2
    assert value(samples, f"{duration}_sum", **where) == 701.0
    assert value(samples, f"{first_byte}_bucket", **where, le="0.2") == 0
    assert value(samples, f"{first_byte}_bucket", **where, le="0.3") == 1
    assert value(samples, f"{first_byte}_count", **where) == 1


async def test_what_was_relayed(world: World) -> None:
    world.measures.relayed("m", "m-1", 10, 200)
    world.measures.tokens("m", "m-1", Usage(5, 7))
    world.measures.gaps("m", "m-1").observe(0.02)
    samples = await scrape(world)
    where = {"model": "m", "engine": "m-1"}
    assert value(samples, "stoker_relayed_bytes_total", **where, direction="to_engine") == 10
    assert value(samples, "stoker_relayed_bytes_total", **where, direction="to_client") == 200
    assert value(samples, "stoker_tokens_total", **where, kind="prompt") == 5
    assert value(samples, "stoker_tokens_total", **where, kind="completion") == 7
    assert value(samples, "stoker_inter_chunk_seconds_bucket", **where, le="0.015") == 0
    assert value(samples, "stoker_inter_chunk_seconds_bucket", **where, le="0.02") == 1


async def test_what_the_gateway_counted(world: World) -> None:
    counters = world.table.counters
    counters.retries, counters.refused, counters.errors = 1, 2, 3
    counters.stream_errors = 4
    world.measures.connections, world.measures.connections_accepted, world.measures.contained_failures = 6, 7, 8
    samples = await scrape(world)
    names = ["retries", "requests_refused", "requests_failed", "stream_errors"]
    assert [value(samples, f"stoker_{name}_total") for name in names] == [1, 2, 3, 4]
    assert value(samples, "stoker_connections") == 6 + 1  # that of this very request
    assert value(samples, "stoker_connections_accepted_total") == 7 + 1
    assert value(samples, "stoker_contained_failures_total") == 8


async def test_how_the_policies_do(world: World) -> None:
    await world.start("m")
    [policy] = world.table.policies.used()
    policy.failures.raised, policy.failures.slow, policy.in_service = 1, 3, False
    samples = await scrape(world)
    failures = "stoker_policy_failures_total"
    counts = [value(samples, failures, policy="first", reason=each) for each in ("raised", "not_a_candidate", "slow")]
    assert counts == [1, 0, 3]
    assert value(samples, "stoker_policy_in_service", policy="first") == 0


async def test_what_an_engine_says_of_its_load(world: World) -> None:
    await world.start("m")
    await world.start("silent")
    [here, _] = world.table.models()
    names = [f"stoker_engine_{name}" for name in ("running", "waiting", "kv_cache_used_ratio")]
    world.table.report_load("m", here.incarnation, EngineLoad(running=3, waiting=1))
    assert [value(await scrape(world), name, model="m", engine="m") for name in names] == [3, 1, None]
    world.table.report_load("m", here.incarnation, EngineLoad(running=3, waiting=1, kv_cache_used=0.25))
    samples = await scrape(world)
    assert [value(samples, name, model="m", engine="m") for name in names] == [3, 1, 0.25]
    assert [value(samples, name, model="silent", engine="silent") for name in names] == [None] * 3


async def test_an_engine_is_in_one_state(world: World) -> None:
    where = {"model": "a/model", "engine": "m"}

    async def state() -> list[str]:
        samples = await scrape(world)
        states = {
            dict(labels)["state"]: value
            for (name, labels), value in samples.items()
            if name == "stoker_engine_state" and where.items() <= dict(labels).items()
        }
        assert sorted(states) == ["DRAINING", "ERROR", "READY", "STARTING", "STOPPED"]
        return [state for state, value in states.items() if value == 1]

    await world.api.post("/engines/start", json={"model": "a/model", "engine_id": "m"})
    assert await state() == ["STARTING"]
    assert value(await scrape(world), "stoker_engine_ready_timestamp_seconds", **where) is None
    world.supervisor.becomes_ready("m")
    assert await state() == ["READY"]
    since = value(await scrape(world), "stoker_engine_ready_timestamp_seconds", **where)
    assert since == world.supervisor.info("m").ready_at
    world.supervisor.crashes("m")
    assert await state() == ["ERROR"]
    assert value(await scrape(world), "stoker_engine_ready_timestamp_seconds", **where) is None


async def test_restarts_of_an_engine_only_grow(world: World) -> None:
    await world.start("m")
    seen = [value(await scrape(world), "stoker_engine_restarts_total", model="m", engine="m")]
    for _ in range(2):
        world.supervisor.restart("m")
        world.supervisor.is_stopped("m")
        world.supervisor.becomes_ready("m")
        seen.append(value(await scrape(world), "stoker_engine_restarts_total", model="m", engine="m"))
    assert seen == [0, 1, 2]


async def test_who_is_served_and_who_waits(world: World, settings: GatewaySettings) -> None:
    await world.start("m", max_concurrency=1)
    await world.start("free")
    opened, waits = lease(world, "m"), lease(world, "m")
    assert opened is not None
    assert waits is None
    samples = await scrape(world)
    assert value(samples, "stoker_requests_in_flight", model="m", engine="m") == 1
    assert value(samples, "stoker_requests_in_flight", model="free", engine="free") == 0
    assert value(samples, "stoker_engine_max_concurrency", model="m", engine="m") == 1
    assert value(samples, "stoker_engine_max_concurrency", model="free", engine="free") is None
    assert value(samples, "stoker_requests_waiting") == 1
    assert value(samples, "stoker_requests_waiting_limit") == settings.queue_size


async def test_what_runs_and_how_much_it_takes(world: World) -> None:
    samples = await scrape(world)
    [about] = [dict(labels) for name, labels in samples if name == "stoker_build_info"]
    assert about.keys() == {"version", "python"}
    if HAS_PROC:
        assert (value(samples, "process_resident_memory_bytes") or 0) > 0
        assert (value(samples, "process_open_fds") or 0) > 0


# Names


def page_of(measures: Measures) -> Page:
    return Page(measures.snapshot(), Counters(), (), (), (), {}, 0, 0)


@pytest.mark.parametrize(
    "name",
    ['"', "\\", "\n", '\\"', "\\n", "a\\", "a,b", '"} 1\n# EOF\nx{y="', "{}", "é😀", "\r", "\x00", "\u2028", " ", ""],
)
async def test_names_may_have_any_characters(world: World, name: str) -> None:
    await world.start("m")
    world.measures.finished(f"{name}x", name, CHAT, 200, 1.0, 1.0)
    for accept, parse in (("", leniently), (PROMETHEUS_2, strictly)):
        answer = await world.anyone.get("/metrics", headers={"Accept": accept})
        samples = samples_of(parse(answer.content.decode()))
        assert value(samples, "stoker_requests_total", model=f"{name}x", engine=name, path=CHAT, status="200") == 1


@given(model=st.text(), engine=st.text(), accept=st.sampled_from(["", PROMETHEUS_2]))
def test_any_name_comes_back_as_it_was(model: str, engine: str, accept: str) -> None:
    measures = Measures()
    measures.relayed(model, engine, 1, 2)
    encode, _ = choose_format(accept)
    text = encode(page_of(measures)).decode()
    samples = samples_of(strictly(text) if accept else leniently(text))
    assert value(samples, "stoker_relayed_bytes_total", model=model, engine=engine, direction="to_client") == 2


def test_half_a_surrogate_pair_spoils_nothing() -> None:
    measures = Measures()
    measures.finished("m\ud800", "e", CHAT, 200, 1.0, 1.0)
    encode, _ = choose_format("")
    assert b'model="m?"' in encode(page_of(measures))


@given(st.text())
def test_any_accept_header_has_an_answer(accept: str) -> None:
    encode, _ = choose_format(accept)
    assert encode(page_of(Measures()))


# Its making


def test_who_makes_a_large_page_lets_others_run_between(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("stoker.web.families.time.sleep", pauses.append)
    measures = Measures()
    for number in range(10 * SAMPLES_AT_ONCE):
        measures.finished("m", f"m-{number}", CHAT, 200, 1.0, 1.0)
    [requests, durations, *_] = page_of(measures).collect()
    assert len(list(requests.samples)) == 10 * SAMPLES_AT_ONCE
    assert len(pauses) == 10
    samples = list(durations.samples)
    assert len(pauses) == 10 + len(samples) // SAMPLES_AT_ONCE
