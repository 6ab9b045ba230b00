"""What the gateway counts, for the status page."""

from __future__ import annotations

import attrs


@attrs.define
class Counters:
    """Plain counts since the start. ``refused`` requests got an error from the gateway without reaching an engine."""

    requests: int = 0
    retries: int = 0
    refused: int = 0
    errors: int = 0
    stream_errors: int = 0
