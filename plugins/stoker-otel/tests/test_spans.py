"""What becomes of a finished request: which spans, with which ids, and what they say."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import attrs
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode

from stoker.model import EngineInfo, RequestRecord
from stoker.testing.records import engine_info, request_record
from stoker_otel import Observer
from stoker_otel.observer import is_wanted
from stoker_otel.sending import Sender

TRACE_ID, SPAN_ID, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7"
SECONDS = 20.0
HERE = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}

RECORD = request_record(trace_id=TRACE_ID, span_id=SPAN_ID, parent_span_id=PARENT, sampled=True, tracestate="a=b,c=d")
ENGINE = engine_info()


@attrs.define(eq=False)
class Kept(SpanExporter):
    """Keeps what it should send."""

    spans: list[ReadableSpan] = attrs.field(factory=list)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


def sent(record: RequestRecord, engine: EngineInfo | None = ENGINE) -> list[ReadableSpan]:
    """The spans of one request, as they leave."""
    kept = Kept()
    sender = Sender({}, kept)
    sender.send(record, engine)
    sender.close(SECONDS)
    return kept.spans


def ids(span: ReadableSpan) -> tuple[str, str, str]:
    """Of the trace, the span, and its parent."""
    context = span.get_span_context()
    assert context is not None
    parent = "" if span.parent is None else f"{span.parent.span_id:016x}"
    return f"{context.trace_id:032x}", f"{context.span_id:016x}", parent


def test_a_request_has_a_span_for_its_client_and_below_it_the_one_that_the_engine_knows() -> None:
    server, client = sent(RECORD)
    trace, above, parent = ids(server)
    assert (trace, parent) == (TRACE_ID, PARENT)
    assert ids(client) == (TRACE_ID, SPAN_ID, above)
    assert above not in (SPAN_ID, PARENT)
    assert (server.kind, client.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert (server.name, client.name) == ("POST /v1/chat/completions", "chat qwen")
    assert (server.start_time, server.end_time) == (1000_000_000_000, 1002_000_000_000)
    assert (client.start_time, client.end_time) == (1000_500_000_000, 1002_000_000_000)
    context = client.get_span_context()
    assert context is not None
    assert context.trace_state.to_header() == "a=b,c=d"
    assert server.resource.attributes["service.name"] == "stoker"


def test_they_say_what_the_conventions_want() -> None:
    server, client = sent(RECORD)
    assert dict(server.attributes or {}) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/chat/completions",
        "url.path": "/v1/chat/completions",
        "stoker.request_id": "r-1",
    }
    assert dict(client.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "qwen",
        "gen_ai.request.stream": True,
        "gen_ai.response.model": "Qwen/Qwen2.5-0.5B-Instruct",
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "server.address": "127.0.0.1",
        "server.port": 9000,
        "stoker.engine_id": "qwen-1",
        "stoker.attempts": 1,
    }
    assert client.status.status_code is StatusCode.UNSET


def test_what_is_not_known_is_not_said() -> None:
    record = attrs.evolve(RECORD, stream=False, prompt_tokens=None, completion_tokens=None)
    _, client = sent(record, None)
    assert set(client.attributes or {}) == {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.response.model",
        "stoker.engine_id",
        "stoker.attempts",
    }


def test_a_trace_that_began_at_the_gateway_has_no_parent() -> None:
    server, client = sent(attrs.evolve(RECORD, parent_span_id="", tracestate=""))
    assert ids(server)[0] == TRACE_ID
    assert ids(server)[2] == ""
    assert ids(client) == (TRACE_ID, SPAN_ID, ids(server)[1])


def test_a_request_that_reached_no_engine_is_one_span_without_a_route() -> None:
    record = attrs.evolve(RECORD, status=404, model="", engine_id="", error="the model does not exist")
    [server] = sent(record)
    assert ids(server) == (TRACE_ID, SPAN_ID, PARENT)
    assert server.name == "POST"
    assert "http.route" not in (server.attributes or {})
    assert server.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("status", "error", "error_type", "counts_for_the_server"),
    [
        (502, "the engine failed", "502", True),
        (400, "the engine says the request is wrong", "400", False),
        (200, "the engine died", "stream_broken", True),
        (499, "the client left", "client_left", False),
    ],
)
def test_a_failure_is_one_for_whoever_is_to_blame(
    status: int, error: str, error_type: str, *, counts_for_the_server: bool
) -> None:
    server, client = sent(attrs.evolve(RECORD, status=status, error=error))
    assert (client.attributes or {})["error.type"] == error_type
    assert (client.status.status_code, client.status.description) == (StatusCode.ERROR, error)
    assert (server.status.status_code is StatusCode.ERROR) is counts_for_the_server
    assert ("error.type" in (server.attributes or {})) is counts_for_the_server


@pytest.mark.parametrize(
    ("path", "operation"),
    [
        ("/v1/messages", "chat"),
        ("/v1/completions", "text_completion"),
        ("/v1/embeddings", "embeddings"),
        ("/v1/rerank", "rerank"),
        ("/v1/audio/transcriptions", "transcriptions"),
    ],
)
def test_an_operation_is_called_by_its_path(path: str, operation: str) -> None:
    _, client = sent(attrs.evolve(RECORD, path=path))
    assert client.name == f"{operation} qwen"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        (HERE, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}, True),
        ({**HERE, "OTEL_SDK_DISABLED": "True"}, False),
        ({**HERE, "OTEL_TRACES_EXPORTER": "none"}, False),
        ({**HERE, "OTEL_TRACES_EXPORTER": "console, otlp"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
    ],
)
def test_it_is_on_where_the_variables_name_a_place(environ: dict[str, str], *, wanted: bool) -> None:
    assert is_wanted(environ) is wanted


def test_a_protocol_that_it_does_not_speak_is_said_once_and_nothing_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    observer = Observer({**HERE, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    observer.stoker_request_finished(RECORD)
    observer.stoker_request_finished(RECORD)
    observer.stoker_ending()
    [said] = [each.getMessage() for each in caplog.records]
    assert said.endswith("and not over grpc")


def test_what_is_not_sampled_is_not_even_looked_at() -> None:
    observer = Observer(HERE)
    observer.stoker_request_finished(attrs.evolve(RECORD, sampled=False))
    assert observer._sender is None


def test_an_engine_that_is_gone_is_forgotten() -> None:
    observer = Observer({})
    observer.stoker_engine_changed(None, ENGINE)
    observer.stoker_engine_changed(ENGINE, None)
    assert observer._engines == {}


def test_a_collector_that_hangs_does_not_hold_up_the_end() -> None:
    begun, go_on = threading.Event(), threading.Event()

    class Hanging(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            begun.set()
            go_on.wait(SECONDS)
            return SpanExportResult.FAILURE

    sender = Sender({}, Hanging())
    sender.send(RECORD, ENGINE)
    sender.close(0.01)
    assert begun.wait(SECONDS)
    go_on.set()
