"""What the spans of a request say.

Two for each request that reached an engine, so that whoever draws maps of services sees both edges: one of kind SERVER
for the whole of it, and below it one of kind CLIENT for its engine, retries included, as the conventions for GenAI have
it (https://github.com/open-telemetry/semantic-conventions-genai). The engine was given the id of the second.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import attrs
from opentelemetry.trace import SpanKind

from stoker.model import EngineInfo, RequestRecord

CLIENT_LEFT = 499
_OPERATIONS = MappingProxyType(
    {
        "/v1/chat/completions": "chat",
        "/v1/messages": "chat",
        "/v1/responses": "chat",
        "/v1/completions": "text_completion",
        "/v1/embeddings": "embeddings",
    }
)
Attributes = Mapping[str, str | bool | int | float]


@attrs.frozen
class Described:
    """A span without its ids. Times are seconds since the Unix epoch. ``failure`` says what went wrong."""

    name: str
    kind: SpanKind
    began_at: float
    ended_at: float
    attributes: Attributes
    failure: str | None = None


def served(record: RequestRecord) -> Described:
    """The whole of a request, as its client saw it."""
    method = "_OTHER" if record.status == 405 else "POST"
    attributes: dict[str, str | bool | int | float] = {
        "http.request.method": method,
        "url.path": record.path,
        "stoker.request_id": record.request_id,
    }
    if record.status != CLIENT_LEFT:
        attributes["http.response.status_code"] = record.status
    if record.engine_id:  # else the path may be anybody's invention
        attributes["http.route"] = record.path
    failed = record.status >= 500 or (record.status < 400 and record.error != "")
    if failed:
        attributes["error.type"] = error_type(record)
    name = f"{method} {record.path}" if record.engine_id else method
    ended_at = record.began_at + record.duration_seconds
    return Described(name, SpanKind.SERVER, record.began_at, ended_at, attributes, record.error if failed else None)


def inferred(record: RequestRecord, engine: EngineInfo | None) -> Described:
    """What an engine had to do with a request: from the moment it was chosen to the last byte of its answer."""
    operation = _OPERATIONS.get(record.path) or record.path.rpartition("/")[2]
    said: dict[str, str | bool | int | float | None] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "stoker" if engine is None else engine.runtime,
        "gen_ai.request.model": record.asked,
        "gen_ai.request.stream": record.stream or None,
        "gen_ai.response.model": record.model,
        "gen_ai.response.time_to_first_chunk": _first_chunk(record),
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "server.address": None if engine is None else engine.host,
        "server.port": None if engine is None else engine.port,
        "stoker.engine_id": record.engine_id,
        "stoker.attempts": record.attempts,
        "error.type": error_type(record) if record.error else None,
    }
    return Described(
        f"{operation} {record.asked}",
        SpanKind.CLIENT,
        record.began_at + record.waited_seconds,
        record.began_at + record.duration_seconds,
        {name: value for name, value in said.items() if value is not None},
        record.error or None,
    )


def error_type(record: RequestRecord) -> str:
    """What went wrong, in one of few words."""
    if record.status == CLIENT_LEFT:
        return "client_left"
    return "stream_broken" if record.status < 400 else str(record.status)


def _first_chunk(record: RequestRecord) -> float | None:
    if not record.stream or record.first_byte_seconds is None:
        return None
    return record.first_byte_seconds - record.waited_seconds
