"""The way out: OTLP over HTTP, in batches, from a thread of the SDK that waits for nobody and that nobody waits for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from stoker.model import EngineInfo, RequestRecord
from stoker_otel.spans import Described, inferred, served

_NANOSECONDS = 1_000_000_000


class Sender:
    """Sends spans. The SDK's own variables say where and how often, and how many may wait; further ones are dropped.

    Whether a request is sampled was decided when it came, since its engine had to be told; so the samplers that those
    variables name have nothing to decide.
    """

    def __init__(self, environ: Mapping[str, str], exporter: SpanExporter | None = None) -> None:
        given = environ.get("OTEL_SERVICE_NAME") or "service.name" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        resource = Resource.create({} if given else {"service.name": "stoker", "service.version": _version("stoker")})
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, id_generator=self._ids, shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("stoker_otel", _version("stoker-otel"))

    def send(self, record: RequestRecord, engine: EngineInfo | None) -> None:
        """Queue the spans of a request. Returns at once."""
        self._ids.trace_id = int(record.trace_id, 16)
        span_id = int(record.span_id, 16)
        parent = _parent(record) if record.parent_span_id else Context()
        if not record.engine_id:
            self._record(served(record), parent, span_id)
            return
        above = self._record(served(record), parent, self._ids.random())
        self._record(inferred(record, engine), above, span_id)

    def close(self, seconds: float) -> None:
        """Send what is queued, for ``seconds`` at most; what is left then is lost."""
        # The SDK takes no time for it, and waits for half a minute.
        last = threading.Thread(target=self._provider.shutdown, name="stoker-otel ends", daemon=True)
        last.start()
        last.join(seconds)

    def _record(self, described: Described, parent: Context, span_id: int) -> Context:
        """Record a span, and return the context of those below it."""
        self._ids.span_id = span_id
        span = self._tracer.start_span(
            described.name,
            context=parent,
            kind=described.kind,
            attributes=described.attributes,
            start_time=round(described.began_at * _NANOSECONDS),
        )
        if described.failure is not None:
            span.set_status(Status(StatusCode.ERROR, described.failure))
        span.end(round(described.ended_at * _NANOSECONDS))
        return set_span_in_context(span, Context())


class _GivenIds(IdGenerator):
    """Gives the ids that were given to it. Everything is recorded on one thread."""

    def __init__(self) -> None:
        self.trace_id = 0
        self.span_id = 0
        self.random = RandomIdGenerator().generate_span_id

    def generate_trace_id(self) -> int:
        """The id of the trace."""
        return self.trace_id

    def generate_span_id(self) -> int:
        """The id of the span that is recorded just now."""
        return self.span_id


def _parent(record: RequestRecord) -> Context:
    """The client's span."""
    span = SpanContext(
        int(record.trace_id, 16),
        int(record.parent_span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([record.tracestate]) if record.tracestate else None,
    )
    return set_span_in_context(NonRecordingSpan(span), Context())


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # it is used as it lies in its sources
        return ""
