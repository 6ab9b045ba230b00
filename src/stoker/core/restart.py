"""The restart budget: capped exponential backoff with full jitter, counted since the last healthy period.

Full jitter is the scheme of M. Brooker, "Exponential Backoff and Jitter" (AWS Architecture Blog, 2015): a delay drawn
evenly from zero to the capped exponential, so that engines that fell together don't come back together. Attempts are
not counted per window of time: a loop that fails slowly would never trip such a limit.
"""

from __future__ import annotations

import hashlib

from stoker.model import EngineSpec


def attempts_so_far(spec: EngineSpec, attempts: int, ready_at: float | None, now: float) -> int:
    """``attempts``, or zero again when the incarnation that just failed had been READY for ``healthy_seconds``."""
    was_healthy = ready_at is not None and now - ready_at >= spec.healthy_seconds
    return 0 if was_healthy else attempts


def backoff_seconds(spec: EngineSpec, attempt: int, chance: float) -> float:
    """How long to wait before restart number ``attempt`` (from 1). ``chance`` is drawn evenly from [0, 1)."""
    exponential = spec.restart_base_seconds * 2.0 ** min(attempt - 1, 60)
    return chance * min(spec.restart_cap_seconds, exponential)


def draw(seed: bytes, engine_id: str, incarnation: int) -> float:
    """A number in [0, 1) that only these three decide: chance as an argument, so that ``step`` stays a function."""
    digest = hashlib.blake2b(f"{engine_id}:{incarnation}".encode(), key=seed, digest_size=8).digest()
    return int.from_bytes(digest) / 2.0**64
