"""W3C Trace Context: which trace a request belongs to, and what its engine is told of that.

https://www.w3.org/TR/trace-context-1/. The gateway takes part in every trace with one span, its exchange with the
engine. It decides, as whoever begins a trace does, whether a new one is sampled; of others it leaves that as it is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

from stoker.gateway.headers import Fields, HeaderList

_IDS_AND_FLAGS = rb"([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})"
_TRACEPARENT = re.compile(rb"00-" + _IDS_AND_FLAGS)
# Of a later version only the beginning is known, and more may follow it (3.2.4); of ours nothing may.
_OF_A_LATER_VERSION = re.compile(rb"(?!00|ff)[0-9a-f]{2}-" + _IDS_AND_FLAGS + rb"(?:-[\t\x20-\xff]*)?")
_NO_TRACE = b"0" * 32
_NO_SPAN = b"0" * 16
_SAMPLED = 1
LONGEST_STATE = 8192  # bytes; the specification wants 512 at least
_MEMBER = re.compile(
    rb"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)
_MOST_MEMBERS = 32


class Trace:
    """The place of one request in a trace. The ids are hexadecimal, in lower case.

    ``span_id`` is ours, and the parent of whatever the engine does. ``parent_span_id`` is the client's, or empty where
    the trace begins here. ``state`` is the client's ``tracestate``, or empty.
    """

    __slots__ = ("parent_span_id", "sampled", "span_id", "state", "trace_id")

    def __init__(self, trace_id: bytes, span_id: bytes, parent_span_id: bytes, state: bytes, *, sampled: bool) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_span_id = parent_span_id
        self.state = state
        self.sampled = sampled

    def lines(self) -> bytes:
        """The header lines that tell an engine of it."""
        line = b"traceparent: 00-%b-%b-0%d\r\n" % (self.trace_id, self.span_id, self.sampled)
        return b"%btracestate: %b\r\n" % (line, self.state) if self.state else line


class Tracer:
    """Finds the trace of each request, or begins one.

    Of those that it begins, about ``sample_ratio`` (0 to 1) are sampled. ``bits`` gives as many random bits as it is
    asked for; where they come from matters little, since ids are no secrets.
    """

    def __init__(self, sample_ratio: float, bits: Callable[[int], int] | None = None) -> None:
        self._bits = bits or random.Random().getrandbits  # noqa: S311 - ids are no secrets
        self._sampled_below = round(sample_ratio * 2**64)

    def of(self, headers: HeaderList, fields: Fields) -> Trace:
        """The trace of a request with these headers, whose names are in lower case; ``fields`` are the same headers.

        What is no valid ``traceparent`` begins a new trace, as if there were none.
        """
        span_id = b"%016x" % (self._bits(64) or 1)
        given = fields.get(b"traceparent")
        if given is not None:
            parent = parse_traceparent(given) if _all_of(headers, b"traceparent") == [given] else None
            if parent is not None:
                trace_id, parent_span_id, sampled = parent
                state = state_of(_all_of(headers, b"tracestate")) if b"tracestate" in fields else b""
                return Trace(trace_id, span_id, parent_span_id, state, sampled=sampled)
        number = self._bits(128) or 1
        # As OpenTelemetry's TraceIdRatioBased has it: whoever samples by the id elsewhere decides alike.
        sampled = number & (2**64 - 1) < self._sampled_below
        return Trace(b"%032x" % number, span_id, b"", b"", sampled=sampled)


def parse_traceparent(text: bytes) -> tuple[bytes, bytes, bool] | None:
    """The trace id, the span id and the sampled flag that ``text`` tells, or None if it is no ``traceparent``."""
    found = _TRACEPARENT.fullmatch(text) or _OF_A_LATER_VERSION.fullmatch(text)
    if found is None or found[1] == _NO_TRACE or found[2] == _NO_SPAN:
        return None
    return found[1], found[2], bool(int(found[3], 16) & _SAMPLED)


def state_of(values: list[bytes]) -> bytes:
    """One ``tracestate`` out of all headers of that name; empty if they are none, or more than one can be."""
    members = [stripped for value in values for member in value.split(b",") if (stripped := member.strip(b" \t"))]
    keys = {member.partition(b"=")[0] for member in members}
    if len(members) > _MOST_MEMBERS or len(keys) < len(members):
        return b""
    if not all(_MEMBER.fullmatch(member) for member in members):
        return b""
    state = b",".join(members)
    return state if len(state) <= LONGEST_STATE else b""


def _all_of(headers: HeaderList, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]
