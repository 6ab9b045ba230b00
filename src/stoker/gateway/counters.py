"""What the gateway counts, for the status page."""

from __future__ import annotations

import attrs


@attrs.define
class Counters:
    """Plain counts since the start. ``refused`` requests got an error from the gateway without reaching an engine.

    ``turns_…`` are those of stored conversations: kept whole, kept as far as they came, and not kept at all.
    """

    requests: int = 0
    retries: int = 0
    refused: int = 0
    errors: int = 0
    stream_errors: int = 0
    turns_kept: int = 0
    turns_aborted: int = 0
    turns_lost: int = 0
