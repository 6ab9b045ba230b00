"""Busy is not dead: what a probe's outcome means for an engine that is at work."""

from __future__ import annotations

import enum

from stoker.model import Activity


class Verdict(enum.Enum):
    """What to do about one probe."""

    ALIVE = "alive"
    EXCUSED = "busy, and moving: the time-out does not count"
    FAILED = "the failure counts"
    TRY_A_REQUEST = "busy, and nothing moves: only a real request can tell"


def judge(
    *,
    answered: bool,
    timed_out: bool,
    activity: Activity,
    progress_at: float,
    stall_seconds: float,
    now: float,
) -> Verdict:
    """Judge one probe.

    ``progress_at`` is when the engine last moved by any sign: a byte on a lease, a counter in its metrics, or its
    becoming busy at all. An engine that refuses or errs is failing however busy it is; only a time-out can be excused
    by work. An engine that answers its health path but holds requests it does not advance is asked for a token.
    """
    busy = activity.active_requests > 0
    stalled = busy and now - progress_at >= stall_seconds
    if stalled and (answered or timed_out):
        return Verdict.TRY_A_REQUEST
    if answered:
        return Verdict.ALIVE
    if busy and timed_out:
        return Verdict.EXCUSED
    return Verdict.FAILED
