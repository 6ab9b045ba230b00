"""OpenTelemetry traces of the requests that Stoker serves."""

from __future__ import annotations

import os

from stoker_otel.observer import Observer

__all__ = ["Observer", "plugin"]

plugin = Observer(os.environ)
