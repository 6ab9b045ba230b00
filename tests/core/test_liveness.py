"""Busy is not dead, and silent work is not life."""

import pytest

from stoker.core.liveness import Verdict, judge
from stoker.model import Activity

IDLE, BUSY = Activity(), Activity(active_requests=3)


@pytest.mark.parametrize(
    ("answered", "timed_out", "activity", "silent_for", "verdict"),
    [
        (True, False, IDLE, 1e6, Verdict.ALIVE),
        (True, False, BUSY, 5, Verdict.ALIVE),
        (False, True, IDLE, 0, Verdict.FAILED),
        (False, True, BUSY, 5, Verdict.EXCUSED),
        (False, False, BUSY, 5, Verdict.FAILED),  # refused while busy: nobody listens any more
        (False, False, BUSY, 500, Verdict.FAILED),
        (True, False, BUSY, 120, Verdict.TRY_A_REQUEST),  # healthy but producing nothing
        (False, True, BUSY, 120, Verdict.TRY_A_REQUEST),
    ],
)
def test_a_probe_is_judged_by_what_the_engine_is_doing(
    answered: bool, timed_out: bool, activity: Activity, silent_for: float, verdict: Verdict
) -> None:
    now = 1e7
    judged = judge(
        answered=answered,
        timed_out=timed_out,
        activity=activity,
        progress_at=now - silent_for,
        stall_seconds=120,
        now=now,
    )
    assert judged is verdict
