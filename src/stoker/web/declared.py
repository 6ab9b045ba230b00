"""Every family of ``/metrics``. The page about the metrics, ``docs/reference/metrics.md``, is drawn from here."""

from __future__ import annotations

from stoker.gateway.measures import DURATION_BOUNDS, FIRST_BYTE_BOUNDS, GAP_BOUNDS
from stoker.web.families import Family

_ENGINE = ("model", "engine")
_PATH = (*_ENGINE, "path")

# Requests

REQUESTS = Family(
    "stoker_requests_total",
    "counter",
    (*_PATH, "status"),
    "Requests for engines that are over, by the status sent; 499: the client left.",
    "Refusals of the gateway are among them; `path` is empty for those whose head can't be read.",
)
DURATION = Family(
    "stoker_request_duration_seconds",
    "histogram",
    _PATH,
    "From a request's head to the end of its answer, waiting and retries included.",
    unit="seconds",
    bounds=DURATION_BOUNDS,
    closest="from an embedding of a few words to the longest answer",
)
FIRST_BYTE = Family(
    "stoker_time_to_first_byte_seconds",
    "histogram",
    _PATH,
    "From a request's head to the first byte of its answer, waiting included; of a stream, about to its first token.",
    "An answer that is not streamed has its first byte when it is done.",
    unit="seconds",
    bounds=FIRST_BYTE_BOUNDS,
    closest="closest below a second, where promises about it are made; longer ones have waited",
)
GAPS = Family(
    "stoker_inter_chunk_seconds",
    "histogram",
    _ENGINE,
    "Between two pieces of a streamed answer, as they came from the engine; about the time between tokens.",
    unit="seconds",
    bounds=GAP_BOUNDS,
    closest="closest around the time that engines take for a token: a slow one can be told from one that stalls",
)
RELAYED = Family(
    "stoker_relayed_bytes_total",
    "counter",
    (*_ENGINE, "direction"),
    "Bytes of bodies: of requests (`to_engine`) and of answers (`to_client`).",
    unit="bytes",
)
TOKENS = Family(
    "stoker_tokens_total",
    "counter",
    (*_ENGINE, "kind"),
    "Tokens read (`prompt`, cached ones too) and written (`completion`), as far as the engine reports them.",
    "They stand in its `usage`, and many engines send that with a stream only if the request says "
    '`"stream_options": {"include_usage": true}`. '
    "Only the end of an answer is read: a prompt that a long stream of `/v1/messages` tells at its beginning is not "
    "counted, nor is what is compressed.",
)
IN_FLIGHT = Family("stoker_requests_in_flight", "gauge", _ENGINE, "Requests that the engine works on.")
WAITING = Family("stoker_requests_waiting", "gauge", (), "Requests that wait for an engine that is busy or starting.")
WAITING_LIMIT = Family(
    "stoker_requests_waiting_limit", "gauge", (), "How many requests may wait at once: `queue_size`."
)
REFUSED = Family(
    "stoker_requests_refused_total",
    "counter",
    (),
    "Requests that got an error from the gateway without reaching an engine.",
    "They ask for a model nobody has, meet a full queue, or have a body that is none.",
)
FAILED = Family("stoker_requests_failed_total", "counter", (), "Requests that reached engines, all of which failed.")
RETRIES = Family("stoker_retries_total", "counter", (), "Attempts at a request after its first.")
STREAM_ERRORS = Family(
    "stoker_stream_errors_total",
    "counter",
    (),
    "Streams that broke off, or told of an error, after their first byte.",
    "Their `status` is still that of their head.",
)
TURNS = Family(
    "stoker_session_turns_total",
    "counter",
    ("ending",),
    "Turns of stored conversations: kept whole (`complete`), as far as the answer came (`aborted`), or not (`lost`).",
    "[Those that are lost](../how-to/keep-conversations.md) the state file would not have, or the session was deleted "
    "meanwhile, or the answer was none of a chat.",
)
POLICY_FAILURES = Family(
    "stoker_policy_failures_total",
    "counter",
    ("policy", "reason"),
    "Calls of a routing policy that `raised`, chose what was `not_a_candidate`, or were `slow`.",
    "After one of the first two the built-in policy chose.",
)
POLICY_IN_SERVICE = Family(
    "stoker_policy_in_service",
    "gauge",
    ("policy",),
    "1, or 0 for a policy that was too slow too often, and is not asked any more.",
    "Its models go by the built-in one until Stoker is started again.",
)
OBSERVER_DROPPED = Family(
    "stoker_observer_dropped_total",
    "counter",
    ("plugin",),
    "What a plugin that observes was not told, because it was too far behind.",
    "That is more than 1,024 events.",
)
OBSERVER_FAILURES = Family(
    "stoker_observer_failures_total", "counter", ("plugin",), "Calls at which a plugin that observes failed."
)

