"""Every request has its place in a trace: the client's or a new one, and its engine hears of it."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stoker.gateway.tracing import LONGEST_STATE, Trace, Tracer, parse_traceparent, state_of
from stoker.model import RequestRecord
from stoker.settings import GatewaySettings

from .conftest import Lane, World, running
from .scripted import Exchange, until

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"
ASK = {"model": "m"}


def traced(*headers: tuple[str, str], ratio: float = 1.0) -> Trace:
    lines = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    return Tracer(ratio).of(lines, dict(lines))


def hexadecimal(digits: int) -> st.SearchStrategy[str]:
    return st.text("0123456789abcdef", min_size=digits, max_size=digits)


# What a header says


@given(hexadecimal(32), hexadecimal(16), st.integers(0, 255))
def test_a_traceparent_is_read_and_of_its_flags_the_one_that_is_known(trace: str, span: str, flags: int) -> None:
    parsed = parse_traceparent(f"00-{trace}-{span}-{flags:02x}".encode())
    if set(trace) == {"0"} or set(span) == {"0"}:
        assert parsed is None
    else:
        assert parsed == (trace.encode(), span.encode(), bool(flags & 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "garbage",
        TRACEPARENT.upper(),
        TRACEPARENT[:-1],
        TRACEPARENT + "-",
        TRACEPARENT + "-more",
        TRACEPARENT + ",",
        TRACEPARENT + "\n",
        f" {TRACEPARENT}",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"0-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0g",
        f"cc-{TRACE_ID}-{SPAN_ID}-01.more",
        f"{TRACEPARENT}, {TRACEPARENT}",
    ],
)
def test_what_is_no_traceparent_begins_a_new_trace(text: str) -> None:
    trace = traced(("traceparent", text), ("tracestate", "a=b"))
    assert trace.trace_id != TRACE_ID.encode()
    assert (trace.parent_span_id, trace.state, trace.sampled) == (b"", b"", True)


@pytest.mark.parametrize("more", ["", "-", "-what-comes then", "-\xe9"])
@pytest.mark.parametrize(("flags", "sampled"), [("01", True), ("fe", False), ("ff", True)])
def test_of_a_later_version_what_is_known_is_taken(more: str, flags: str, *, sampled: bool) -> None:
    trace = traced(("traceparent", f"cc-{TRACE_ID}-{SPAN_ID}-{flags}{more}"))
    assert (trace.trace_id, trace.parent_span_id) == (TRACE_ID.encode(), SPAN_ID.encode())
    assert trace.lines() == f"traceparent: 00-{TRACE_ID}-{trace.span_id.decode()}-0{sampled:d}\r\n".encode()


def test_two_traceparents_are_none() -> None:
    assert traced(("traceparent", TRACEPARENT), ("traceparent", TRACEPARENT)).parent_span_id == b""


@given(st.binary(max_size=80))
@example(TRACEPARENT.encode())
def test_no_bytes_make_it_fail_and_what_is_sent_on_is_always_valid(text: bytes) -> None:
    lines = [(b"traceparent", text), (b"tracestate", text)]
    sent = Tracer(1.0).of(lines, dict(lines)).lines()
    assert re.fullmatch(rb"traceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]\r\n(tracestate: [ -~]+\r\n)?", sent)
    parent = sent.split()[1]
    assert parse_traceparent(parent) is not None


def test_several_tracestates_are_one_in_their_order() -> None:
    assert state_of([b"a=1,\tb=2 ", b"", b" , ", b"t@v=3"]) == b"a=1,b=2,t@v=3"


@pytest.mark.parametrize(
    "values",
    [
        [b"a"],
        [b"a="],
        [b"A=1"],
        [b"a=1=2"],
        [b"a=\x01"],
        [b"a=\xe9"],
        [b"a=1", b"a=2"],
        [b",".join(b"k%d=1" % number for number in range(33))],
        [b",".join(b"k%d=%b" % (number, b"x" * 256) for number in range(LONGEST_STATE // 256))],
        [b"a=" + b"1" * 257],
        [b"a" * 257 + b"=1"],
    ],
)
def test_a_tracestate_that_is_none_is_left_out_and_the_trace_goes_on(values: list[bytes]) -> None:
    trace = traced(("traceparent", TRACEPARENT), *(("tracestate", value.decode("latin-1")) for value in values))
    assert (trace.trace_id, trace.state) == (TRACE_ID.encode(), b"")


# New traces


def test_every_new_trace_and_every_span_has_an_id_of_its_own() -> None:
    tracer = Tracer(1.0)
    made = [tracer.of((), {}) for _ in range(1000)]
    assert len({trace.trace_id for trace in made}) == len({trace.span_id for trace in made}) == 1000
    assert len({Tracer(1.0).of((), {}).trace_id for _ in range(10)}) == 10


def test_no_id_is_all_zeros() -> None:
    trace = Tracer(1.0, lambda bits: 0).of((), {})
    assert parse_traceparent(trace.lines().split()[1]) is not None


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (0.25, 150, 350), (1.0, 1000, 1000)])
def test_of_new_traces_as_many_are_sampled_as_is_wanted(ratio: float, least: int, most: int) -> None:
    tracer = Tracer(ratio)
    counts = Counter(tracer.of((), {}).sampled for _ in range(1000))
    assert least <= counts[True] <= most


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True)])
@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_whether_a_clients_trace_is_sampled_is_the_clients_affair(ratio: float, flags: str, *, sampled: bool) -> None:
    assert traced(("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-{flags}"), ratio=ratio).sampled is sampled


# On its way to an engine


async def test_a_clients_trace_goes_on_through_the_gateway(lane: Lane) -> None:
    records: list[RequestRecord] = []
    async with running(lane=lane, finished=records.append) as world:
        engine = await world.engine("one")
        headers = [("traceparent", TRACEPARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]
        assert (await world.ask(ASK, headers)).status == 200
        await until(lambda: records)
    [record], [exchange] = records, engine.exchanges
    assert exchange.header("traceparent") == f"00-{TRACE_ID}-{record.span_id}-01"
    assert exchange.header("tracestate") == "a=1,b=2"
    assert (record.trace_id, record.parent_span_id, record.sampled) == (TRACE_ID, SPAN_ID, True)
    assert record.tracestate == "a=1,b=2"
    assert record.span_id != SPAN_ID


async def test_without_one_a_trace_begins_and_a_tracestate_alone_means_nothing(lane: Lane) -> None:
    records: list[RequestRecord] = []
    async with running(GatewaySettings(trace_sample_ratio=0), lane=lane, finished=records.append) as world:
        engine = await world.engine("one")
        assert (await world.ask(ASK, [("tracestate", "a=1")])).status == 200
        await until(lambda: records)
    [record], [exchange] = records, engine.exchanges
    assert exchange.header("traceparent") == f"00-{record.trace_id}-{record.span_id}-00"
    assert exchange.header("tracestate") is None
    assert (record.parent_span_id, record.sampled, record.tracestate) == ("", False, "")


async def test_all_engines_that_are_tried_hear_of_the_same_span(lane: Lane) -> None:
    async def fail(exchange: Exchange) -> None:
        await exchange.reply(503, {})

    async with running(lane=lane) as world:
        engines = [await world.engine("one", fail), await world.engine("two")]
        assert (await world.ask(ASK, [("traceparent", TRACEPARENT)])).status == 200
        first, second = (engine.exchanges[0].header("traceparent") for engine in engines)
    assert first == second != TRACEPARENT


async def test_requests_of_one_connection_have_spans_of_their_own(world: World) -> None:
    engine = await world.engine("one")
    async with world.client() as client:
        for _ in range(3):
            await client.ask("/v1/chat/completions", ASK, [("traceparent", TRACEPARENT)])
    sent = [exchange.header("traceparent") for exchange in engine.exchanges]
    assert len(set(sent)) == 3
    assert all(header is not None and TRACE_ID in header for header in sent)


async def test_one_that_is_refused_has_its_place_too(lane: Lane) -> None:
    records: list[RequestRecord] = []
    settings = GatewaySettings(max_body_bytes=1024)
    async with running(settings, lane=lane, finished=records.append) as world:
        assert (await world.ask(b" " * 2000, [("traceparent", TRACEPARENT)])).status == 413
        await until(lambda: records)
    assert (records[0].trace_id, records[0].parent_span_id) == (TRACE_ID, SPAN_ID)
