"""What is measured adds up, costs a bounded amount of memory, and can't be blown up by strangers."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.gateway import measures as module
from stoker.gateway.measures import (
    DURATION_BOUNDS,
    FIRST_BYTE_BOUNDS,
    GAP_BOUNDS,
    MOST_LABEL_SETS,
    MOST_REQUEST_SETS,
    OTHER,
    Histogram,
    Measures,
)
from stoker.gateway.usage import Usage

CHAT = "/v1/chat/completions"


@pytest.fixture
def measures() -> Measures:
    return Measures()


# Histograms


@pytest.mark.parametrize("bounds", [DURATION_BOUNDS, FIRST_BYTE_BOUNDS, GAP_BOUNDS])
def test_bounds_ascend(bounds: tuple[float, ...]) -> None:
    assert list(bounds) == sorted(set(bounds))


def test_a_bound_belongs_to_its_bucket() -> None:
    histogram = Histogram((1.0, 2.0))
    for seconds in (0.0, 1.0, 1.001, 2.0, 2.001, 1e9):
        histogram.observe(seconds)
    assert histogram.counts == [2, 2, 2]


@given(st.lists(st.floats(min_value=0, max_value=1000)))
def test_a_histogram_counts_each_observation_once_in_the_first_bucket_it_fits(observations: list[float]) -> None:
    histogram = Histogram(DURATION_BOUNDS)
    for seconds in observations:
        histogram.observe(seconds)
    for index, bound in enumerate(DURATION_BOUNDS):
        assert sum(histogram.counts[: index + 1]) == sum(seconds <= bound for seconds in observations)
    assert sum(histogram.counts) == len(observations)
    assert histogram.total == pytest.approx(sum(observations))


# Requests


def test_requests_are_counted_by_model_engine_path_and_status(measures: Measures) -> None:
    for status in (200, 200, 499):
        measures.finished("m", "m-1", CHAT, status, 0.2, 0.1)
    measures.finished("m", "m-2", CHAT, 200, 0.2, 0.1)
    measures.finished("m", "m-1", "/v1/completions", 200, 0.2, 0.1)
    assert measures.snapshot().requests == {
        ("m", "m-1", CHAT, 200): 2,
        ("m", "m-1", CHAT, 499): 1,
        ("m", "m-2", CHAT, 200): 1,
        ("m", "m-1", "/v1/completions", 200): 1,
    }


def test_times_are_those_of_all_statuses_together(measures: Measures) -> None:
    measures.finished("m", "m-1", CHAT, 200, 3.0, 0.5)
    measures.finished("m", "m-1", CHAT, 500, 1.0, 0.25)
    [(labels, times)] = measures.snapshot().times.items()
    assert labels == ("m", "m-1", CHAT)
    assert (sum(times.duration.counts), times.duration.total) == (2, 4.0)
    assert (sum(times.first_byte.counts), times.first_byte.total) == (2, 0.75)


def test_a_client_that_got_no_byte_has_no_time_to_the_first(measures: Measures) -> None:
    measures.finished("m", "m-1", CHAT, 499, 3.0, None)
    [times] = measures.snapshot().times.values()
    assert sum(times.duration.counts) == 1
    assert sum(times.first_byte.counts) == 0


# Traffic


def test_bytes_and_tokens_add_up_for_each_engine_of_a_model(measures: Measures) -> None:
    measures.relayed("m", "m-1", 10, 200)
    measures.relayed("m", "m-1", 1, 2)
    measures.tokens("m", "m-1", Usage(5, 7))
    measures.tokens("m", "m-1", Usage(1, 0))
    measures.relayed("m", "m-2", 3, 4)
    traffic = measures.snapshot().traffic
    assert traffic.keys() == {("m", "m-1"), ("m", "m-2")}
    first = traffic["m", "m-1"]
    assert (first.received_bytes, first.sent_bytes) == (11, 202)
    assert (first.prompt_tokens, first.completion_tokens) == (6, 7)


def test_streams_of_one_engine_share_their_histogram_of_gaps(measures: Measures) -> None:
    one, another = measures.gaps("m", "m-1"), measures.gaps("m", "m-1")
    one.observe(0.02)
    another.observe(0.03)
    measures.gaps("m", "m-2").observe(1.0)
    gaps = measures.snapshot().traffic["m", "m-1"].gaps
    assert (sum(gaps.counts), gaps.total) == (2, pytest.approx(0.05))


def test_a_snapshot_stays_as_it_was(measures: Measures) -> None:
    def all_of_it() -> None:
        measures.finished("m", "m-1", CHAT, 200, 1.0, 1.0)
        measures.gaps("m", "m-1").observe(1.0)
        measures.relayed("m", "m-1", 1, 1)
        measures.tokens("m", "m-1", Usage(1, 1))
        measures.connections += 1
        measures.connections_accepted += 1
        measures.contained_failures += 1

    def numbers() -> list[object]:
        [times], [traffic] = snapshot.times.values(), snapshot.traffic.values()
        histograms = [times.duration, times.first_byte, traffic.gaps]
        return [
            snapshot.requests["m", "m-1", CHAT, 200],
            *((sum(histogram.counts), histogram.total) for histogram in histograms),
            (traffic.received_bytes, traffic.sent_bytes, traffic.prompt_tokens, traffic.completion_tokens),
            (snapshot.connections, snapshot.connections_accepted, snapshot.contained_failures),
        ]

    all_of_it()
    snapshot = measures.snapshot()
    before = numbers()
    all_of_it()
    measures.finished("m", "m-3", CHAT, 200, 1.0, 1.0)
    assert numbers() == before == [1, (1, 1.0), (1, 1.0), (1, 1.0), (1, 1, 1, 1), (1, 1, 1)]


# Bounds


def test_what_strangers_make_up_behind_a_known_folder_is_one_path(measures: Measures) -> None:
    for number in range(50):
        measures.finished("", "", f"/v1/audio/{number}", 404, 0.001, 0.001)
    measures.finished("m", "", "/v1/audio/speech", 429, 0.001, 0.001)
    measures.finished("m", "", CHAT, 429, 0.001, 0.001)
    assert measures.snapshot().requests == {
        ("", "", OTHER, 404): 50,
        ("m", "", "/v1/audio/speech", 429): 1,
        ("m", "", CHAT, 429): 1,
    }


def test_a_path_that_an_engine_serves_is_kept_whatever_it_is(measures: Measures) -> None:
    measures.finished("m", "m-1", "/v1/audio/of-a-plugin", 200, 0.001, 0.001)
    assert list(measures.snapshot().times) == [("m", "m-1", "/v1/audio/of-a-plugin")]


def test_engines_without_end_are_counted_together_after_the_first_so_many(measures: Measures) -> None:
    for number in range(MOST_LABEL_SETS + 30):
        for status in (200, 503):
            measures.finished("m", f"m-{number}", CHAT, status, 1.0, 1.0)
        measures.relayed("m", f"m-{number}", 1, 2)
        measures.gaps("m", f"m-{number}").observe(0.1)
    measures.finished("m", "m-0", CHAT, 200, 1.0, 1.0)  # those that are known are still counted by themselves
    measures.relayed("m", "m-0", 1, 2)
    snapshot = measures.snapshot()
    assert len(snapshot.times) == len(snapshot.traffic) == MOST_LABEL_SETS + 1
    assert snapshot.requests[OTHER, OTHER, OTHER, 200] == snapshot.requests[OTHER, OTHER, OTHER, 503] == 30
    assert snapshot.requests["m", "m-0", CHAT, 200] == 2
    assert snapshot.traffic["m", "m-0"].sent_bytes == 4
    others = snapshot.traffic[OTHER, OTHER]
    assert (others.received_bytes, others.sent_bytes, sum(others.gaps.counts)) == (30, 60, 30)


def test_no_request_is_lost_when_there_are_too_many_kinds(measures: Measures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_LABEL_SETS", MOST_REQUEST_SETS * 2)
    statuses: Counter[int] = Counter()
    for number in range(MOST_REQUEST_SETS // 4 + 100):
        for status in (200, 400, 499, 503, 504):
            measures.finished("m", f"m-{number}", CHAT, status, 1.0, None)
            statuses[status] += 1
    requests = measures.snapshot().requests
    counted: Counter[int] = Counter()
    for (*_, status), count in requests.items():
        counted[status] += count
    assert counted == statuses
    assert MOST_REQUEST_SETS < len(requests) <= MOST_REQUEST_SETS + 5