# Engines

STATE = Family(
    "stoker_engine_state",
    "gauge",
    (*_ENGINE, "state"),
    "1 for the state the engine is in, 0 for the four others.",
    "[What leads to which](engine-states.md) is a page of its own.",
)
RESTARTS = Family(
    "stoker_engine_restarts_total",
    "counter",
    _ENGINE,
    "Starts of the engine after its first one, whether it failed or somebody asked for it.",
)
READY_AT = Family(
    "stoker_engine_ready_timestamp_seconds",
    "gauge",
    _ENGINE,
    "Since when the engine is READY, in seconds since 1970; only of engines that are.",
    unit="seconds",
)
LIMIT = Family(
    "stoker_engine_max_concurrency",
    "gauge",
    _ENGINE,
    "How many requests the engine may have at once; only of engines with a limit.",
)
RUNNING = Family(
    "stoker_engine_running",
    "gauge",
    _ENGINE,
    "Requests that the engine computes, as its own metrics say.",
    "They are read about every `probe_interval_seconds`, as for the two below, and only where there are any.",
)
QUEUED = Family("stoker_engine_waiting", "gauge", _ENGINE, "Requests that wait within the engine, as it says itself.")
CACHE = Family(
    "stoker_engine_kv_cache_used_ratio",
    "gauge",
    _ENGINE,
    "The part of the engine's KV cache in use, 0 to 1, where it says so.",
    unit="ratio",
)

# The gateway

CONNECTIONS = Family("stoker_connections", "gauge", (), "Connections of clients that are open, idle ones included.")
ACCEPTED = Family("stoker_connections_accepted_total", "counter", (), "Connections of clients there ever were.")
KEY_REFUSALS = Family(
    "stoker_key_refusals_total",
    "counter",
    ("reason",),
    "Requests that were kept out by their API key, or for want of one.",
    "`reason` is the [`code`](http.md#errors) they were answered with.",
)
CONTAINED = Family(
    "stoker_contained_failures_total",
    "counter",
    (),
    "Defects, of Stoker or of a plugin's page, that cost one connection or one request.",
    "Each stands in the log, and each is worth a report.",
)
BUILD = Family("stoker_build_info", "info", ("version", "python"), "The version that runs; always 1.")

OF_REQUESTS = (
    REQUESTS,
    DURATION,
    FIRST_BYTE,
    GAPS,
    RELAYED,
    TOKENS,
    IN_FLIGHT,
    WAITING,
    WAITING_LIMIT,
    REFUSED,
    FAILED,
    RETRIES,
    STREAM_ERRORS,
    TURNS,
    POLICY_FAILURES,
    POLICY_IN_SERVICE,
    OBSERVER_DROPPED,
    OBSERVER_FAILURES,
)
OF_ENGINES = (STATE, RESTARTS, READY_AT, LIMIT, RUNNING, QUEUED, CACHE)
OF_THE_GATEWAY = (CONNECTIONS, ACCEPTED, KEY_REFUSALS, CONTAINED, BUILD)
