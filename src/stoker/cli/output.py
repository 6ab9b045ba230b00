"""What things are called for people, and JSON for programs."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_json(value: object) -> None:
    """``value`` as JSON, indented."""
    print(json.dumps(value, indent=2, ensure_ascii=False).encode(errors="replace").decode())


def cell(value: object) -> str:
    """``value`` for people: nothing for what isn't there, no control characters that would disturb a terminal."""
    match value:
        case None | [] | {} | ():
            return ""
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:g}"
        case list() | tuple():
            return ", ".join(map(cell, value))
        case Mapping():
            return json.dumps(value, ensure_ascii=False)
    return _CONTROL.sub("�", str(value).rstrip())


def times(count: int) -> str:
    """How often, in words."""
    return "once" if count == 1 else f"{count} times"


def load(told: Mapping[str, Any] | None) -> str:
    """What an engine says of its load, in words."""
    if told is None:
        return ""
    words = f"{told['running']:g} running, {told['waiting']:g} waiting"
    cache = told["kv_cache_used"]
    return words if cache is None else f"{words}, {cache:.0%} of the KV cache"


def ago(seconds_since_epoch: float | None) -> str:
    """How long ago that was, or how long until then, in its largest unit."""
    if seconds_since_epoch is None:
        return ""
    difference = time.time() - seconds_since_epoch
    text = duration(abs(difference))
    return f"{text} ago" if difference >= 0 else f"in {text}"


def duration(seconds: float) -> str:
    """``seconds`` in the largest unit that fits."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def size(count: int) -> str:
    """``count`` bytes in GiB or MiB."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
