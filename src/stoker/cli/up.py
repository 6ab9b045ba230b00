"""``stoker up``."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter

from stoker import __version__
from stoker.cli.configured import require_fit
from stoker.cli.invocation import command, program
from stoker.cli.plugins import load_plugins
from stoker.cli.serving import AS_CONFIGURED, Serving
from stoker.home import Home
from stoker.log_formats import formatter
from stoker.settings import Settings

log = logging.getLogger("stoker.app")


def up(*, serving: Serving = AS_CONFIGURED) -> int:
    """Run the gateway and the engines of stoker.toml in the foreground.

    It stays until Ctrl-C or SIGTERM. The first one lets requests finish, the second one hurries; either way no
    process is left behind, and the exit code is 0. Without --config it reads ./stoker.toml, and without that it
    starts no engines. It logs to standard error.
    """
    path, settings = serving.find_settings()
    registry = load_plugins(serving.plugin_path, strict=serving.strict)
    require_fit(settings, registry, str(path or "the defaults"))
    serving.require_door(path, settings)
    log_to_stderr(logging.INFO, settings.gateway.log_format)
    from stoker.app import run
    from stoker.handing_over import Successor

    def say_where(url: str) -> None:
        for line in (f"Stoker {__version__} answers at {url}/v1", _engines_line(settings)):
            if settings.gateway.log_format == "json":  # whoever collects both outputs expects nothing else
                log.info("%s", line)
            else:
                print(line, flush=True)

    home = Home.from_environment(os.environ)
    successor = Successor(command(), sys.argv[1:])
    return run(
        settings, home, registry, config_path=path, on_ready=say_where, strict=serving.strict, successor=successor
    )


def _engines_line(settings: Settings) -> str:
    if not settings.engines:
        return f"no engines are configured; start one with: {program()} engine start MODEL"
    counts = Counter[str]()
    for spec in settings.engines:
        counts[f"{(spec.names or (spec.model,))[0]} ({spec.runtime})"] += spec.replicas
    return "starting " + ", ".join(f"{count} x {name}" if count > 1 else name for name, count in counts.items())


def log_to_stderr(level: int, log_format: str = "text") -> None:
    """Log what Stoker does to standard error, and of the libraries only what is wrong."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.getLogger("stoker").setLevel(level)
