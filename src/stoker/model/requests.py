"""Requests, and the engines as the data plane and its policies see them."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from stoker.model.engines import EngineLoad
from stoker.model.nothing import NOTHING


@attrs.frozen(kw_only=True)
class Backend:
    """One engine as the data plane sees it: where it is, what it serves, and whether it takes requests.

    ``accepting`` is true for a READY engine. ``expected`` is true for one that may soon be: starting, or due to be
    restarted; requests wait for it. ``renames`` maps names that the engine does not know to the one that it knows.
    ``policy`` is what the engine's spec says of how to choose among the engines of the model. ``api_key`` is sent to
    the engine and never shown.
    """

    engine_id: str
    incarnation: int
    base_url: str
    model: str
    names: tuple[str, ...]
    kind: str
    runtime: str
    paths: frozenset[str]
    max_concurrency: int | None = None
    renames: Mapping[str, str] = NOTHING
    policy: str | None = None
    api_key: str | None = attrs.field(default=None, repr=False)
    accepting: bool = False
    expected: bool = False
    detail: str = ""


@attrs.frozen(kw_only=True)
class Activity:
    """What the data plane knows of an engine: its open leases, when a byte last came from it (monotonic), its load."""

    active_requests: int = 0
    progress_at: float | None = None
    load: EngineLoad | None = None


@attrs.define(kw_only=True, eq=False)
class RouteRequest:
    """What a routing policy may look at: never the connection, and of the rest only what its ``needs`` name.

    ``model`` is the name that the client sent. ``headers`` (``headers``) have lower-case names; those with credentials
    (``authorization``, ``proxy-authorization``, ``cookie``, ``api-key``, ``x-api-key``) are left out. ``body``
    (``body``) is the whole body. ``prompt`` (``prompt``) is what the engine is to read, as the client wrote it: the
    JSON texts of the body's ``instructions``, ``system``, ``tools``, ``messages``, ``prompt``, ``input`` that are
    there, in this order and joined.
    ``session`` (``session``) is the first text among the body's ``session_id``, ``prompt_cache_key``, ``user``. What is
    not asked for, or not there, is empty.
    """

    request_id: str
    model: str
    path: str
    headers: Mapping[str, str] = NOTHING
    body: bytes = b""
    prompt: bytes = b""
    session: str = ""


@attrs.define(kw_only=True, eq=False)
class Candidate:
    """A READY engine a request may go to. A live view: ``in_flight`` is the engine's load whenever it is read.

    ``load`` is what the engine's own metrics last said, some seconds ago at most; None where they can't be read.
    Only the gateway writes to it. An engine stays the same candidate for as long as its process lives, so that whatever
    is remembered of a candidate (what its cache holds) is forgotten with the process.
    """

    engine_id: str
    in_flight: int = 0
    max_concurrency: int | None = None
    load: EngineLoad | None = None


@attrs.frozen(kw_only=True)
class RequestRecord:
    """One request that is over, for observers. Times are seconds, ``began_at`` since the Unix epoch.

    ``model`` is the engine's model and ``engine_id`` the engine that answered last; both are empty where none was
    reached. ``asked`` is the name that the client sent. ``status`` is the answer's, or 499 for a client that left.
    ``waited_seconds`` passed before the request had an engine; ``first_byte_seconds`` before the answer began, None
    where it never did. Tokens are None where the engine did not report them. ``session_id`` is the stored conversation
    that it went on with.

    ``caller`` says who asked, as the audit trail does (``key`` and its id, never the key). ``trace_id``, ``span_id``
    and the rest are its place in a trace (W3C Trace Context), the ids in hexadecimal: the engine was given ``span_id``
    as its parent; ``parent_span_id`` is what the client sent, empty where it sent none and the trace began here.
    """

    request_id: str
    path: str
    asked: str
    model: str
    engine_id: str
    status: int
    stream: bool
    began_at: float
    duration_seconds: float
    waited_seconds: float
    first_byte_seconds: float | None
    attempts: int
    received_bytes: int
    sent_bytes: int
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str = ""
    trace_id: str = ""
    span_id: str = ""
    parent_span_id: str = ""
    sampled: bool = False
    tracestate: str = ""
    caller: str = ""
    session_id: str = ""
