"""Every error that Stoker itself answers a request with: its ``code``, its status, and why it is given.

An answer is made from one of these (:func:`stoker.gateway.answers.error`), so there is none that is not here; the page
about HTTP is drawn from here too.
"""

from __future__ import annotations

import enum


class Code(enum.Enum):
    """One reason. ``text`` is the member ``code`` of the answer; with ``retry`` it carries ``Retry-After``."""

    def __init__(self, text: str, status: int, why: str, retry: bool = False) -> None:
        self.text = text
        self.status = status
        self.why = why
        self.retry = retry

    # The request can't be read
    MALFORMED_REQUEST = "malformed_request", 400, "the request is not unmistakably HTTP/1.1; the connection is closed"
    INVALID_HEADER = "invalid_header", 400, "a header, or the target, is nothing that could be passed on"
    BAD_HOST = "bad_host", 400, "there is no `Host`, or it names no host"
    INVALID_BODY = "invalid_body", 400, "the body can't be read: it is no JSON, or no form"
    MISSING = "missing", 400, "the body names no model"
    INVALID_TYPE = "invalid_type", 400, "`model` is no text, or `session_id` none, or `messages` no list of messages"
    BAD_REQUEST = "bad_request", 400, "something else is not as it should be; `param` names the part"
    INVALID_CONFIGURATION = (
        "invalid_configuration",
        400,
        "what the body, or the configuration, says can't be; every mistake is named",
    )
    REFUSED = "refused", 400, "what no other code is for; it may also have another status"
    REQUEST_TIMEOUT = (
        "request_timeout",
        408,
        "the body paused for 30 seconds, or was slower than `min_body_bytes_per_second`; the connection is closed",
    )
    REQUEST_TOO_LARGE = (
        "request_too_large",
        413,
        "the body is over `max_body_bytes`; at most 1 MiB of what still comes is read, and the connection is closed",
    )
    HEAD_TOO_LARGE = "head_too_large", 431, "the head is over 64 KiB; the connection is closed"

    # It may not be
    INVALID_API_KEY = (
        "invalid_api_key",
        401,
        "no key, one that is unknown, or one that was revoked or has expired; the connection is closed",
    )
    INSUFFICIENT_SCOPE = "insufficient_scope", 403, "the key may not do that"
    MODEL_NOT_ALLOWED = "model_not_allowed", 403, "the key may not ask for that model"
    HOST_NOT_ALLOWED = "host_not_allowed", 403, "the `Host` is not this gateway; see `allowed_hosts`"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed", 403, "a web page of another site asks"
    NO_WEBSOCKET = "no_websocket", 403, "the request is to become a websocket; there are none"
    COMMANDS_NOT_ALLOWED = (
        "commands_not_allowed",
        403,
        "commands and environments [do not come over HTTP](../how-to/protect-a-gateway.md#what-may-come-over-http)",
    )
    ENGINE_HOST_NOT_ALLOWED = "engine_host_not_allowed", 403, "the engine's address is outside `register_hosts`"
    API_KEY_VARIABLE_NOT_ALLOWED = (
        "api_key_variable_not_allowed",
        403,
        "the `api_key_env` is not among `api_key_variables`",
    )
    RATE_LIMIT_EXCEEDED = "rate_limit_exceeded", 429, "the key has no more requests in this minute", True
    CONCURRENCY_LIMIT_EXCEEDED = "concurrency_limit_exceeded", 429, "the key may have no more requests at once", True

    # There is no such thing
    MODEL_NOT_FOUND = (
        "model_not_found",
        404,
        "nobody serves that model; the message lists what there is, and what was probably meant",
    )
    PATH_NOT_SERVED = (
        "path_not_served",
        404,
        "the model's engines don't serve that path; the message lists those they do",
    )
    SESSION_NOT_FOUND = "session_not_found", 404, "no session has that id, or it is another key's"
    NOT_FOUND = "not_found", 404, "there is nothing at that path: no engine, key or turn of that name, or no page"
    METHOD_NOT_ALLOWED = "method_not_allowed", 405, "the path takes another method, which `Allow` names"
    CONFLICT = "conflict", 409, "a name or an address is taken, or the state of the engine forbids it"
    ENGINE_STOPPED = "engine_stopped", 409, "with `?wait=ready`: the engine was stopped or deleted meanwhile"

    # Not now
    QUEUE_FULL = "queue_full", 429, "too many wait already, for an engine or for the turn of their session", True
    TOO_MANY_FROM_ONE = "too_many_connections", 429, "`connections_per_address` are open from there", True
    TOO_MANY_CONNECTIONS = "too_many_connections", 503, "the gateway has as many connections as it can have", True
    QUEUE_TIMEOUT = "queue_timeout", 503, "no engine, or not the turn of the session, in `queue_seconds`", True
    NO_ENGINE = "no_engine", 503, "no engine of the model is READY, or will be by itself"
    ENGINE_WAITS = "engine_waits", 503, "with `?wait=ready`: the engine waits for GPUs, and the message says which"
    NOT_READY = "not_ready", 503, "`/ready`: no engine is READY, or Stoker stops", True
    SHUTTING_DOWN = "shutting_down", 503, "Stoker stops", True
    EXHAUSTED = "exhausted", 503, "the machine has no descriptor, memory or port left to reach an engine with", True
    STATE_UNAVAILABLE = (
        "state_unavailable",
        503,
        "the state file can't be read or written: a full disk, or one that is no longer there",
        True,
    )

    # Something failed
    ENGINE_FAILED = "engine_failed", 502, "the engine broke off, could not start, or refused; no other could be tried"
    ENGINE_MISCONFIGURED = "engine_misconfigured", 502, "what is configured for the engine, its API key, can't be sent"
    FAILED = "failed", 500, "the gateway could not do it; the message says why"
    INTERNAL_ERROR = "internal_error", 500, "a defect of Stoker or of a plugin; the log says more"
