"""A request under way, and what there is to say of it when it is over."""

from __future__ import annotations

import json
import time
from typing import TypedDict

from stoker.gateway.answers import Answer
from stoker.gateway.heading import Heading
from stoker.gateway.relay import Relay
from stoker.gateway.tracing import Trace
from stoker.gateway.usage import Usage
from stoker.model import RequestRecord

CLIENT_GONE = 499  # what nginx logs for it


class Job:
    """A request under way. What is measured of it is noted here; times are the routing table's.

    ``body`` is what engines get: in a stored conversation, ``session_id``, more than the client sent.
    """

    __slots__ = (
        "asked",
        "attempts",
        "body",
        "delivered",
        "engine_id",
        "error",
        "first_byte_at",
        "heading",
        "is_cut_short",
        "leased_at",
        "model",
        "received_bytes",
        "relay",
        "request_id",
        "sent_bytes",
        "session_id",
        "status",
        "stream",
        "trace",
        "usage",
    )

    def __init__(self, heading: Heading, body: bytes, request_id: bytes, trace: Trace) -> None:
        self.heading = heading
        self.body = body
        self.received_bytes = len(body)
        self.request_id = request_id
        self.trace = trace
        self.session_id = ""
        self.asked = ""
        self.stream = False
        self.model = ""
        self.relay: Relay | None = None
        self.engine_id = ""
        self.status = CLIENT_GONE
        self.attempts = 0
        self.delivered = self.is_cut_short = False
        self.leased_at: float | None = None
        self.first_byte_at: float | None = None
        self.sent_bytes = 0
        self.usage: Usage | None = None
        self.error = ""

    def record(self, caller: str, began: float, now: float) -> RequestRecord:
        """What observers are told of it. It is ``caller``'s, began at ``began`` and is over ``now``."""
        usage = self.usage
        return RequestRecord(
            request_id=self.request_id.decode(),
            path=self.heading.path,
            asked=self.asked,
            model=self.model if self.engine_id else "",
            engine_id=self.engine_id,
            status=self.status,
            stream=self.stream,
            began_at=time.time() - (now - began),
            duration_seconds=now - began,
            waited_seconds=(now if self.leased_at is None else self.leased_at) - began,
            first_byte_seconds=None if self.first_byte_at is None else self.first_byte_at - began,
            attempts=self.attempts,
            received_bytes=self.received_bytes,
            sent_bytes=self.sent_bytes,
            prompt_tokens=None if usage is None else usage.prompt_tokens,
            completion_tokens=None if usage is None else usage.completion_tokens,
            error=self.error or ("the client left" if self.status == CLIENT_GONE else ""),
            caller=caller,
            **_traced(self.trace),
            session_id=self.session_id,
        )


def record_of_refusal(request_id: bytes, trace: Trace, caller: str, path: str, answer: Answer) -> RequestRecord:
    """The record of a request that was refused by its head, or because its body never came whole."""
    return RequestRecord(
        request_id=request_id.decode(),
        path=path,
        asked="",
        model="",
        engine_id="",
        status=answer.status,
        stream=False,
        began_at=time.time(),
        duration_seconds=0.0,
        waited_seconds=0.0,
        first_byte_seconds=0.0,
        attempts=0,
        received_bytes=0,
        sent_bytes=len(answer.body),
        error=message_of(answer),
        caller=caller,
        **_traced(trace),
    )


class _Traced(TypedDict):
    trace_id: str
    span_id: str
    parent_span_id: str
    sampled: bool
    tracestate: str


def _traced(trace: Trace) -> _Traced:
    return {
        "trace_id": trace.trace_id.decode(),
        "span_id": trace.span_id.decode(),
        "parent_span_id": trace.parent_span_id.decode(),
        "sampled": trace.sampled,
        "tracestate": trace.state.decode(),
    }


def message_of(answer: Answer) -> str:
    """What an error of ours says."""
    return str(json.loads(answer.body)["error"]["message"])
