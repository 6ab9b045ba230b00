"""The plugin: remembers the engines, and sends the spans of every request that is over and sampled.

All of it is called on the plugin's own thread, so there is nothing to lock. What it imports of OpenTelemetry it
imports there, with the first request: commands that only look at plugins don't wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from stoker.hookspecs import hookimpl
from stoker.model import EngineInfo, RequestRecord

if TYPE_CHECKING:
    from stoker_otel.sending import Sender

log = logging.getLogger("stoker.plugins")

FLUSH_SECONDS = 1.5  # Stoker waits two for all plugins together
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN = "http/protobuf"


class Observer:
    """Sends traces where the ``OTEL_…`` variables of ``environ`` say, or nothing if they name no place.

    A variable that can't be followed is told in the log, with the first request, and nothing is sent then.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._engines: dict[str, EngineInfo] = {}
        self._sender: Sender | None = None
        self._is_on = is_wanted(environ)

    @hookimpl
    def stoker_engine_changed(self, before: EngineInfo | None, after: EngineInfo | None) -> None:
        """Remember where the engine is."""
        if after is not None:
            self._engines[after.engine_id] = after
        elif before is not None:
            self._engines.pop(before.engine_id, None)

    @hookimpl
    def stoker_request_finished(self, record: RequestRecord) -> None:
        """Queue its spans; another thread sends them, some seconds later."""
        if not self._is_on or not record.sampled:
            return
        if self._sender is None:
            self._sender = self._make_sender()
        if self._sender is not None:
            self._sender.send(record, self._engines.get(record.engine_id))

    @hookimpl
    def stoker_ending(self) -> None:
        """Send what is queued."""
        if self._sender is not None:
            self._sender.close(FLUSH_SECONDS)

    def _make_sender(self) -> Sender | None:
        protocol = next((self._environ[name] for name in _PROTOCOLS if self._environ.get(name)), _SPOKEN)
        if protocol == _SPOKEN:
            from stoker_otel.sending import Sender

            return Sender(self._environ)
        self._is_on = False
        log.error("no traces are sent: this plugin speaks OTLP over %s, and not over %s", _SPOKEN, protocol)
        return None


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the variables name a place to send traces to, and don't forbid it."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = [each.strip() for each in (environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(",")]
    return "otlp" in exporters and any(environ.get(name) for name in _ENDPOINTS)
