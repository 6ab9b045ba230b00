"""What ``stoker.toml`` configures, as records. :mod:`stoker.config` reads the file into them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs

from stoker.model import NOTHING, EngineSpec

MIB = 1024 * 1024
PRIVATE_NETWORKS = ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")
ENGINE_VARIABLES = "STOKER_ENGINE_*"


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """The ``[gateway]`` table.

    ``listen`` is ``host:port`` (port 0: any free one). ``queue_size`` requests may wait at once, each for
    ``queue_seconds``, for an engine that is busy or starting. Retries may be up to ``retry_ratio`` of the requests of
    the last while. ``allowed_hosts`` are names besides loopback that a ``Host`` header may carry. ``require_keys`` asks
    clients for API keys even while there are none.

    With ``certfile``, a certificate and what leads up to it, only TLS is spoken; ``keyfile`` has its key if that is not
    in the same file.

    ``register_hosts`` (names, addresses, networks) are where engines may be that somebody registers over HTTP, and
    ``allow_commands_over_http`` lets whoever may manage start any command. ``api_key_variables`` (names, or what they
    begin with and ``*``) are the variables of our own environment that ``api_key_env`` may name over HTTP.

    A body has to come with ``min_body_bytes_per_second``, but for half a minute. A client that takes nothing of its
    answer for ``send_stall_seconds`` is cut off. ``connections_per_address`` is how
    many connections clients of one address may have, loopback excepted.

    Of the traces that begin here, about ``trace_sample_ratio`` (0 to 1) are sampled. Lines of the log are ``text`` or
    ``json`` (``log_format``); ``access_log`` is a file for a line of each request, or ``-`` to have it in the log.
    """

    listen: str = "127.0.0.1:8000"
    policy: str = "least-load"
    max_body_bytes: int = 64 * MIB
    min_body_bytes_per_second: int = 8192
    queue_size: int = 1024
    queue_seconds: float = 60.0
    connect_timeout_seconds: float = 5.0
    retry_ratio: float = 0.2
    allowed_hosts: tuple[str, ...] = ()
    require_keys: bool = False
    certfile: Path | None = None
    keyfile: Path | None = None
    register_hosts: tuple[str, ...] = PRIVATE_NETWORKS
    allow_commands_over_http: bool = False
    api_key_variables: tuple[str, ...] = (ENGINE_VARIABLES,)
    send_stall_seconds: float = 120.0
    connections_per_address: int = 1000
    trace_sample_ratio: float = 1.0
    log_format: str = "text"
    access_log: str | None = None


@attrs.frozen(kw_only=True)
class SessionSettings:
    """The ``[sessions]`` table.

    Unless ``enabled``, a ``session_id`` means nothing. With a request go the last ``max_turns`` of its session, and no
    more than about ``max_tokens`` of them (None: however many those are). Sessions in which nothing happened for
    ``keep_days`` are forgotten (None: never).
    """

    enabled: bool = True
    max_turns: int = 100
    max_tokens: int | None = None
    keep_days: float | None = None


@attrs.frozen(kw_only=True)
class RuntimeSettings:
    """One ``[runtime.NAME]`` table: ``python`` names the interpreter of an environment that exists already."""

    python: Path | None = None


@attrs.frozen(kw_only=True)
class Settings:
    """A whole configuration. ``policies`` are the ``[policy.NAME]`` tables: options, as the policies want them."""

    gateway: GatewaySettings = attrs.field(factory=GatewaySettings)
    sessions: SessionSettings = attrs.field(factory=SessionSettings)
    engines: tuple[EngineSpec, ...] = ()
    runtimes: Mapping[str, RuntimeSettings] = NOTHING
    policies: Mapping[str, Mapping[str, Any]] = NOTHING
    scheduler: str = "pack"
    log_max_bytes: int = 64 * MIB
