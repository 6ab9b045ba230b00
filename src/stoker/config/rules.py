"""Every setting there is: what it means and what it may be.

The tables here are the one source for range checks, for the JSON Schema and for ``docs/reference/configuration.md``;
names, types and defaults come from the records themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import attrs

from stoker.config.checks import (
    check_env,
    check_health_path,
    check_host_names,
    check_hosts,
    check_kind,
    check_label,
    check_listen,
    check_log_format,
    check_names,
    check_url,
    check_variable,
    check_variables,
)
from stoker.model import EngineSpec
from stoker.settings import GatewaySettings, RuntimeSettings, SessionSettings, Settings

YEAR = 366 * 24 * 3600
GIB = 1024**3
TIB = 1024**4


@attrs.frozen(kw_only=True)
class Rule:
    """What one setting means, and the limits of its value.

    ``minimum`` and ``maximum`` are for numbers, ``not_empty`` is for texts and lists. ``check`` is given a value of
    the right type and raises ValueError with the end of a sentence that begins with the setting's path.
    """

    meaning: str
    minimum: float | None = None
    maximum: float | None = None
    not_empty: bool = False
    check: Callable[[Any], None] | None = None

    def apply(self, value: Any) -> None:
        """Raise ValueError when ``value``, which has the right type, is not allowed."""
        if self.not_empty and not value:
            raise ValueError("must not be empty")
        if self.minimum is not None and value < self.minimum:
            raise ValueError(f"must be at least {_plain(self.minimum)}, not {_plain(value)}")
        if self.maximum is not None and value > self.maximum:
            raise ValueError(f"must be at most {_plain(self.maximum)}, not {_plain(value)}")
        if self.check is not None:
            self.check(value)


def _plain(number: float) -> str:
    try:
        return str(number) if isinstance(number, int) and abs(number) < 10**15 else f"{number:g}"
    except OverflowError:
        return "a number of that size"


def _seconds(meaning: str, minimum: float = 0) -> Rule:
    return Rule(meaning=meaning, minimum=minimum, maximum=YEAR)


TOP: Mapping[str, Rule] = MappingProxyType(
    {
        "gateway": Rule(meaning="How the gateway answers clients."),
        "sessions": Rule(meaning="How stored conversations are kept."),
        "engines": Rule(meaning="The engines, one `[[engine]]` table each."),
        "runtimes": Rule(meaning="Settings of a runtime, one `[runtime.NAME]` table each."),
        "policies": Rule(meaning="Options of a policy, one `[policy.NAME]` table each."),
        "scheduler": Rule(meaning="Which plugin gives GPUs to engines; see `stoker plugin list`.", not_empty=True),
        "log_max_bytes": Rule(
            meaning="How large an engine's log may grow before it is moved aside; one older part is kept.",
            minimum=1024,
            maximum=TIB,
        ),
    }
)

GATEWAY: Mapping[str, Rule] = MappingProxyType(
    {
        "listen": Rule(
            meaning="`host:port` to listen on, `[::1]:8000` for IPv6, port 0 for any free one. One that others can "
            "reach needs an API key, or `require_keys`.",
            check=check_listen,
        ),
        "policy": Rule(
            meaning="Which plugin chooses among the READY engines of a model that names none. `stoker plugin list` has "
            "them.",
            not_empty=True,
        ),
        "max_body_bytes": Rule(
            meaning="The largest request body; a larger one is answered with 413.", minimum=1024, maximum=TIB
        ),
        "min_body_bytes_per_second": Rule(
            meaning="How fast a request body has to come on the whole. It has 30 seconds besides, and may not pause "
            "for longer; one that is too slow is answered with 408.",
            minimum=1,
            maximum=GIB,
        ),
        "queue_size": Rule(
            meaning="How many requests may wait at once for an engine; the next is answered with 429.",
            minimum=0,
            maximum=1_000_000,
        ),
        "queue_seconds": _seconds(
            "How long a request may wait for an engine that is busy or starting; then it is answered with 503."
        ),
        "connect_timeout_seconds": _seconds("How long connecting to an engine may take.", 0.01),
        "retry_ratio": Rule(
            meaning="Retries on another engine, as a share of the requests of the last while.", minimum=0, maximum=1
        ),
        "allowed_hosts": Rule(
            meaning="Names besides loopback that a `Host` header may carry, such as a reverse proxy's.",
            check=check_host_names,
        ),
        "certfile": Rule(
            meaning="A certificate in PEM, with those that lead up to it: then only TLS is spoken.",
        ),
        "keyfile": Rule(meaning="The key of the certificate, if it is not in the same file."),
        "register_hosts": Rule(
            meaning="Where engines may be that are registered over HTTP: host names, addresses, networks such as "
            "`10.0.0.0/8`. Link-local and other addresses that are never an engine's have to be named by themselves.",
            check=check_hosts,
        ),
        "allow_commands_over_http": Rule(
            meaning="Let whoever may manage start any `command` over HTTP. Without it a stolen token is no shell.",
        ),
        "api_key_variables": Rule(
            meaning="Which variables of the gateway's environment an `api_key_env` that comes over HTTP may name, so "
            "that no other secret can be sent to a URL of somebody's choice: names, or beginnings of names with a `*`.",
            check=check_variables,
        ),
        "require_keys": Rule(
            meaning="Ask clients for API keys even while there are none, so that a state file that got lost opens "
            "nothing. Without it, this machine may do without keys until there is one.",
        ),
        "send_stall_seconds": _seconds(
            "How long a client may take nothing of an answer that is there for it; then the answer is cut off, and the "
            "engine is free again.",
            0.01,
        ),
        "connections_per_address": Rule(
            meaning="How many connections clients of one address (of one /64, with IPv6) may have at once; a further "
            "one is answered with 429. Loopback is not counted, so a reverse proxy here has to count itself.",
            minimum=1,
            maximum=1_000_000,
        ),
        "trace_sample_ratio": Rule(
            meaning="Which share of the traces that begin here is sampled. What a client's `traceparent` says of its "
            "own is kept.",
            minimum=0,
            maximum=1,
        ),
        "log_format": Rule(
            meaning="How lines of the log look: `text`, or `json` for programs. `--log-format` is the same.",
            check=check_log_format,
        ),
        "access_log": Rule(
            meaning="A file for a line about each request (model, engine, tokens, times; no prompts, no keys), or `-` "
            "to have them in the log. Without it there are none.",
            not_empty=True,
        ),
    }
)

SESSIONS: Mapping[str, Rule] = MappingProxyType(
    {
        "enabled": Rule(
            meaning="Keep conversations. Without it, `session_id` in a chat request goes to the engine like the rest.",
        ),
        "max_turns": Rule(
            meaning="How many of the last turns of its session go with a request. A turn is a request and its answer.",
            minimum=0,
            maximum=1_000_000,
        ),
        "max_tokens": Rule(
            meaning="About how many tokens of its session go with a request, as whole turns, the last ones. Four bytes "
            "of text are taken for a token, and 1000 tokens for a part that is no text.",
            minimum=1,
            maximum=1_000_000_000,
        ),
        "keep_days": Rule(
            meaning="Forget sessions in which nothing happened for so long, every hour. Without it they stay.",
            minimum=0.001,
            maximum=36_600,
        ),
    }
)

RUNTIME: Mapping[str, Rule] = MappingProxyType(
    {
        "python": Rule(
            meaning="The Python of an environment that exists already; without it, `stoker runtime install` makes one."
        ),
    }
)

ENGINE: Mapping[str, Rule] = MappingProxyType(
    {
        "model": Rule(
            meaning="What the engine loads: a name, a path, or the model's name at a URL. Clients may call it by this.",
            not_empty=True,
        ),
        "runtime": Rule(meaning="Which runtime plugin starts it; see `stoker runtime list`.", not_empty=True),
        "names": Rule(meaning="What clients may call the model, besides `model`.", check=check_names),
        "kind": Rule(meaning="What it is for: `llm`, `embedding`, `rerank`, ….", check=check_kind),
        "label": Rule(meaning="A name for the engine itself; its id is made of it.", check=check_label),
        "replicas": Rule(meaning="How many engines of this kind to run.", minimum=1, maximum=1024),
        "gpus": Rule(meaning="How many GPUs each one gets. The scheduler chooses which.", minimum=0, maximum=1024),
        "args": Rule(meaning="Further arguments for the engine, as a list. No shell sees them."),
        "env": Rule(meaning="Environment variables laid over Stoker's own.", check=check_env),
        "cwd": Rule(
            meaning="The folder the engine runs in; a relative one starts at the file's folder. "
            "Without it, the folder that Stoker was started in."
        ),
        "command": Rule(
            meaning='For `runtime = "command"`: the command as a list; `{port}`, `{host}`, `{model}`, `{names}` and '
            "`{gpus}` in it are replaced."
        ),
        "port": Rule(meaning="A fixed port; without it, any free one.", minimum=1, maximum=65535),
        "url": Rule(meaning='For `runtime = "remote"`: where the engine already answers.', check=check_url),
        "api_key_env": Rule(
            meaning="The environment variable that holds the key sent to the engine.", check=check_variable
        ),
        "max_concurrency": Rule(
            meaning="How many requests it is given at once; others wait. Without it there is no limit.",
            minimum=1,
            maximum=1_000_000,
        ),
        "policy": Rule(
            meaning="Which plugin chooses among the READY engines of the model, if not the one of `[gateway]`. It is "
            "enough that one of its engines says so.",
            not_empty=True,
        ),
        "required_memory_bytes": Rule(
            meaning="GPU memory the engine needs. May also be given in GiB as `required_memory_gb`.",
            minimum=0,
            maximum=1024 * TIB,
        ),
        "tensor_parallel_size": Rule(meaning="Over how many GPUs each layer is split.", minimum=1, maximum=1024),
        "pipeline_parallel_size": Rule(
            meaning="Over how many groups of GPUs the layers are shared out.", minimum=1, maximum=1024
        ),
        "metadata": Rule(meaning="Anything you like; it is shown again, never looked at."),
        "health_path": Rule(
            meaning="The path that answers 200 when the engine is ready; without it, the runtime's own.",
            check=check_health_path,
        ),
        "startup_timeout_seconds": _seconds("How long it may take to become READY.", 0.01),
        "drain_timeout_seconds": _seconds("How long a stop waits for requests that are under way."),
        "stop_grace_seconds": _seconds("How long its processes have between SIGTERM and SIGKILL."),
        "stall_seconds": _seconds(
            "How long a busy engine may show no progress before it is asked for one token as a proof of life. If that "
            "does not come either, what it holds fails. Of an engine at a `url` only what it answers is progress: for "
            "one that does one request at a time this has to be longer than its longest.",
            0.01,
        ),
        "probe_interval_seconds": _seconds("How often it is asked whether it lives.", 0.01),
        "probe_timeout_seconds": _seconds("How long it may take to answer that.", 0.01),
        "probe_failures": Rule(
            meaning="After how many failed probes in a row it counts as failed.", minimum=1, maximum=1_000_000
        ),
        "restart_limit": Rule(
            meaning="How often it is restarted since it was last healthy, before it stays in ERROR.",
            minimum=0,
            maximum=1_000_000,
        ),
        "restart_base_seconds": _seconds(
            "The longest wait before the first restart; it doubles with each further one."
        ),
        "restart_cap_seconds": _seconds("The longest wait before any restart."),
        "healthy_seconds": _seconds("How long it must have been READY for its restarts to be counted from zero again."),
    }
)

# What older clients call some of them over HTTP; in a file, the suggestion for who writes them there.
OLDER: Mapping[str, str] = MappingProxyType(
    {
        "model_id": "model",
        "engine_kind": "kind",
        "extra_args": "args",
        "engine_label": "label",
        "max_concurrent_requests": "max_concurrency",
    }
)

RULES: Mapping[type, Mapping[str, Rule]] = MappingProxyType(
    {Settings: TOP, GatewaySettings: GATEWAY, SessionSettings: SESSIONS, RuntimeSettings: RUNTIME, EngineSpec: ENGINE}
)
